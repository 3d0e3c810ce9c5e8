import { type Backend, Gone, Refused, Unusable } from './backend.ts';
import { campaign, type Leadership, NotElected } from './campaign.ts';
import { rehearseStart } from './child.ts';
import { now, pause, within } from './clock.ts';
import type { Config } from './config.ts';
import type { Report } from './events.ts';
import type { Guard } from './guard.ts';
import type { Job } from './job.ts';
import { type Loss, watchForLoss } from './loss.ts';
import { EXIT, Failure } from './outcome.ts';
import type { Renewal } from './renewal.ts';
import { Requests, wordForAnother } from './requests.ts';
import { endsCampaign, type Signals } from './signals.ts';
import { printable } from './text.ts';

/** We lead, as the store has confirmed. */
export interface Elected extends Leadership {
  token: string;
  lost: Promise<Loss>;
}

const RETRY_MS = 100;

/** What we are in the store, and what is said of it: from standing, by way of leading, to giving it back. */
export class Candidacy {
  /** What the guard needs to give our place back; undefined: there is none. */
  handle: unknown;
  /** Why the store's last answer is missing. */
  lastDoubt = 'no renewal was confirmed in time';
  readonly #config: Config;
  readonly #backend: Backend;
  readonly #guard: Guard;
  readonly #job: Job;
  readonly #report: Report;
  readonly #signals: Signals;
  #renewal: Renewal | undefined;
  /** Empty before we lead. */
  #token = '';
  #isSuspended = false;
  #requests: Requests | undefined;
  /** We stepped down because we were asked to. */
  #wasAsked = false;
  /** The word that asked for another to lead: once for each is enough, since that one may be gone. */
  #gaveWayFor: string | undefined;
  #isReady = false;
  /** Aborted by the second signal while there is no child. */
  readonly #impatience = new AbortController();

  constructor(config: Config, backend: Backend, guard: Guard, job: Job, report: Report, signals: Signals) {
    this.#config = config;
    this.#backend = backend;
    this.#guard = guard;
    this.#job = job;
    this.#report = report;
    this.#signals = signals;
  }

  /** Campaigns until the store confirms that we lead. Throws a Failure. */
  async stand(): Promise<Elected> {
    const { timing, waitMs, once, exitCodes } = this.#config;
    const giveUpAt = now() + waitMs;
    try {
      return await this.interruptible(async (signal) => {
        for (;;) {
          const leadership = await this.#campaign(giveUpAt, signal);
          this.#renewal = leadership.renewal;
          const [token, word] = await Promise.all([
            this.#confirm(leadership, giveUpAt, signal),
            wordForAnother(this.#backend, leadership.place, this.#config.id, timing.requestMs),
          ])
            .then((answers) => {
              signal.throwIfAborted(); // a signal may have come between the one answer and the other
              return answers;
            })
            .catch(async (error) => {
              await this.resign(leadership);
              throw error;
            });
          const givesWay = word !== undefined && word !== this.#gaveWayFor;
          if (token !== undefined && !givesWay && !leadership.renewal.isGone)
            return this.#lead(leadership, String(token));
          await this.resign(leadership);
          signal.throwIfAborted();
          const leftMs = once ? 0 : giveUpAt - now();
          if (givesWay) {
            this.#gaveWayFor = word;
            const reason = 'another was asked to lead next (elect-run resign --to)';
            if (leftMs <= timing.renewEveryMs) throw new Failure(exitCodes.standby, `not elected: ${reason}`);
            this.#report({ type: 'place-lost', reason });
            await pause(timing.renewEveryMs, signal);
            signal.throwIfAborted();
          } else {
            if (leftMs <= 0) throw new NotElected(undefined, this.lastDoubt);
            this.#report({ type: 'place-lost', reason: 'the store did not confirm in time that we lead' });
          }
        }
      });
    } catch (error) {
      throw this.failure(error);
    }
  }

  /** Whoever was asked to step down does not stand again before the others: a store without a line would take it back at once. */
  async makeRoom(): Promise<void> {
    if (this.#wasAsked)
      await this.interruptible(async (signal) => {
        await pause(this.#config.timing.renewEveryMs, signal);
        signal.throwIfAborted();
      });
    this.#wasAsked = false;
  }

  /** `isGone`: the store has taken it already; what little may be left of it is removed without a word. */
  async resign({ place, renewal }: Leadership, isGone = this.#token === ''): Promise<void> {
    renewal.end();
    const { requestMs } = this.#config.timing;
    const stop = new AbortController();
    const late: string[] = [];
    const stopListening = this.#signals.handle((signal) => {
      if (!endsCampaign(signal)) return;
      late.push(signal);
      // Most of the time the store answers before that, and the others need not wait for the lease to run out. A second signal is impatient.
      const patienceMs = late.length === 1 ? requestMs : 0;
      pause(patienceMs, stop.signal).then(() => stop.abort(new Error(signal)));
    });
    this.#guard.letGo();
    try {
      await this.#backend.release(place, within(2 * requestMs, stop.signal));
      if (!isGone) this.#report({ type: 'resigned', token: this.#token });
    } catch (error) {
      if (!isGone) this.#report({ type: 'left-to-expire', token: this.#token, reason: (error as Error).message });
    } finally {
      stopListening();
      stop.abort(new Error('it is over'));
      this.handle = undefined;
      this.#renewal = undefined;
      this.#requests = undefined;
      this.#token = '';
      this.#isSuspended = false;
      this.#guard.setDeadline(Number.POSITIVE_INFINITY);
      for (const signal of late) this.#signals.again(signal);
    }
  }

  /** It is not given back, not even by the guard: the next leader has to wait. */
  leaveToExpire({ renewal }: Leadership, reason: string): void {
    renewal.end();
    this.handle = undefined;
    this.#guard.tellFacts();
    this.#report({ type: 'left-to-expire', token: this.#token, reason });
  }

  /** While there is no child a signal ends it all: aborts with a Failure. */
  async interruptible<T>(act: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const interruption = this.#signals.interruption(
      (signal) => this.#report({ type: 'signalled', signal, forwarded: false }),
      (signal) => this.#impatience.abort(new Error(signal)),
    );
    try {
      return await act(interruption.signal);
    } finally {
      interruption.end();
    }
  }

  /** What we end with when this was thrown. */
  failure(error: unknown): unknown {
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

  #campaign(giveUpAt: number, signal: AbortSignal): Promise<Leadership> {
    const { timing, once } = this.#config;
    const campaigning = campaign(
      this.#backend,
      {
        timing,
        giveUpAt,
        once,
        report: this.#report,
        placed: ({ handle }) => {
          if (this.handle === handle) return;
          this.handle = handle;
          this.#guard.tellFacts();
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
    if (!this.#isReady) {
      this.#isReady = true;
      this.#job.adopt();
      this.#signals.catchRealtime();
    }
    return campaigning;
  }

  /** One more read just before the spawn. Undefined: we do not lead after all, or could not tell in time. */
  async #confirm(
    { place, renewal }: Leadership,
    giveUpAt: number,
    interrupted: AbortSignal,
  ): Promise<bigint | undefined> {
    const { timing, once } = this.#config;
    renewal.watchClosely();
    this.#guard.setDeadline(renewal.killAt);
    const armed = Promise.all([this.#guard.armed(), this.#job.ready()]);
    const unguarded = this.#guard.failed.then((reason) => {
      throw new Failure(EXIT.software, `the guard cannot be started: ${reason}`);
    });
    unguarded.catch(() => {});
    let isLost = false;
    const gone = renewal.gone.then(({ message }) => {
      this.lastDoubt = message;
    });
    const lost = Promise.race([renewal.stopDue, gone]).then(() => {
      isLost = true;
      return undefined;
    });
    let told: string | undefined;
    for (;;) {
      try {
        const answerMs = Math.min(timing.requestMs, giveUpAt - now());
        const answer = this.#backend.confirm(place, within(answerMs, interrupted));
        const token = await Promise.race([answer, lost]);
        await Promise.race([armed, lost, unguarded]);
        interrupted.throwIfAborted();
        return renewal.check() && !isLost ? token : undefined;
      } catch (error) {
        interrupted.throwIfAborted();
        if (error instanceof Refused || error instanceof Unusable || error instanceof Failure) throw error;
        const { message } = error as Error;
        this.lastDoubt = message;
        if (error instanceof Gone || !renewal.check() || once || now() >= giveUpAt) return undefined;
        if (message !== told) this.#report({ type: 'unreachable', reason: message, retryInMs: RETRY_MS });
        told = message;
        await Promise.race([pause(Math.min(RETRY_MS, giveUpAt - now()), interrupted), lost]);
      }
    }
  }

  #lead(leadership: Leadership, token: string): Elected {
    this.#token = token;
    const asked = this.#listenForRequests(leadership, token);
    const lost = watchForLoss(leadership.renewal, this.#guard.failed, asked, () => this.lastDoubt);
    return { ...leadership, token, lost };
  }

  /** Resolves with who asks us to step down. */
  async #listenForRequests({ place }: Leadership, token: string): Promise<string> {
    const { id, timing, remoteResign } = this.#config;
    if (!remoteResign) return new Promise(() => {});
    this.#requests = new Requests(this.#backend, { place, id, token }, timing.requestMs);
    const by = await this.#requests.stepDown;
    this.#wasAsked = true;
    return by;
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
    this.lastDoubt = reason;
    if (!this.#renewal || !this.#token || this.#isSuspended) return;
    this.#isSuspended = true;
    this.#report({
      type: 'suspended',
      token: this.#token,
      reason,
      stopInMs: Math.max(0, Math.round(this.#renewal.stopAt - now())),
    });
  }
}
