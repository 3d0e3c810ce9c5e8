import { type Backend, Gone, type Leading, type Place, Refused, Unusable, type Waiting } from './backend.ts';
import { now, pause, within } from './clock.ts';
import type { Report } from './events.ts';
import { Renewal, type RenewalHooks } from './renewal.ts';
import type { Timing } from './timing.ts';
import { race, under } from './waiting.ts';

/** The campaign ended without leadership. */
export class NotElected extends Error {
  override name = 'NotElected';
  /** Who leads, if the store was reached at all; undefined: it was not. */
  readonly ledBy: Waiting | undefined;
  constructor(ledBy: Waiting | undefined, message: string) {
    super(message);
    this.ledBy = ledBy;
  }
}

/** A place in the store that leads, kept alive by its renewal. */
export interface Leadership {
  place: Place;
  renewal: Renewal;
  /** Before the request was sent by which the store came to hold something of ours. */
  heldSince: number | undefined;
  /** The store told then that the leader was gone, and has not named another one since. */
  vacantSince: number | undefined;
}

export interface CampaignOptions {
  timing: Timing;
  /** A `now()`; Infinity: never. */
  giveUpAt: number;
  /** One look, no standing by. */
  once: boolean;
  report: Report;
  /** Something of ours is in the store now, or not any more: the guard has to know. */
  placed(place: Place): void;
  /** Somebody else leads, so there is time for what the child's start would have to wait for. Called once. */
  standsBy(): void;
  hooks: RenewalHooks;
  /** Aborted: whoever asked for the end does not wait any more for the place to be given back. */
  impatience: AbortSignal;
}

/** Watches can break without a word: look again after this, or a share of the ttl, whichever is longer, and up to a half more. */
const LOOK_AGAIN_MS = 10_000;
const LOOK_AGAIN_SHARE = 2 / 3;
/** Connecting takes longer than a request on an open connection. */
const SHORTEST_ATTEMPT_MS = 2000;
/** A store that stays away is spoken of now and then. */
const TELL_AGAIN_MS = 30_000;
/** Of a leader's name, what is shown: ours are shorter. */
const LONGEST_NAME = 200;
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 5000;

/**
 * Campaigns until we lead. Throws NotElected when --wait has run out, Refused or Unusable when it cannot succeed, and the signal's reason
 * when it is aborted; then nothing of ours is left in the store, as far as the store could be reached.
 */
export async function campaign(backend: Backend, options: CampaignOptions, signal: AbortSignal): Promise<Leadership> {
  const { giveUpAt } = options;
  const timeUp = new AbortController();
  const over = under(signal, timeUp.signal);
  const untilEnd = over.signal;
  if (Number.isFinite(giveUpAt)) pause(giveUpAt - now(), untilEnd).then(() => timeUp.abort());
  let pauseMs = FIRST_PAUSE_MS;
  let ledBy: Waiting | undefined;
  let lastProblem = 'no answer';
  let told = { problem: '', at: 0 };
  /** Something else was told since we last said that we stand by. */
  let isToldAnew = false;
  let seat = takeSeat(backend, options);
  const enterAgain = (reason: string) => {
    options.report({ type: 'place-lost', reason });
    isToldAnew = true;
    seat.renewal.end();
    const { place } = seat;
    backend.release(place, within(options.timing.requestMs)).catch(() => {}); // what may be left of it
    seat = takeSeat(backend, options);
  };

  try {
    for (;;) {
      try {
        const standing = await look(backend, seat, options, untilEnd);
        pauseMs = FIRST_PAUSE_MS;
        if (standing.leads) return seat;
        const isOther = standing.leader !== ledBy?.leader;
        if (isToldAnew || isNews(standing, ledBy)) {
          const vacantSince = isOther ? seat.vacantSince : undefined;
          options.report({ type: 'standby', ...pick(standing), leaderlessMs: leaderlessMs(vacantSince) });
        }
        isToldAnew = false;
        if (options.once) throw new NotElected(standing, 'somebody else leads');
        if (!ledBy) options.standsBy();
        ledBy = standing;
        seat.vacantSince = await vacancy(backend, seat, standing, options.timing, untilEnd);
      } catch (error) {
        if (error instanceof NotElected || error instanceof Refused || error instanceof Unusable) throw error;
        signal.throwIfAborted();
        if (!timeUp.signal.aborted) lastProblem = (error as Error).message;
        if (timeUp.signal.aborted || options.once) throw new NotElected(ledBy, lastProblem);
        if (error instanceof Gone) {
          enterAgain(error.message);
        } else {
          const retryInMs = Math.min(pauseMs * (0.5 + Math.random()), Math.max(0, giveUpAt - now()));
          if (lastProblem !== told.problem || now() >= told.at + TELL_AGAIN_MS) {
            options.report({ type: 'unreachable', reason: lastProblem, retryInMs: Math.round(retryInMs) });
            told = { problem: lastProblem, at: now() };
            isToldAnew = true;
          }
          await pause(retryInMs, untilEnd);
          pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
        }
      }
      if (!seat.renewal.check()) enterAgain('it ran out');
    }
  } catch (error) {
    seat.renewal.end();
    const patience = within(options.timing.requestMs, options.impatience);
    await backend.release(seat.place, patience).catch(() => {}); // it runs out by itself
    throw error;
  } finally {
    over.abort();
  }
}

function takeSeat(backend: Backend, { timing, hooks }: CampaignOptions): Leadership {
  const place = backend.newPlace();
  return { place, renewal: new Renewal(backend, place, timing, hooks), heldSince: undefined, vacantSince: undefined };
}

async function look(backend: Backend, seat: Leadership, options: CampaignOptions, signal: AbortSignal) {
  const { place, renewal } = seat;
  const sentAt = now();
  const attemptMs = Math.max(options.timing.requestMs, SHORTEST_ATTEMPT_MS);
  try {
    const standing = withShortName(await backend.acquire(place, within(attemptMs, signal)));
    if (standing.leads || place.ttlMs !== undefined) renewal.start(seat.heldSince ?? sentAt);
    return standing;
  } finally {
    // An attempt may fail when half of it is done: its lease runs from then.
    if (place.ttlMs !== undefined) seat.heldSince ??= sentAt;
    options.placed(place);
  }
}

/**
 * Until another look is worthwhile, or our own place has run out. Resolves with the time when the store told that the leader is gone, if it did.
 * Throws Gone when our place is lost meanwhile.
 */
async function vacancy(
  backend: Backend,
  { place, renewal }: Leadership,
  waiting: Waiting,
  { ttlMs }: Timing,
  signal: AbortSignal,
): Promise<number | undefined> {
  const over = under(signal);
  try {
    const first = await race([
      backend.vacancy(place, waiting, over.signal).then(() => 'vacant' as const),
      pause(Math.max(LOOK_AGAIN_MS, LOOK_AGAIN_SHARE * ttlMs) * (1 + Math.random() / 2), over.signal),
      renewal.gone,
      renewal.killDue,
    ]);
    if (first instanceof Gone) throw first;
    signal.throwIfAborted();
    const isNext = waiting.position === undefined || waiting.position === 2;
    return first === 'vacant' && isNext ? now() : undefined;
  } finally {
    over.abort();
  }
}

export const leaderlessMs = (vacantSince: number | undefined): number | undefined =>
  vacantSince === undefined ? undefined : Math.round(now() - vacantSince);

const isNews = (standing: Waiting, before: Waiting | undefined): boolean =>
  before === undefined || standing.leader !== before.leader || standing.position !== before.position;

/** Another program may write a book where its name belongs. */
const withShortName = (standing: Leading | Waiting): Leading | Waiting =>
  standing.leads ? standing : { ...standing, leader: standing.leader?.slice(0, LONGEST_NAME) };

const pick = ({ leader, since, position }: Waiting) => ({ leader, since, position });
