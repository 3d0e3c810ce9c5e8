import { join } from 'node:path';
import type { Facts } from './cleanup.ts';
import { now, toCentiseconds } from './clock.ts';
import { Custody } from './custody.ts';
import type { Report } from './events.ts';
import { Helper } from './helper.ts';
import { canNap, hasShell, SHELL } from './lookup.ts';
import { endOf } from './outcome.ts';
import { isShortage, LONGEST_SHORTAGE_MS, SHORTAGE_MS } from './spawn.ts';
import { longestNapMs, type Timing } from './timing.ts';
import { trySignal } from './tree.ts';

const beside = (name: string): string => join(import.meta.dirname, name);

/** A guard that does not answer within this time is taken for frozen, and replaced. */
const ANSWER_MS = 1000;
/** For the first answer of one that has to start Node, which on a busy machine takes its time. */
const NODE_ANSWER_MS = 5000;
/** So many guards in a row that never got ready: it cannot be had here. */
const MOST_FAILURES = 3;
const NO_ALARM = 'no process can be started for its alarm';

const isShell = (): boolean => hasShell() && canNap();

/** A shell, or where there is none a second Node. Looked up each time: what was there may be gone when the guard is replaced. */
function commandLine(napMs: number): [string, ...string[]] {
  const nap = String(Math.floor(napMs / 10));
  return isShell()
    ? [SHELL, beside('guard.sh'), 'elect-run-guard', process.execPath, beside('cleanup-process.js'), nap]
    : [process.execPath, beside('guard-process.js'), 'elect-run-guard'];
}

/**
 * Our side of guard.sh and guard-process.ts. It is told everything before it can matter, and replaced at once when it dies or freezes. `failed` resolves
 * when it cannot be replaced: the child must not run without it.
 */
export class Guard {
  readonly failed: Promise<string>;
  /** The session of the guard, the last one, and of those that it replaces, which may have left an alarm behind. */
  readonly sessions: number[] = [];
  readonly #report: Report;
  readonly #timing: Timing;
  readonly #custody = new Custody();
  /** The last one that was started, which may be dead. */
  #process: Helper | undefined;
  #job: string | undefined;
  #facts: (() => Facts) | undefined;
  #until = 'forever';
  #untilAt = Number.POSITIVE_INFINITY;
  #armed: string | undefined;
  #whenArmed: (() => void)[] = [];
  #answerBy: NodeJS.Timeout | undefined;
  /** It stands down, or cannot be had. */
  #isOver = false;
  #failures = 0;
  /** What is left of the last guard kills at that time, if nobody tells it otherwise. */
  #goesOffAt = Number.POSITIVE_INFINITY;
  #shortSince: number | undefined;
  #nextTry: NodeJS.Timeout | undefined;
  #fail!: (reason: string) => void;

  constructor(report: Report, timing: Timing) {
    this.#report = report;
    this.#timing = timing;
    this.failed = new Promise((resolve) => {
      this.#fail = resolve;
    });
    this.#start();
  }

  /** The child's process group, or the child alone where it shares ours, and the child's start, where it is known. Undefined: there is no child. */
  setJob(target: number | undefined, startedAt?: string): void {
    this.#job = [target, startedAt].filter((word) => word !== undefined).join(' ');
    this.#tell(`job ${this.#job}`);
  }

  /** It holds this open file, too, and so do those that replace it: a lock on it lasts until the tree is dead, whoever else has closed it. Throws when it cannot. */
  hold(fd: number): void {
    this.#custody.hold(fd);
  }

  /** Before it is given back. */
  letGo(): void {
    this.#custody.letGo();
  }

  /** What the clean-up has to know. It is asked for again when the guard is replaced, goes through a pipe and stays in memory. */
  setFacts(facts: () => Facts): void {
    this.#facts = facts;
    this.tellFacts();
  }

  /** They are others now. */
  tellFacts(): void {
    if (!this.#facts) return;
    const facts = this.#facts();
    const strays = facts.marks.known.map(({ pid, startedAt }) => `${pid}:${startedAt} `).join('');
    this.#tell(`facts ${strays}${JSON.stringify(facts)}`);
  }

  /** The tree may live until then, on the clock of `now()`; Infinity where nothing runs out. */
  setDeadline(at: number): void {
    this.#untilAt = at;
    this.#until = at === Number.POSITIVE_INFINITY ? 'forever' : String(toCentiseconds(at));
    this.#arm();
  }

  /** Resolves once the guard has confirmed the deadline that it was last given. */
  async armed(): Promise<void> {
    this.#process?.hear();
    if (this.#armed === this.#until) return;
    await new Promise<void>((resolve) => this.#whenArmed.push(resolve));
  }

  /** The tree is dead: the guard ends without a trace. */
  async standDown(): Promise<void> {
    this.#isOver = true;
    this.#heard();
    clearTimeout(this.#nextTry);
    this.#tell('down');
    const impatience = setTimeout(() => this.#end(), ANSWER_MS);
    await this.#process?.ended;
    clearTimeout(impatience);
    this.#end();
  }

  /** `reason`: why it needs another one. */
  #start(reason?: string): void {
    let guard: Helper;
    try {
      guard = new Helper(commandLine(longestNapMs(this.#timing)), {
        ownSession: true,
        stderr: 2,
        fds: [this.#custody.fd],
        heard: (line) => {
          if (guard === this.#process) this.#hear(line);
        },
      });
    } catch (error) {
      const { message } = error as Error;
      setImmediate(() => (isShortage(error) ? this.#replaceLater(message, reason) : this.#replace(message)));
      return;
    }
    this.#process = guard;
    this.#armed = undefined;
    this.#heard();
    this.sessions.push(guard.pid);
    guard.ended.then((waitStatus) => {
      const { status, signal } = endOf(waitStatus);
      if (guard === this.#process) this.#replace(`it ended with ${signal ?? status}`);
    });
    this.tellFacts();
    if (this.#job !== undefined) this.#tell(`job ${this.#job}`);
    this.#arm();
    if (reason !== undefined) this.#report({ type: 'guard-replaced', reason });
  }

  #hear(line: string): void {
    const [word, value] = line.split(' ');
    if (word === 'unarmed') this.#replaceLater(NO_ALARM, NO_ALARM);
    if (word !== 'armed') return;
    this.#failures = 0;
    if (!this.#nextTry) this.#shortSince = undefined;
    this.#end(this.sessions.splice(0, this.sessions.length - 1));
    this.#armed = value;
    this.#heard();
    if (this.#armed !== this.#until) return;
    this.#goesOffAt = this.#untilAt;
    for (const resolve of this.#whenArmed.splice(0)) resolve();
  }

  #arm(): void {
    this.#tell(this.#until === 'forever' ? 'forever' : `until ${this.#until}`);
    if (this.#answerBy) return; // the clock runs from the first question that is open
    const guard = this.#process;
    const answerMs = this.#armed === undefined && !isShell() ? NODE_ANSWER_MS : ANSWER_MS;
    this.#answerBy = setTimeout(() => {
      guard?.hear(); // timers run before input is read
      if (guard !== this.#process || !this.#answerBy) return;
      this.#heard();
      this.#replace('it does not answer');
    }, answerMs);
    this.#answerBy.unref();
  }

  #heard(): void {
    clearTimeout(this.#answerBy);
    this.#answerBy = undefined;
  }

  /** The old one, of which an alarm may live on, goes only when the new one is armed: there is no moment without any. */
  #replace(reason: string): void {
    if (this.#isOver || this.#nextTry) return;
    this.#heard();
    if (++this.#failures > MOST_FAILURES) this.#giveUp(reason);
    else this.#start(reason);
  }

  /** No process can be started just now. `reason`: as `start` has it. */
  #replaceLater(shortage: string, reason: string | undefined): void {
    if (this.#isOver || this.#nextTry) return;
    if (this.#shortSince === undefined)
      this.#report({ type: 'warning', message: `no guard can be started yet: ${shortage}` });
    this.#shortSince ??= now();
    const isEndless = this.#goesOffAt === Number.POSITIVE_INFINITY;
    const giveUpAt = isEndless ? this.#shortSince + LONGEST_SHORTAGE_MS : this.#goesOffAt - this.#timing.graceMs;
    if (now() >= giveUpAt) {
      this.#giveUp(shortage);
      return;
    }
    this.#nextTry = setTimeout(() => {
      this.#nextTry = undefined;
      this.#start(reason);
    }, SHORTAGE_MS);
  }

  #giveUp(reason: string): void {
    this.#isOver = true;
    this.#end();
    this.#fail(reason);
  }

  /** Whole sessions: an alarm must not outlive its guard, the deadline that it waits for has been moved. */
  #end(sessions = this.sessions): void {
    for (const session of sessions) trySignal(-session, 'SIGKILL');
  }

  #tell(line: string): void {
    this.#process?.tell(line);
  }
}
