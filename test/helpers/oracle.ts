import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { newFolder } from './folders.ts';
import { alive, holdersOf, signal, until } from './procs.ts';
import { LOSES_ITS_FIRST_THREAD } from './threads.ts';

/** How a job behaves once it has started; see the script. */
export type Conduct =
  | 'plain'
  | 'ignores-term'
  | 'escapes'
  | 'escapes-without-environment'
  | 'leaves-without-environment'
  | 'loses-its-first-thread'
  | 'escapes-by-a-thread'
  | 'leaves-by-a-thread'
  | 'leaves-once-orphaned'
  | 'forks'
  | 'ends'
  | 'works';

export interface Start {
  /** Undefined: not a child of elect-run. */
  token: bigint | undefined;
  pid: number;
  /** /proc/uptime in ms, in steps of 10. */
  at: number;
  /** ELECT_RUN_ID, or `-`. */
  who: string;
  /** ELECT_RUN_SCHEDULED_AT, or `-`. */
  slot: string;
}

/**
 * The judge, who knows nothing of elections. Every job of a test takes the same kernel lock, flock(2), without waiting, on a descriptor that
 * all its descendants inherit; so the lock is free only when the whole tree of the last job is dead, and a job that finds it taken is an overlap.
 */
export class Oracle {
  readonly folder = newFolder('oracle');
  readonly lock = join(this.folder, 'lock');
  readonly #history = join(this.folder, 'history');
  readonly #script = join(this.folder, 'job.sh');

  /** `tools`: a folder with sh, flock and the like, where they are not in their usual places. */
  constructor(tools?: string) {
    writeFileSync(this.lock, '');
    writeFileSync(this.#history, '');
    writeFileSync(this.#script, jobScript(this.lock, this.#history, tools));
    chmodSync(this.#script, 0o755);
    oracles.add(this);
  }

  /**
   * The command line of a job. What `works` does so for some seconds, and is done. `patience`: whoever finds the lock taken, which is an overlap, waits so
   * many seconds for it and starts then.
   */
  job(conduct: Conduct = 'plain', seconds = 0, patience = 0): string[] {
    return [this.#script, conduct, String(seconds), String(patience)];
  }

  #lines(word: string): string[][] {
    return readFileSync(this.#history, 'utf8')
      .split('\n')
      .slice(0, -1) // the last line may still be written
      .map((line) => line.split(' '))
      .filter(([first]) => first === word);
  }

  starts(): Start[] {
    return this.#notes('START');
  }

  /** The ends of those that `work`. */
  done(): Start[] {
    return this.#notes('DONE');
  }

  #notes(word: string): Start[] {
    return this.#lines(word).map(([, token, pid, at, who, slot]) => ({
      token: token === '-' ? undefined : BigInt(token!),
      pid: Number(pid),
      at: Math.round(Number(at) * 1000),
      who: who!,
      slot: slot!,
    }));
  }

  overlaps(): string[] {
    return this.#lines('OVERLAP').map((line) => line.join(' '));
  }

  /** Those who found somebody at work. */
  clashes(): Start[] {
    return this.#notes('OVERLAP');
  }

  /** The n-th job that started, counted from 1. */
  async started(n: number, timeoutMs = 30_000): Promise<Start> {
    await until(() => this.starts().length >= n || this.overlaps().length > 0, `start ${n} of a job`, timeoutMs);
    this.#noOverlap();
    return this.starts()[n - 1]!;
  }

  /** The pid of the n-th grandchild that left session and parent of its job. */
  async escaped(n: number, timeoutMs = 30_000): Promise<number> {
    return until(() => Number(this.#lines('ESCAPED')[n - 1]?.[1]) || undefined, `escape ${n} from a job`, timeoutMs);
  }

  /** Everybody who is, or comes from, a job and lives. */
  workers(): number[] {
    return holdersOf(this.lock);
  }

  /** performance.now() of the moment at which the whole tree is dead, told by the kernel. Only where no other job is about to start: it takes the lock. */
  async whenFree(): Promise<number> {
    const waiter = spawn('flock', [this.lock, 'true'], { stdio: 'ignore' });
    await once(waiter, 'exit');
    return performance.now();
  }

  #noOverlap(): void {
    if (this.overlaps().length > 0) throw new Error(`two at once:\n${readFileSync(this.#history, 'utf8')}`);
  }

  /** The verdict: never two at once, so many starts, and tokens that only grew. Throws otherwise. */
  verify(starts: number): void {
    this.#noOverlap();
    const history = readFileSync(this.#history, 'utf8');
    if (this.starts().length !== starts) throw new Error(`not ${starts} starts:\n${history}`);
    const ours = this.starts().filter(({ token }) => token !== undefined);
    const grows = (before: Start, { token, slot, who }: Start) =>
      token! > before.token! || (slot?.includes('T') && token === before.token && who === before.who); // one leader, several runs
    if (ours.some((start, index) => index > 0 && !grows(ours[index - 1]!, start)))
      throw new Error(`tokens do not grow:\n${history}`);
  }

  /** The verdict about a schedule: never two at once, and exactly one completed run for each of these slots and for no other. */
  verifySlots(slots: string[]): void {
    this.#noOverlap();
    const done = this.done().map(({ slot }) => slot);
    if (done.join() !== slots.join())
      throw new Error(`not once each of ${slots}:\n${readFileSync(this.#history, 'utf8')}`);
  }

  /** For a test of the oracle itself. */
  record(line: string): void {
    appendFileSync(this.#history, `${line}\n`);
  }

  /** A job of nobody's, in a session of its own. */
  spawn(conduct: Conduct = 'plain'): ChildProcess {
    const [file, ...args] = this.job(conduct);
    return spawn(file!, args, { stdio: 'ignore', detached: true });
  }

  /** Ends whoever still works, and waits until they are dead. */
  async clear(): Promise<void> {
    await until(
      () => {
        const workers = this.workers();
        for (const pid of workers) signal(pid, 'SIGKILL');
        return !workers.some(alive);
      },
      'the end of all jobs',
      5000,
    );
  }
}

const oracles = new Set<Oracle>();

/** For afterEach, once all candidates are gone. */
export async function clearOracles(): Promise<void> {
  for (const oracle of oracles) {
    await oracle.clear();
    rmSync(oracle.folder, { recursive: true, force: true });
    oracles.delete(oracle);
  }
}

const IGNORE_ALL =
  'for n in 1 2 3 4 5 6 7 8 10 11 12 13 14 15 16 18 20 21 22 23 24 25 26 27 28 29 30 31; do trap "" $n; done';

/** `at` is a clock that nothing steps, read without a process of its own. Appends of one line are whole (O_APPEND, write(2)). */
const jobScript = (lock: string, history: string, tools = '/bin') => `#!${tools}/sh
PATH='${tools}':$PATH
# One generation of many, each in a session of its own, and each gone before the next has forked.
if [ "$1" = fork ]; then
  sleep 0.03
  [ "$2" -eq 0 ] || setsid "$0" fork $(($2 - 1)) &
  exit 0
fi
exec 9>>'${lock}' </dev/null >/dev/null 2>&1
note() { read -r at _ </proc/uptime; echo "$1 \${FENCING_TOKEN:--} $$ $at \${ELECT_RUN_ID:--} \${ELECT_RUN_SCHEDULED_AT:--}" >>'${history}'; }
flock --nonblock 9 || { note OVERLAP; flock --timeout "$3" 9 || exit 99; }
[ "$1" != ignores-term ] || trap '' TERM # whoever sees it start may signal it at once
note START
# It has a session of its own and ignores what can be ignored; it works on.
stray='${IGNORE_ALL}; echo "ESCAPED $$" >>"$0"; exec sleep infinity'
# And its parent ends at once.
escapee='${IGNORE_ALL}; (echo "ESCAPED $(exec sh -c "echo \\$PPID")" >>"$0"; exec sleep infinity) &'
case $1 in
  plain | ignores-term) exec sleep infinity ;;
  escapes) setsid --fork sh -c "$escapee" '${history}'; exec sleep infinity ;;
  escapes-without-environment) env -i setsid --fork sh -c "$escapee" '${history}'; exec sleep infinity ;;
  loses-its-first-thread) ${IGNORE_ALL}; exec ${LOSES_ITS_FIRST_THREAD} '${history}' ;;
  escapes-by-a-thread) (${IGNORE_ALL}; setsid --fork ${LOSES_ITS_FIRST_THREAD} '${history}'); exec sleep infinity ;;
  leaves-by-a-thread) exec ${LOSES_ITS_FIRST_THREAD} /dev/null env -i setsid sh -c "$stray" '${history}' ;;
  leaves-without-environment) env -i setsid sh -c "$stray" '${history}' & wait ;;
  leaves-once-orphaned) { while [ -e /proc/$$ ]; do sleep 0.01; done; env -i setsid sh -c "$stray" '${history}' & wait; } & exec sleep infinity ;;
  forks) for line in 1 2 3; do setsid "$0" fork 300 & done; exec sleep infinity ;;
  ends) exit 0 ;;
  works) sleep "$2"; note DONE ;;
esac
`;
