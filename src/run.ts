import { Adoption } from './adoption.ts';
import type { Agenda, Due, Leader } from './agenda.ts';
import { type Backend, Gone, Refused, Unusable } from './backend.ts';
import type { Candidate } from './backends/index.ts';
import { campaign, type Leadership, leaderlessMs, NotElected } from './campaign.ts';
import {
  type Child,
  childEnvironment,
  fencedEnvironment,
  hasTerminal,
  markOf,
  rehearseStart,
  startChild,
} from './child.ts';
import type { Facts } from './cleanup.ts';
import { now, pause, within } from './clock.ts';
import type { Config } from './config.ts';
import { formatDuration } from './durations.ts';
import type { Report } from './events.ts';
import { Guard } from './guard.ts';
import { type Loss, watchForLoss } from './loss.ts';
import { hearChild } from './notices.ts';
import { EXIT, Failure, signalNumber, signalStatus } from './outcome.ts';
import { readProc } from './proc.ts';
import type { Renewal } from './renewal.ts';
import { Requests, wordForAnother } from './requests.ts';
import { endsCampaign, isStop, type Signals } from './signals.ts';
import { printable } from './text.ts';
import { DEATH_MS, findTree, killTree, signalAll, type TreeMarks, trySignal } from './tree.ts';
import { race, under } from './waiting.ts';
import { Witness } from './witness.ts';

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
  const term = new Term(config, backend, candidate, agenda, report, signals);
  report({ type: 'campaigning', election: config.election, backend: backend.url, id: config.id });
  try {
    if (await term.isSettled()) return 0;
    for (;;) {
      const elected = await term.stand();
      const outcome = await term.lead(elected);
      if (outcome.type === 'ended') return outcome.status;
      if (outcome.type === 'lost' && (!config.rejoin || !outcome.isDead || term.isLeaving))
        return config.exitCodes.lost;
      await term.makeRoom();
    }
  } finally {
    await term.end();
  }
}

interface Elected {
  leadership: Leadership;
  token: bigint;
  /** Its reason: the Loss. */
  lost: Promise<Loss>;
}

type Performed = { type: 'ended'; status: number; isDead: boolean } | { type: 'lost'; isDead: boolean };

/** `lost-idle`: between two runs, so there was nothing to stop. */
type Outcome = Performed | { type: 'lost-idle' };

const POLL_MS = 20;
const RETRY_MS = 100;
/** A job may handle them; nobody sends them to one that shall be started again. */
const LEAVING = ['SIGTERM', 'SIGINT', 'SIGQUIT'];

class Term {
  readonly #config: Config;
  readonly #backend: Backend;
  readonly #candidate: Candidate;
  readonly #agenda: Agenda;
  readonly #report: Report;
  readonly #signals: Signals;
  readonly #guard: Guard;
  readonly #marks: TreeMarks;
  readonly #witness: Witness | undefined;
  #adoption: Adoption | undefined;
  #handle: unknown;
  #requests: Requests | undefined;
  /** We stepped down because we were asked to. */
  #wasAsked = false;
  /** The word that asked for another to lead: once for each is enough, since that one may be gone. */
  #gaveWayFor: string | undefined;
  #lastDoubt = 'no renewal was confirmed in time';
  #renewal: Renewal | undefined;
  /** Empty before we lead. */
  #token = '';
  #isSuspended = false;
  /** A run of ours was, and none has ended by itself since. */
  #wasCutOff = false;
  /** We were asked to end: no more runs. */
  isLeaving = false;
  /** Aborted by the second signal while there is no child. */
  readonly #impatience = new AbortController();
  #notifySocket: string | undefined;
  /** The child was killed for the sake of --stop-timeout; what it would have ended with otherwise. */
  #stoppedBy: number | undefined;

  constructor(
    config: Config,
    backend: Backend,
    candidate: Candidate,
    agenda: Agenda,
    report: Report,
    signals: Signals,
  ) {
    this.#config = config;
    this.#backend = backend;
    this.#candidate = candidate;
    this.#agenda = agenda;
    this.#report = report;
    this.#signals = signals;
    const atTerminal = hasTerminal();
    this.#guard = new Guard(report);
    this.#witness = atTerminal ? new Witness() : undefined;
    const helpers = this.#witness?.pid === undefined ? [] : [this.#witness.pid];
    this.#marks = {
      root: undefined,
      ownGroup: !atTerminal,
      mark: markOf(config.id, agenda.actsFor !== undefined),
      reaper: process.pid,
      known: [],
      helperSessions: this.#guard.sessions,
      helpers,
    };
    this.#tellFacts();
  }

  /** Is there nothing to do, whoever leads? What the store does not answer now the campaign will ask again. */
  async isSettled(): Promise<boolean> {
    return this.#interruptible(async (signal) => {
      try {
        return await this.#agenda.isSettled(signal);
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof Refused || error instanceof Unusable) throw this.#campaignFailure(error);
        return false;
      }
    });
  }

  /** Whoever was asked to step down does not stand again before the others: a store without a line would take it back at once. */
  async makeRoom(): Promise<void> {
    if (this.#wasAsked) await this.#interruptible((signal) => pause(this.#config.timing.renewEveryMs, signal));
    this.#wasAsked = false;
  }

  /** Campaigns until the store confirms that we lead. */
  async stand(): Promise<Elected> {
    try {
      return await this.#interruptible(async (signal) => {
        for (;;) {
          const leadership = await this.#campaign(signal);
          this.#renewal = leadership.renewal;
          const [token, word] = await Promise.all([
            this.#confirm(leadership, signal),
            wordForAnother(this.#backend, leadership.place, this.#config.id, this.#config.timing.requestMs),
          ]).catch(async (error) => {
            await this.#resign(leadership);
            throw error;
          });
          if (word !== undefined && word !== this.#gaveWayFor) {
            this.#gaveWayFor = word;
            await this.#resign(leadership);
            this.#report({ type: 'place-lost', reason: 'another was asked to lead next (elect-run resign --to)' });
            await pause(this.#config.timing.renewEveryMs, signal);
            signal.throwIfAborted();
            continue;
          }
          if (token !== undefined) {
            const lost = watchForLoss(
              leadership.renewal,
              this.#guard.failed,
              this.#listenForRequests(leadership, token),
              () => this.#lastDoubt,
            );
            return { leadership, token, lost };
          }
          await this.#resign(leadership);
          this.#report({ type: 'place-lost', reason: 'the store did not confirm in time that we lead' });
        }
      });
    } catch (error) {
      throw this.#campaignFailure(error);
    }
  }

  /** Resolves with who asks us to step down. */
  async #listenForRequests({ place }: Leadership, token: bigint): Promise<string> {
    const { id, timing, remoteResign } = this.#config;
    if (!remoteResign) return new Promise(() => {});
    this.#requests = new Requests(this.#backend, { place, id, token: String(token) }, timing.requestMs);
    const by = await this.#requests.stepDown;
    this.#wasAsked = true;
    return by;
  }

  /** While there is no child a signal ends it all: aborts with a Failure. */
  async #interruptible<T>(act: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const interrupted = new AbortController();
    const stopListening = this.#signals.handle((signal) => {
      if (endsCampaign(signal)) {
        this.#report({ type: 'signalled', signal, forwarded: false });
        if (interrupted.signal.aborted) this.#impatience.abort(new Error(signal));
        interrupted.abort(new Failure(signalStatus(signalNumber(signal)), ''));
      } else if (isStop(signal)) {
        this.#signals.default(signal);
      }
    });
    try {
      return await act(interrupted.signal);
    } finally {
      stopListening();
    }
  }

  #campaign(signal: AbortSignal): Promise<Leadership> {
    const { timing, waitMs, once } = this.#config;
    const campaigning = campaign(
      this.#backend,
      {
        timing,
        waitMs,
        once,
        report: this.#report,
        placed: ({ handle }) => {
          if (this.#handle === handle) return;
          this.#handle = handle;
          this.#tellFacts();
        },
        standsBy: rehearseStart,
        impatience: this.#impatience.signal,
        hooks: {
          confirmed: (expiresAt, tookMs) => this.#confirmed(expiresAt, tookMs),
          unanswered: (reason) => this.#unanswered(reason),
        },
      },
      signal,
    );
    // Takes some milliseconds, in which the store can answer.
    if (!this.#adoption) {
      this.#adoption = new Adoption();
      this.#signals.catchRealtime();
    }
    return campaigning;
  }

  async end(): Promise<void> {
    this.#witness?.end();
    this.#adoption?.end();
    // While anything of the child may live the guard stays: it ends the rest when we are gone.
    if (this.#marks.root) return;
    await this.#guard.standDown();
    await this.#backend[Symbol.asyncDispose]();
  }

  /** One more read just before the spawn. Undefined: we do not lead after all, or could not tell in time. */
  async #confirm({ place, renewal }: Leadership, interrupted: AbortSignal): Promise<bigint | undefined> {
    this.#guard.setDeadline(renewal.killAt);
    const armed = Promise.all([this.#guard.armed(), this.#witness?.ready]);
    const unguarded = this.#guard.failed.then((reason) => {
      throw new Failure(EXIT.software, `the guard cannot be started: ${reason}`);
    });
    unguarded.catch(() => {});
    const lost = Promise.race([renewal.stopDue, renewal.gone]).then(() => undefined);
    let told: string | undefined;
    for (;;) {
      try {
        const answer = this.#backend.confirm(place, within(this.#config.timing.requestMs, interrupted));
        const token = await Promise.race([answer, lost]);
        await Promise.race([armed, lost, unguarded]);
        interrupted.throwIfAborted();
        return renewal.check() ? token : undefined;
      } catch (error) {
        interrupted.throwIfAborted();
        if (error instanceof Refused || error instanceof Unusable || error instanceof Failure) throw error;
        if (error instanceof Gone || !renewal.check()) return undefined;
        const { message } = error as Error;
        this.#lastDoubt = message;
        if (message !== told) this.#report({ type: 'unreachable', reason: message, retryInMs: RETRY_MS });
        told = message;
        await Promise.race([pause(RETRY_MS, interrupted), lost]);
      }
    }
  }

  /** All runs that are due while we lead, then the lease is given back. */
  async lead(elected: Elected): Promise<Outcome> {
    const { leadership, token } = elected;
    this.#token = String(token);
    const { election, id, timing, holdMs, exitCodes } = this.#config;
    this.#report({
      type: 'elected',
      election,
      token: this.#token,
      id,
      ttlMs: leadership.place.ttlMs ?? timing.ttlMs,
      leaderlessMs: leaderlessMs(leadership.vacantSince),
    });
    let status = this.#wasCutOff ? exitCodes.lost : 0;
    let holdUntil = now();
    do {
      if (this.#marks.root) this.#forgetChild();
      const next = await this.#nextRun(elected);
      if (next === undefined) break;
      if ('reason' in next) {
        this.#report({ type: 'deposed', token: this.#token, reason: next.reason });
        await this.#giveBack(leadership, true, next.certain);
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
    if (loss) this.#report({ type: 'deposed', token: this.#token, reason: loss.reason });
    await this.#giveBack(leadership, true, loss?.certain);
    return { type: 'ended', status, isDead: true };
  }

  /** Undefined: there is none any more. */
  async #nextRun({ leadership, lost }: Elected): Promise<Due | Loss | undefined> {
    const over = new AbortController();
    try {
      return await this.#interruptible(async (interrupted) => {
        const signal = under(interrupted, over.signal).signal;
        const next = this.#agenda.next(this.#leader(leadership), signal);
        const first = await race([next, lost]);
        interrupted.throwIfAborted();
        // The store's answer may have been read after a stall.
        if (!leadership.renewal.check()) return { certain: false, reason: this.#lastDoubt };
        return first;
      });
    } catch (error) {
      if (error instanceof Gone) return { certain: true, reason: error.message };
      await this.#giveBack(leadership, true);
      throw this.#campaignFailure(error);
    } finally {
      over.abort(new Error('no longer asked for'));
    }
  }

  /** Until the time is over, the leadership, or somebody's patience. */
  async #hold({ lost }: Elected, forMs: number): Promise<Loss | undefined> {
    if (forMs <= 0) return undefined;
    this.#forgetChild();
    this.#report({ type: 'holding', forMs });
    const over = new AbortController();
    const loss = await this.#interruptible(async (interrupted) => {
      const isOver = pause(forMs, under(interrupted, over.signal).signal).then(() => undefined);
      return race([isOver, lost]);
    });
    over.abort();
    return loss;
  }

  #leader({ place }: Leadership): Leader {
    return { place, id: this.#config.id, token: this.#token };
  }

  /** One run: from the child's start to the death of its tree. After a loss the lease is given back. */
  async #perform(due: Due, elected: Elected): Promise<Performed> {
    const { leadership, lost } = elected;
    const { renewal } = leadership;
    const child = await this.#start(due, elected);
    const stopForwarding = this.#signals.handle((signal) => this.#forward(signal, child));
    try {
      const first = await race([child.ended, lost]);
      if ('status' in first && renewal.check()) {
        this.#report({ type: 'ended', pid: child.pid, ...first, stopTimedOut: this.#stoppedBy !== undefined });
        const status = this.#stoppedBy ?? first.status;
        const isDead = await this.#endLeftovers(renewal);
        if (isDead && due.slot !== undefined && this.isLeaving && status !== 0)
          this.#report({ type: 'cut-off', slot: due.slot });
        else if (isDead) await this.#record(due, status, elected);
        else await this.#giveBack(leadership, false);
        return { type: 'ended', status, isDead };
      }
      const loss: Loss =
        'status' in first
          ? { certain: false, reason: `the child ended when the lease had run out: ${this.#lastDoubt}` }
          : first;
      const isDead = await this.#stop(child, loss, renewal);
      this.#report({ type: 'deposed', token: this.#token, reason: loss.reason });
      await this.#giveBack(leadership, isDead, loss.certain);
      return { type: 'lost', isDead };
    } finally {
      stopForwarding();
    }
  }

  /** Goes on until the store has it, leadership is lost, or we are asked to end and one more request has had its time. */
  async #record(due: Due, status: number, { leadership, lost }: Elected): Promise<void> {
    if (due.slot === undefined) return;
    const over = new AbortController();
    const stopListening = this.#signals.handle((signal) => {
      if (isStop(signal)) return this.#signals.default(signal);
      if (!endsCampaign(signal)) return;
      this.#report({ type: 'signalled', signal, forwarded: false });
      this.isLeaving = true;
      pause(this.#config.timing.requestMs, over.signal).then(() => over.abort(new Error(`${signal} received`)));
    });
    try {
      const ended = this.#agenda.ended(this.#leader(leadership), due, status, over.signal);
      const loss = await race([ended, lost]);
      if (loss) throw new Error(loss.reason);
    } catch (error) {
      this.#report({ type: 'unrecorded', slot: due.slot, reason: (error as Error).message });
    } finally {
      over.abort(new Error('leadership is over'));
      stopListening();
    }
  }

  async #start(due: Due, elected: Elected): Promise<Child> {
    const { backend, command, args, election, id, timing, notifyChild } = this.#config;
    const { leadership, token } = elected;
    const { place } = leadership;
    const { actsFor } = this.#agenda;
    if (notifyChild) this.#notifySocket ??= hearChild(this.#report);
    try {
      const child = await startChild({
        command,
        args,
        ownGroup: this.#marks.ownGroup,
        inheritFd: place.inheritFd,
        env:
          actsFor === undefined
            ? childEnvironment(process.env, {
                token,
                election,
                id,
                backendUrl: this.#backend.url,
                flavor: backend.kind === 'zookeeper' ? backend.flavor : undefined,
                ttlMs: place.ttlMs ?? timing.ttlMs,
                slot: due.slot,
                notifySocket: this.#notifySocket,
              })
            : fencedEnvironment(process.env, actsFor, id),
      });
      this.#marks.root = { pid: child.pid, startedAt: child.startedAt };
      this.#guard.setJob(this.#marks.ownGroup ? -child.pid : child.pid);
      this.#tellFacts();
      const group = this.#marks.ownGroup ? child.pid : readProc(process.pid)!.group;
      this.#adoption?.watch({ pid: child.pid, group }, (strays) => {
        this.#marks.known = strays;
        this.#tellFacts();
        this.#report({ type: 'strayed', pids: strays.map(({ pid }) => pid) });
      });
      this.#report({ type: 'started', pid: child.pid, command, token: actsFor ?? this.#token, slot: due.slot });
      return child;
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const status = code === 'ENOENT' ? EXIT.notFound : EXIT.cannotExecute;
      await this.#record(due, status, elected);
      await this.#resign(leadership);
      throw new Failure(status, `cannot run ${command}: ${message}`);
    }
  }

  /** Ends the whole tree: TERM first while the lease provably stands, KILL at once when the store said no, and at the latest when it comes due. */
  async #stop(child: Child, loss: Loss, renewal: Renewal): Promise<boolean> {
    const killAt =
      loss.certain || !renewal.check() ? now() : Math.min(renewal.killAt, now() + this.#config.timing.graceMs);
    this.#report({
      type: 'stepping-down',
      token: this.#token,
      reason: loss.reason,
      killInMs: Math.max(0, Math.round(killAt - now())),
    });
    if (now() < killAt) {
      this.#signal(child, 'SIGTERM');
      this.#signal(child, 'SIGCONT'); // what is stopped cannot handle TERM
      const over = new AbortController();
      await Promise.race([this.#treeIsDead(over.signal), renewal.gone, pause(killAt - now(), over.signal)]);
      over.abort();
    }
    const isDead = await killTree(this.#marks, now() + DEATH_MS);
    if (isDead) await child.ended;
    return isDead;
  }

  async #treeIsDead(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && findTree(this.#marks).length > 0) await pause(POLL_MS, signal);
  }

  /** What the child left running would act without a leader: it goes, too, before anybody else may start. */
  async #endLeftovers(renewal: Renewal): Promise<boolean> {
    if (!this.#adoption?.hasOrphans()) return true;
    const leftovers = findTree(this.#marks);
    if (leftovers.length === 0) return true;
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
    return killTree(this.#marks, now() + DEATH_MS);
  }

  /** Only once the tree is dead; where that cannot be shown, the lease is left to run out. */
  async #giveBack(leadership: Leadership, isDead: boolean, isGone = false): Promise<void> {
    if (!isDead) {
      leadership.renewal.end();
      this.#handle = undefined;
      this.#tellFacts();
      this.#report({ type: 'left-to-expire', token: this.#token, reason: 'a process of the child could not be ended' });
      return;
    }
    this.#guard.setDeadline(Number.POSITIVE_INFINITY); // first, so that no alarm is set anew
    this.#forgetChild();
    await this.#resign(leadership, isGone);
  }

  /** Its tree is dead. */
  #forgetChild(): void {
    this.#marks.root = undefined;
    this.#guard.setJob(undefined);
  }

  /** `isGone`: the store has taken it already; what little may be left of it is removed without a word. */
  async #resign({ place, renewal }: Leadership, isGone = this.#token === ''): Promise<void> {
    renewal.end();
    const stop = new AbortController();
    const late: string[] = [];
    const stopListening = this.#signals.handle((signal) => {
      if (!endsCampaign(signal)) return;
      stop.abort(new Error(signal));
      late.push(signal);
    });
    try {
      await this.#backend.release(place, within(2 * this.#config.timing.requestMs, stop.signal));
      if (!isGone) this.#report({ type: 'resigned', token: this.#token });
    } catch (error) {
      if (!isGone) this.#report({ type: 'left-to-expire', token: this.#token, reason: (error as Error).message });
    } finally {
      stopListening();
      this.#handle = undefined;
      this.#renewal = undefined;
      this.#requests = undefined;
      this.#token = '';
      this.#isSuspended = false;
      this.#guard.setDeadline(Number.POSITIVE_INFINITY);
      for (const signal of late) this.#signals.again(signal);
    }
  }

  async #forward(signal: string, child: Child): Promise<void> {
    // Before anything is waited for: the child may have ended by then.
    if (LEAVING.includes(signal) || (signal === 'SIGHUP' && this.#agenda.repeats)) this.isLeaving = true;
    if (!this.#marks.root) {
      this.#report({ type: 'signalled', signal, forwarded: false });
      return;
    }
    const isCommon = (await this.#witness?.sawIt(signal)) ?? false;
    this.#report({ type: 'signalled', signal, forwarded: !isCommon });
    if (!isCommon) this.#signal(child, signalNumber(signal));
    else if (isStop(signal)) {
      // The terminal has stopped the job, so we stop as well, and the shell sees it. The lease runs on meanwhile.
      this.#signals.default(signal);
      this.#renewal?.check();
    }
    if (signal === 'SIGTERM' && this.#config.stopTimeoutMs !== undefined)
      this.#stopWithin(this.#config.stopTimeoutMs, signal, child);
  }

  async #stopWithin(timeoutMs: number, signal: string, child: Child): Promise<void> {
    const isOver = await Promise.race([child.ended, pause(timeoutMs)]);
    if (isOver) return;
    this.#stoppedBy = signalStatus(signalNumber(signal));
    this.#report({
      type: 'warning',
      message: `the child did not end within ${formatDuration(timeoutMs)} of ${signal} (--stop-timeout): killed`,
    });
    await killTree(this.#marks, now() + DEATH_MS);
  }

  /** To the child's whole process group, or, where it shares ours, to those of it that do. */
  #signal(child: Child, signal: NodeJS.Signals | number): void {
    if (this.#marks.ownGroup) {
      trySignal(-child.pid, signal);
      return;
    }
    const group = readProc(process.pid)!.group;
    signalAll(
      findTree(this.#marks).filter((proc) => proc.group === group),
      signal,
    );
  }

  #confirmed(expiresAt: number, tookMs: number): void {
    const validForMs = Math.round(expiresAt - now());
    if (!this.#renewal && Number.isFinite(expiresAt)) this.#report({ type: 'place-renewed', validForMs });
    if (!this.#renewal) return;
    this.#guard.setDeadline(this.#renewal.killAt);
    if (!this.#token) return;
    this.#report({ type: 'renewed', token: this.#token, tookMs: Math.round(tookMs), validForMs });
    this.#requests?.look();
    if (this.#isSuspended) this.#report({ type: 'resumed', token: this.#token });
    this.#isSuspended = false;
  }

  #unanswered(reason: string): void {
    this.#lastDoubt = reason;
    if (!this.#renewal || !this.#token || this.#isSuspended) return;
    this.#isSuspended = true;
    this.#report({
      type: 'suspended',
      token: this.#token,
      reason,
      stopInMs: Math.max(0, Math.round(this.#renewal.stopAt - now())),
    });
  }

  #tellFacts(): void {
    this.#guard.setFacts(
      (): Facts => ({
        marks: this.#marks,
        backend: this.#config.backend,
        candidate: this.#candidate,
        handle: this.#handle ?? null,
      }),
    );
  }

  #campaignFailure(error: unknown): unknown {
    const { exitCodes, election } = this.#config;
    if (error instanceof Refused) return new Failure(EXIT.refused, error.message);
    if (error instanceof Unusable) return new Failure(EXIT.usage, error.message);
    if (!(error instanceof NotElected)) return error;
    if (!error.ledBy)
      return new Failure(EXIT.unavailable, `${this.#backend.url} could not be reached in time: ${error.message}`);
    return new Failure(
      exitCodes.standby,
      `not elected: ${printable(error.ledBy.leader ?? 'somebody else')} leads ${election}`,
    );
  }
}
