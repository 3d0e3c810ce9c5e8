import { join } from 'node:path';
import type { Facts } from './cleanup.ts';
import { toCentiseconds } from './clock.ts';
import type { Report } from './events.ts';
import { Helper } from './helper.ts';
import { canNap, hasShell, SHELL } from './lookup.ts';
import { endOf } from './outcome.ts';
import { trySignal } from './tree.ts';

const beside = (name: string): string => join(import.meta.dirname, name);

/** A guard that does not answer within this time is taken for frozen, and replaced. */
const ANSWER_MS = 1000;
/** For the first answer of one that has to start Node, which on a busy machine takes its time. */
const NODE_ANSWER_MS = 5000;
/** So many guards in a row that never got ready: it cannot be had here. */
const MOST_FAILURES = 3;

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
  readonly #napMs: number;
  /** Undefined: it could not be started. */
  #process: Helper | undefined;
  #job: string | undefined;
  #facts: (() => Facts) | undefined;
  #until = 'forever';
  #armed: string | undefined;
  #whenArmed: (() => void)[] = [];
  #answerBy: NodeJS.Timeout | undefined;
  #isStandingDown = false;
  #failures = 0;
  #fail!: (reason: string) => void;

  /** `napMs`: as `longestNapMs` has it. */
  constructor(report: Report, napMs: number) {
    this.#report = report;
    this.#napMs = napMs;
    this.failed = new Promise((resolve) => {
      this.#fail = resolve;
    });
    this.#start();
  }

  /** The child's process group, or the child alone where it shares ours. Undefined: there is no child. */
  setJob(target: number | undefined): void {
    this.#job = target === undefined ? '' : String(target);
    this.#tell(`job ${this.#job}`);
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
    this.#isStandingDown = true;
    this.#heard();
    this.#tell('down');
    const impatience = setTimeout(() => this.#end(), ANSWER_MS);
    await this.#process?.ended;
    clearTimeout(impatience);
    this.#end();
  }

  #start(): void {
    this.#armed = undefined;
    let guard: Helper;
    try {
      guard = new Helper(commandLine(this.#napMs), {
        ownSession: true,
        stderr: 2,
        heard: (line) => {
          if (guard === this.#process) this.#hear(line);
        },
      });
    } catch (error) {
      this.#process = undefined;
      setImmediate(() => this.#replace((error as Error).message));
      return;
    }
    this.#process = guard;
    this.sessions.push(guard.pid);
    guard.ended.then((waitStatus) => {
      const { status, signal } = endOf(waitStatus);
      if (guard === this.#process) this.#replace(`it ended with ${signal ?? status}`);
    });
    this.tellFacts();
    if (this.#job !== undefined) this.#tell(`job ${this.#job}`);
    this.#arm();
  }

  #hear(line: string): void {
    const [word, value] = line.split(' ');
    if (word !== 'armed') return;
    this.#failures = 0;
    this.#end(this.sessions.splice(0, this.sessions.length - 1));
    this.#armed = value;
    this.#heard();
    if (this.#armed !== this.#until) return;
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
    if (this.#isStandingDown) return;
    this.#heard();
    if (++this.#failures > MOST_FAILURES) {
      this.#end();
      this.#fail(reason);
      return;
    }
    this.#start();
    this.#report({ type: 'guard-replaced', reason });
  }

  /** Whole sessions: an alarm must not outlive its guard, the deadline that it waits for has been moved. */
  #end(sessions = this.sessions): void {
    for (const session of sessions) trySignal(-session, 'SIGKILL');
  }

  #tell(line: string): void {
    this.#process?.tell(line);
  }
}
