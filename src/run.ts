import type { Agenda, Due, Leader } from './agenda.ts';
import { type Backend, Gone, Refused, Unusable } from './backend.ts';
import type { Candidate } from './backends/index.ts';
import { leaderlessMs } from './campaign.ts';
import { Candidacy, type Elected } from './candidacy.ts';
import { type Child, type ChildOptions, childEnvironment, fencedEnvironment } from './child.ts';
import type { Facts } from './cleanup.ts';
import { now, pause } from './clock.ts';
import type { Config } from './config.ts';
import type { Report } from './events.ts';
import { Guard } from './guard.ts';
import { Job } from './job.ts';
import type { Loss } from './loss.ts';
import { hearChild } from './notices.ts';
import { EXIT, Failure } from './outcome.ts';
import { endsCampaign, isStop, type Signals } from './signals.ts';
import { isShortage, LONGEST_SHORTAGE_MS, SHORTAGE_MS } from './spawn.ts';
import { race, under } from './waiting.ts';

/**
 * The story: campaign → confirm → run the child → its end or the end of leadership → the tree is dead → give the lease back. With a schedule, as many
 * runs as the agenda has while we lead. Resolves with the exit status.
 */
export async function run(
  config: Config,
  backend: Backend,
  candidate: Candidate,
  agenda: Agenda,
  report: Report,
  signals: Signals,
): Promise<number> {
  const guard = new Guard(report, config.timing);
  const job = new Job(config, guard, agenda.actsFor !== undefined, report, signals);
  const candidacy = new Candidacy(config, backend, guard, job, report, signals);
  const { marks } = job;
  guard.setFacts((): Facts => ({ marks, backend: config.backend, candidate, handle: candidacy.handle ?? null }));
  const terms = new Terms(config, backend, agenda, guard, job, candidacy, report, signals);
  report({ type: 'campaigning', election: config.election, backend: backend.url, id: config.id });
  try {
    if (await terms.isSettled()) return 0;
    for (;;) {
      const elected = await candidacy.stand();
      const outcome = await terms.lead(elected);
      if (outcome.type === 'ended') return outcome.status;
      if (outcome.type === 'lost' && (!config.rejoin || !outcome.isDead || terms.isLeaving))
        return config.exitCodes.lost;
      await candidacy.makeRoom();
    }
  } finally {
    job.end();
    // While anything of the child may live the guard stays: it ends the rest when we are gone.
    if (!job.isAlive) {
      await guard.standDown();
      await backend[Symbol.asyncDispose]();
    }
  }
}

type Performed = { type: 'ended'; status: number; isDead: boolean } | { type: 'lost'; isDead: boolean };

/** `lost-idle`: between two runs, so there was nothing to stop. */
type Outcome = Performed | { type: 'lost-idle' };

/** A job may handle them; nobody sends them to one that shall be started again. */
const LEAVING = ['SIGTERM', 'SIGINT', 'SIGQUIT'];

class Terms {
  readonly #config: Config;
  readonly #backend: Backend;
  readonly #agenda: Agenda;
  readonly #guard: Guard;
  readonly #job: Job;
  readonly #candidacy: Candidacy;
  readonly #report: Report;
  readonly #signals: Signals;
  /** A run of ours was, and none has ended by itself since. */
  #wasCutOff = false;
  /** We were asked to end: no more runs. */
  isLeaving = false;
  #notifySocket: string | undefined;

  constructor(
    config: Config,
    backend: Backend,
    agenda: Agenda,
    guard: Guard,
    job: Job,
    candidacy: Candidacy,
    report: Report,
    signals: Signals,
  ) {
    this.#config = config;
    this.#backend = backend;
    this.#agenda = agenda;
    this.#guard = guard;
    this.#job = job;
    this.#candidacy = candidacy;
    this.#report = report;
    this.#signals = signals;
  }

  /** Is there nothing to do, whoever leads? What the store does not answer now the campaign will ask again. */
  async isSettled(): Promise<boolean> {
    return this.#candidacy.interruptible(async (signal) => {
      try {
        const isSettled = await this.#agenda.isSettled(signal);
        signal.throwIfAborted(); // it may have waited for us, and then no look has seen it
        return isSettled;
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof Refused || error instanceof Unusable) throw this.#candidacy.failure(error);
        return false;
      }
    });
  }

  /** All runs that are due while we lead, then the lease is given back. */
  async lead(elected: Elected): Promise<Outcome> {
    const { election, id, timing, holdMs, exitCodes } = this.#config;
    const { place, token, vacantSince } = elected;
    this.#report({
      type: 'elected',
      election,
      token,
      id,
      ttlMs: place.ttlMs ?? timing.ttlMs,
      leaderlessMs: leaderlessMs(vacantSince),
    });
    let status = this.#wasCutOff ? exitCodes.lost : 0;
    let holdUntil = now();
    do {
      const next = await this.#nextRun(elected);
      if (next === undefined) break;
      if ('reason' in next) {
        this.#report({ type: 'deposed', token, reason: next.reason });
        await this.#giveBack(elected, next.certain);
        return { type: 'lost-idle' };
      }
      holdUntil = now() + holdMs;
      const outcome = await this.#perform(next, elected);
      if (outcome.type === 'lost') {
        this.#wasCutOff = true;
        return outcome;
      }
      this.#wasCutOff = false;
      status = outcome.status;
      if (!outcome.isDead) return outcome;
    } while (this.#agenda.repeats && !this.isLeaving);
    const loss = this.isLeaving ? undefined : await this.#hold(elected, holdUntil - now());
    if (loss) this.#report({ type: 'deposed', token, reason: loss.reason });
    await this.#giveBack(elected, loss?.certain);
    return { type: 'ended', status, isDead: true };
  }

  /** Undefined: there is none any more. */
  async #nextRun(elected: Elected): Promise<Due | Loss | undefined> {
    const { renewal, lost } = elected;
    const over = new AbortController();
    try {
      return await this.#candidacy.interruptible(async (interrupted) => {
        const signal = under(interrupted, over.signal).signal;
        const next = this.#agenda.next(this.#leader(elected), signal);
        const first = await race([lost, next]);
        interrupted.throwIfAborted();
        if (renewal.isGone) return lost;
        // The store's answer may have been read after a stall.
        if (!renewal.check()) return { certain: false, reason: this.#candidacy.lastDoubt };
        return first;
      });
    } catch (error) {
      if (error instanceof Gone) return { certain: true, reason: error.message };
      await this.#giveBack(elected);
      throw this.#candidacy.failure(error);
    } finally {
      over.abort(new Error('no longer asked for'));
    }
  }

  /** One run: from the child's start to the death of its tree. After a loss the lease is given back. */
  async #perform(due: Due, elected: Elected): Promise<Performed> {
    const { renewal, lost, token } = elected;
    const child = await this.#start(due, elected);
    const stopForwarding = this.#signals.handle((signal) => this.#forward(signal, elected));
    try {
      const first = await race([child.ended, lost]);
      if ('status' in first && renewal.check()) {
        const { stoppedBy } = this.#job;
        this.#report({ type: 'ended', pid: child.pid, ...first, stopTimedOut: stoppedBy !== undefined });
        const status = stoppedBy ?? first.status;
        const isDead = await this.#job.endLeftovers(renewal);
        if (isDead && due.slot !== undefined && this.isLeaving && status !== 0)
          this.#report({ type: 'cut-off', slot: due.slot });
        else if (isDead) await this.#record(due, status, elected);
        else this.#leaveToExpire(elected);
        return { type: 'ended', status, isDead };
      }
      const loss: Loss =
        'status' in first
          ? { certain: false, reason: `the child ended when the lease had run out: ${this.#candidacy.lastDoubt}` }
          : first;
      const isDead = await this.#stop(loss, elected);
      this.#report({ type: 'deposed', token, reason: loss.reason });
      if (isDead) await this.#giveBack(elected, loss.certain);
      else this.#leaveToExpire(elected);
      return { type: 'lost', isDead };
    } finally {
      stopForwarding();
    }
  }

  async #start(due: Due, elected: Elected): Promise<Child> {
    const { command, args } = this.#config;
    const { actsFor } = this.#agenda;
    try {
      const env = this.#environment(due, elected);
      const child = await this.#startWhenPossible({ command, args, env }, elected);
      this.#report({ type: 'started', pid: child.pid, command, token: actsFor ?? elected.token, slot: due.slot });
      return child;
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const status = code === 'ENOENT' ? EXIT.notFound : EXIT.cannotExecute;
      const isCommands = !(error instanceof Failure) && !isShortage(error);
      await this.#record(due, isCommands ? status : undefined, elected);
      await this.#candidacy.resign(elected);
      if (error instanceof Failure) throw error;
      throw new Failure(isCommands ? status : EXIT.software, `cannot run ${command}: ${message}`);
    }
  }

  /** A shortage that passes is waited for, as long as we lead, and not for long: somewhere else there may be none. Throws a Failure for a signal. */
  async #startWhenPossible(program: Omit<ChildOptions, 'ownGroup' | 'fds'>, { place, renewal, lost }: Elected) {
    const giveUpAt = now() + LONGEST_SHORTAGE_MS;
    for (let isTold = false; ; isTold = true) {
      try {
        return await this.#job.start(program, place.inheritFd);
      } catch (error) {
        if (!isShortage(error) || now() >= giveUpAt) throw error;
        const message = `${program.command} cannot be started yet: ${(error as Error).message}`;
        if (!isTold) this.#report({ type: 'warning', message });
        const loss = await this.#candidacy.interruptible(async (signal) => {
          const first = await race([pause(SHORTAGE_MS, signal), lost]);
          signal.throwIfAborted();
          return first;
        });
        if (loss || !renewal.check()) throw error;
      }
    }
  }

  #environment(due: Due, { place, token }: Elected): NodeJS.ProcessEnv {
    const { backend, election, id, timing, notifyChild } = this.#config;
    const { actsFor } = this.#agenda;
    if (notifyChild) this.#notifySocket ??= hearChild(this.#report);
    if (actsFor !== undefined) return fencedEnvironment(process.env, actsFor, id);
    return childEnvironment(process.env, {
      token,
      election,
      id,
      backendUrl: this.#backend.url,
      flavor: backend.kind === 'zookeeper' ? backend.flavor : undefined,
      ttlMs: place.ttlMs ?? timing.ttlMs,
      slot: due.slot,
      notifySocket: this.#notifySocket,
    });
  }

  async #forward(signal: string, { renewal }: Elected): Promise<void> {
    // Before anything is waited for: the child may have ended by then.
    if (LEAVING.includes(signal) || (signal === 'SIGHUP' && this.#agenda.repeats)) this.isLeaving = true;
    await this.#job.forward(signal);
    renewal.check(); // we may have been stopped for long
  }

  /** TERM first while the lease provably stands, KILL at once when the store said no. */
  async #stop(loss: Loss, { renewal, token }: Elected): Promise<boolean> {
    const { graceMs } = this.#config.timing;
    const killAt = loss.certain || !renewal.check() ? now() : Math.min(renewal.killAt, now() + graceMs);
    const killInMs = Math.max(0, Math.round(killAt - now()));
    this.#report({ type: 'stepping-down', token, reason: loss.reason, killInMs });
    return this.#job.stop(killAt, renewal);
  }

  /** `status` undefined: it could not be started. Goes on until the store has it, leadership is lost, or we are asked to end and one more request has had its time. */
  async #record(due: Due, status: number | undefined, elected: Elected): Promise<void> {
    if (due.slot === undefined) return;
    this.#job.forget(); // the store may let us wait for long
    const over = new AbortController();
    const stopListening = this.#signals.handle((signal) => {
      if (isStop(signal)) return this.#signals.default(signal);
      if (!endsCampaign(signal)) return;
      this.#report({ type: 'signalled', signal, forwarded: false });
      this.isLeaving = true;
      pause(this.#config.timing.requestMs, over.signal).then(() => over.abort(new Error(`${signal} received`)));
    });
    try {
      const ended = this.#agenda.ended(this.#leader(elected), due, status, over.signal);
      const loss = await race([ended, elected.lost]);
      if (loss) throw new Error(loss.reason);
    } catch (error) {
      this.#report({ type: 'unrecorded', slot: due.slot, reason: (error as Error).message });
    } finally {
      over.abort(new Error('leadership is over'));
      stopListening();
    }
  }

  /** Until the time is over, the leadership, or somebody's patience. */
  async #hold({ lost }: Elected, forMs: number): Promise<Loss | undefined> {
    if (forMs <= 0) return undefined;
    this.#job.forget();
    this.#report({ type: 'holding', forMs });
    const over = new AbortController();
    const loss = await this.#candidacy.interruptible(async (interrupted) => {
      const isOver = pause(forMs, under(interrupted, over.signal).signal).then(() => undefined);
      return race([isOver, lost]);
    });
    over.abort();
    return loss;
  }

  /** Only once the tree is dead. */
  async #giveBack(elected: Elected, isGone = false): Promise<void> {
    this.#guard.setDeadline(Number.POSITIVE_INFINITY); // first, so that no alarm is set anew
    this.#job.forget();
    await this.#candidacy.resign(elected, isGone);
  }

  /** Where its death cannot be shown. */
  #leaveToExpire(elected: Elected): void {
    this.#candidacy.leaveToExpire(elected, 'a process of the child could not be ended');
  }

  #leader({ place, token }: Elected): Leader {
    return { place, id: this.#config.id, token };
  }
}
