import { Adoption } from './adoption.ts';
import { type Child, type ChildOptions, hasTerminal, markOf, startChild } from './child.ts';
import { now, pause } from './clock.ts';
import type { Config } from './config.ts';
import { formatDuration } from './durations.ts';
import type { Report } from './events.ts';
import type { Guard } from './guard.ts';
import { signalNumber, signalStatus } from './outcome.ts';
import { hasStopped, lockedFds, readProc } from './proc.ts';
import type { Renewal } from './renewal.ts';
import { allHeard, isStop, type Signals } from './signals.ts';
import { DEATH_MS, findTree, killTree, seemsDead, signalAll, type TreeMarks, trySignal } from './tree.ts';
import { Witness } from './witness.ts';

const POLL_MS = 20;
/** Who has not stopped by then ignores it. */
const STOP_MS = 500;
const STOP_POLL_MS = 5;

/** The command's processes, one run after the other: a child's start, the signals that are passed on to it, and the end of everything that came of it. */
export class Job {
  readonly marks: TreeMarks;
  /** At a terminal it takes another process to tell whose a signal was. */
  readonly #witness: Witness | undefined;
  readonly #config: Config;
  readonly #guard: Guard;
  readonly #report: Report;
  readonly #signals: Signals;
  #adoption: Adoption | undefined;
  readonly #ourGroup = readProc(process.pid)!.group;
  /** Locks that whoever started us has handed to us. */
  readonly #handedDown = lockedFds();
  #child: Child | undefined;
  #stoppedBy: number | undefined;
  #isStarting = false;

  constructor(config: Config, guard: Guard, isFenced: boolean, report: Report, signals: Signals) {
    this.#config = config;
    this.#guard = guard;
    this.#report = report;
    this.#signals = signals;
    const atTerminal = hasTerminal();
    this.#witness = atTerminal ? new Witness() : undefined;
    const { pid, startedAt, session } = readProc(process.pid)!;
    const helpers = this.#witness?.pid === undefined ? [] : [this.#witness.pid];
    this.marks = {
      root: undefined,
      ownGroup: !atTerminal,
      mark: markOf(config.id, isFenced),
      reaper: { pid, startedAt },
      session,
      bystanders: [],
      known: [],
      helperSessions: guard.sessions,
      helpers,
    };
  }

  /** A child was started, and its tree has not been forgotten: something of it may live. */
  get isAlive(): boolean {
    return this.marks.root !== undefined;
  }

  /** The child was killed for the sake of --stop-timeout: what it would have ended with otherwise. */
  get stoppedBy(): number | undefined {
    return this.#stoppedBy;
  }

  /** Resolves when no signal can be missed any more. */
  async ready(): Promise<void> {
    await this.#witness?.ready;
  }

  /** From now on orphans come to us. */
  adopt(): void {
    this.#adoption ??= new Adoption(this.marks);
  }

  /** `lockFd`: the file backend's, beside which those that were handed to us are handed on. Throws when it cannot be started. */
  async start(options: Omit<ChildOptions, 'ownGroup' | 'fds'>, lockFd: number | undefined): Promise<Child> {
    const { ownGroup } = this.marks;
    const locks = lockFd === undefined ? this.#handedDown : [...this.#handedDown, lockFd];
    if (lockFd !== undefined) this.#guard.hold(lockFd);
    this.#isStarting = true;
    const child = await startChild({ ...options, ownGroup, fds: locks }).finally(() => void this.#endStarting());
    this.#child = child;
    this.marks.root = { pid: child.pid, startedAt: child.startedAt };
    this.#guard.setJob(ownGroup ? -child.pid : child.pid, child.startedAt);
    this.#guard.tellFacts();
    const group = ownGroup ? child.pid : this.#ourGroup;
    this.#adoption?.watch({ ...this.marks.root, group }, (strays) => {
      this.marks.known = strays;
      this.#guard.tellFacts();
      this.#report({ type: 'strayed', pids: strays.map(({ pid }) => pid) });
    });
    return child;
  }

  /** Resolves when we have gone on, where the signal has stopped us, too. */
  async forward(signal: string): Promise<void> {
    if (!this.isAlive) {
      this.#report({ type: 'signalled', signal, forwarded: false });
      return;
    }
    // Then the group had it perhaps before there was a child in it.
    const wasStarting = this.#isStarting;
    const isCommon = (await this.#witness?.sawIt(signal)) ?? false;
    const forwarded = !isCommon || wasStarting;
    this.#report({ type: 'signalled', signal, forwarded });
    if (forwarded) this.#signal(signalNumber(signal));
    // The terminal has stopped the job, so we stop as well, and the shell sees it. The lease runs on meanwhile.
    if (isCommon && isStop(signal)) {
      await this.#childStops();
      this.#signals.default(signal);
    }
    if (signal === 'SIGTERM' && this.#config.stopTimeoutMs !== undefined)
      this.#stopWithin(this.#config.stopTimeoutMs, signal);
  }

  /** Whose signal came just after the child was there reaches it twice: it ends what has no handler for it yet, and then nobody is there to get it again. */
  async #endStarting(): Promise<void> {
    await allHeard();
    this.#isStarting = false;
  }

  /** What it does to the terminal first, like leaving the full screen, has to come before the shell's prompt; a shell waits for its own child only, which we are. */
  async #childStops(): Promise<void> {
    const giveUpAt = now() + STOP_MS;
    while (!hasStopped(this.#child!.pid) && now() < giveUpAt) await pause(STOP_POLL_MS);
  }

  async #stopWithin(timeoutMs: number, signal: string): Promise<void> {
    const isOver = await Promise.race([this.#child!.ended, pause(timeoutMs)]);
    if (isOver) return;
    this.#stoppedBy = signalStatus(signalNumber(signal));
    this.#report({
      type: 'warning',
      message: `the child did not end within ${formatDuration(timeoutMs)} of ${signal} (--stop-timeout): killed`,
    });
    await killTree(this.marks, now() + DEATH_MS);
  }

  /** Ends the whole tree: TERM first until then, KILL when it comes due or the store says no. Resolves with whether it is shown to be dead. */
  async stop(killAt: number, renewal: Renewal): Promise<boolean> {
    if (now() < killAt) {
      this.#signal('SIGTERM');
      this.#signal('SIGCONT'); // what is stopped cannot handle TERM
      const over = new AbortController();
      await Promise.race([this.#treeIsDead(over.signal), renewal.gone, pause(killAt - now(), over.signal)]);
      over.abort();
    }
    const isDead = await killTree(this.marks, now() + DEATH_MS);
    if (isDead) await this.#child!.ended;
    return isDead;
  }

  /** What the child left running would act without a leader: it goes, too, before anybody else may start. */
  async endLeftovers(renewal: Renewal): Promise<boolean> {
    if (!this.#adoption?.hasOrphans()) return true;
    const leftovers = findTree(this.marks);
    if (leftovers.length > 0) {
      this.#report({ type: 'leftovers', pids: leftovers.map(({ pid }) => pid) });
      signalAll(leftovers, 'SIGTERM');
      signalAll(leftovers, 'SIGCONT');
      const over = new AbortController();
      await Promise.race([
        this.#treeIsDead(over.signal),
        pause(this.#config.timing.graceMs, over.signal),
        renewal.gone,
        renewal.stopDue,
      ]);
      over.abort();
    }
    return killTree(this.marks, now() + DEATH_MS);
  }

  /** Only once its tree is shown to be dead: its pids may be others' from now on. */
  forget(): void {
    if (!this.isAlive) return;
    this.#adoption?.endWatch();
    this.marks.root = undefined;
    this.marks.known = [];
    this.#guard.setJob(undefined);
    this.#guard.tellFacts();
  }

  end(): void {
    this.#witness?.end();
    this.#adoption?.end();
  }

  async #treeIsDead(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !seemsDead(this.marks)) await pause(POLL_MS, signal);
  }

  /** To the child's whole process group, or, where it shares ours, to those of it that do. */
  #signal(signal: NodeJS.Signals | number): void {
    if (this.marks.ownGroup) {
      trySignal(-this.#child!.pid, signal);
      return;
    }
    signalAll(
      findTree(this.marks).filter((proc) => proc.group === this.#ourGroup),
      signal,
    );
  }
}
