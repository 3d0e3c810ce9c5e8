import { type Backend, Gone, type Place } from './backend.ts';
import { now, pause, within } from './clock.ts';
import type { Timing } from './timing.ts';

/** After the machine has slept nothing that was due is noticed later than this: timers stand still meanwhile, and a check is cheap. */
const TICK_MS = 250;
/** The same while nothing of ours runs that a deadline could come too late for. */
const STANDBY_TICK_MS = 1000;
/** After a request that failed at once (connection refused): the pause before the next. */
const RETRY_MS = 200;

export interface RenewalHooks {
  /** The store confirmed; the place stands until `expiresAt`. */
  confirmed(expiresAt: number, tookMs: number): void;
  /** A renewal went unanswered: "don't know". */
  unanswered(reason: string): void;
}

/**
 * Keeps a place in the store alive on a timer of its own, and is the sole owner of its deadline. The deadline counts from the moment before
 * the confirmed request was sent. Once `killAt` has passed it stays passed: a late answer revives nothing.
 */
export class Renewal {
  /** The store said that the place is gone. */
  readonly gone: Promise<Gone>;
  /** The same, for whoever is about to start something and must not overlook what was said while other things were waited for. */
  isGone = false;
  /** `stopAt` has come: the child has to be stopped now to be dead in time. */
  readonly stopDue: Promise<void>;
  /** `killAt` has come: nothing of the child may run on. */
  readonly killDue: Promise<void>;
  /** A `now()`; Infinity while nothing of ours in the store runs out. */
  expiresAt = Number.POSITIVE_INFINITY;

  readonly #backend: Backend;
  readonly #place: Place;
  readonly #timing: Timing;
  readonly #hooks: RenewalHooks;
  readonly #end = new AbortController();
  #isStarted = false;
  #isOver = false;
  #isClose = false;
  #look: NodeJS.Timeout | undefined;
  #sayGone!: (gone: Gone) => void;
  #sayStop!: () => void;
  #sayKill!: () => void;

  constructor(backend: Backend, place: Place, timing: Timing, hooks: RenewalHooks) {
    this.#backend = backend;
    this.#place = place;
    this.#timing = timing;
    this.#hooks = hooks;
    this.gone = new Promise((resolve) => {
      this.#sayGone = (gone) => {
        this.isGone = true;
        resolve(gone);
      };
    });
    this.stopDue = new Promise((resolve) => {
      this.#sayStop = resolve;
    });
    this.killDue = new Promise((resolve) => {
      this.#sayKill = resolve;
    });
  }

  get killAt(): number {
    return this.expiresAt - this.#timing.marginMs;
  }

  get stopAt(): number {
    return this.killAt - this.#timing.graceMs;
  }

  /** The place came into being by a request that was sent at `sentAt`. Later calls do nothing. */
  start(sentAt: number): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#confirm(sentAt, this.#place.ttlMs);
    this.#watch();
    this.#backend.gone(this.#place, this.#end.signal).then(this.#sayGone);
    this.#renewForEver(sentAt);
  }

  /** To be called before a child can be started: before that there is nothing to stop, and a place that was not confirmed in time, but was later, is as good as any. */
  watchClosely(): void {
    this.#isClose = true;
    this.check();
    this.#watch();
  }

  /** Looks at the clock and says what has come due. To be called first after anything that may have been a stall. Returns whether the place still stands. */
  check(): boolean {
    const at = now();
    if (this.#isClose && at >= this.stopAt) this.#sayStop();
    if (at >= this.killAt) {
      this.#isOver = true;
      this.#sayKill();
    }
    return !this.#isOver;
  }

  end(): void {
    clearTimeout(this.#look);
    this.#end.abort(new Error('renewal ended'));
  }

  /** Looks when something is due, and with each tick. */
  #watch(): void {
    clearTimeout(this.#look);
    const dueInMs = [this.stopAt, this.killAt].map((at) => at - now()).filter((inMs) => inMs > 0);
    const look = () => {
      this.check();
      this.#watch();
    };
    this.#look = setTimeout(look, Math.ceil(Math.min(this.#isClose ? TICK_MS : STANDBY_TICK_MS, ...dueInMs)));
  }

  /** The last one counts, also where it was granted for less: one is sent only when the one before is over. */
  #confirm(sentAt: number, ttlMs: number | undefined): void {
    this.expiresAt = ttlMs === undefined ? Number.POSITIVE_INFINITY : sentAt + ttlMs;
    this.#hooks.confirmed(this.expiresAt, now() - sentAt);
  }

  async #renewForEver(lastSentAt: number): Promise<void> {
    const { signal } = this.#end;
    let dueAt = lastSentAt + this.#timing.renewEveryMs;
    for (;;) {
      await pause(Math.max(0, dueAt - now()), signal);
      if (signal.aborted || !this.check()) return;
      const sentAt = now();
      try {
        const ttlMs = await this.#backend.renew(this.#place, within(this.#timing.requestMs, signal));
        if (signal.aborted || !this.check()) return;
        this.#confirm(sentAt, this.#place.ttlMs === undefined ? undefined : ttlMs);
        dueAt = sentAt + this.#timing.renewEveryMs;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Gone) {
          this.#sayGone(error);
          return;
        }
        if (!this.check()) return;
        this.#hooks.unanswered((error as Error).message);
        dueAt = now() + Math.min(RETRY_MS, this.#timing.requestMs);
      }
    }
  }
}
