import { Changed, Gone, Refused } from '../backend.ts';
import { campaign, NotElected } from '../campaign.ts';
import { now, pause, within } from '../clock.ts';
import type { Timing } from '../timing.ts';
import { type Percentiles, percentilesOf } from './percentiles.ts';
import type { Scratch } from './scratch.ts';

export const PATIENCE_MS = 5000;
/** Between two requests: a store that is in use is not to be filled with ours. */
const BETWEEN_MS = 20;

export interface RoundTrips {
  took: Percentiles;
  unanswered: number;
  /** What the last one that was not answered had for a reason. */
  reason: string | undefined;
}

/** One request after the other for so long, one at least. What is not an answer is counted; `Gone` and `Refused` are thrown. */
export async function repeat(
  ask: (signal: AbortSignal) => Promise<unknown>,
  forMs: number,
  interrupted: AbortSignal,
): Promise<RoundTrips> {
  const endAt = now() + forMs;
  const took: number[] = [];
  let unanswered = 0;
  let reason: string | undefined;
  do {
    interrupted.throwIfAborted();
    const sentAt = performance.now();
    try {
      await ask(within(PATIENCE_MS));
      took.push(performance.now() - sentAt);
    } catch (error) {
      if (error instanceof Gone || error instanceof Refused) throw error;
      unanswered++;
      reason = (error as Error).message;
    }
    await pause(BETWEEN_MS, interrupted);
  } while (now() < endAt);
  return { took: percentilesOf(took), unanswered, reason };
}

export interface Term {
  /** The lease that was granted, in ms; undefined: nothing runs out here. */
  grantedMs: number | undefined;
  roundTrips: RoundTrips;
  /** Whether we may keep run records, which schedules need: undefined, or what the store says. */
  bookProblem: string | undefined;
}

/** Leads the scratch election for a while, as a leader does. Throws what the backend throws. */
export async function lead(scratch: Scratch, ttlMs: number, forMs: number, interrupted: AbortSignal): Promise<Term> {
  const seat = await scratch.open(ttlMs);
  const { backend, place } = seat;
  interrupted.throwIfAborted();
  const standing = await backend.acquire(place, within(PATIENCE_MS));
  if (!standing.leads) throw new Gone(`somebody else leads ${scratch.election}`);
  interrupted.throwIfAborted();
  await backend.confirm(place, within(PATIENCE_MS));
  const grantedMs = place.ttlMs;
  // Where nothing runs out a renewal is no request; what takes time is the token, on the disk.
  const ask =
    grantedMs === undefined
      ? (signal: AbortSignal) => backend.confirm(place, signal)
      : (signal: AbortSignal) => backend.renew(place, signal);
  const roundTrips = await repeat(ask, forMs, interrupted);
  interrupted.throwIfAborted();
  const bookProblem = await tryBook(() => backend.readBook(within(PATIENCE_MS)));
  interrupted.throwIfAborted();
  const writeProblem =
    bookProblem ?? (await tryBook(() => backend.writeBook(place, '[]', undefined, within(PATIENCE_MS))));
  await scratch.giveBack(seat);
  return { grantedMs, roundTrips, bookProblem: writeProblem };
}

async function tryBook(ask: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await ask();
    return undefined;
  } catch (error) {
    if (error instanceof Refused || error instanceof Changed) return error.message;
    throw error;
  }
}

export type Expiry =
  | { isSeen: true; shortestMs: number; lateMs: number }
  | { isSeen: false; shortestMs: number | undefined; reason: string };

/** A lease that takes longer to run out is not waited for. */
const LONGEST_WAIT_MS = 20_000;
const LATE_MS = 10_000;
const SHORTEST_ASKED_MS = 1000;
/** Round trips that have to fit into the shortest lease until it is left alone. */
const TRIPS = 6;

/** Lets the shortest lease that the store grants run out, and measures when the next candidate gets it. */
export async function expire(
  scratch: Scratch,
  timing: Timing,
  worstMs: number,
  interrupted: AbortSignal,
): Promise<Expiry> {
  const askedMs = Math.max(SHORTEST_ASKED_MS, Math.ceil((TRIPS * worstMs) / 1000) * 1000);
  const seat = await scratch.open(askedMs);
  interrupted.throwIfAborted();
  await seat.backend.acquire(seat.place, within(PATIENCE_MS));
  const shortestMs = seat.place.ttlMs!;
  if (shortestMs > LONGEST_WAIT_MS) {
    await scratch.giveBack(seat);
    return { isSeen: false, shortestMs, reason: 'too long to be waited for' };
  }
  const next = await scratch.open(timing.ttlMs);
  let lastSentAt: number | undefined;
  const leave = async () => {
    lastSentAt = now();
    await seat.backend.renew(seat.place, within(PATIENCE_MS));
    await scratch.abandon(seat);
  };
  // Before it stands in the line nothing is broken off: what is under way could not be given back.
  const over = new AbortController();
  const onInterrupt = () => over.abort(interrupted.reason);
  let left: Promise<void> | undefined;
  try {
    const { renewal } = await campaign(
      next.backend,
      {
        timing,
        giveUpAt: now() + shortestMs + LATE_MS,
        once: false,
        report: () => {},
        placed: (place) => {
          next.place = place;
        },
        standsBy: () => {
          interrupted.addEventListener('abort', onInterrupt);
          if (interrupted.aborted) onInterrupt();
          left = leave();
          left.catch(() => over.abort(new NotElected(undefined, 'the lease could not be left alone')));
        },
        impatience: new AbortController().signal,
        hooks: { confirmed: () => {}, unanswered: () => {} },
      },
      over.signal,
    );
    const wonAt = now();
    renewal.end();
    await left;
    interrupted.throwIfAborted();
    if (lastSentAt === undefined)
      return { isSeen: false, shortestMs, reason: 'it ran out before the next candidate was there' };
    return { isSeen: true, shortestMs, lateMs: wonAt - (lastSentAt + shortestMs) };
  } catch (error) {
    await left?.catch(() => {});
    if (error instanceof NotElected) return { isSeen: false, shortestMs, reason: error.message };
    throw error;
  } finally {
    interrupted.removeEventListener('abort', onInterrupt);
  }
}
