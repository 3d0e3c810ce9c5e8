import { formatDuration } from '../durations.ts';
import { PROFILES, planTiming, type Timing } from '../timing.ts';

/** What was measured, as far as a timing has to bear it. */
export interface Need {
  p99Ms: number;
  /** The longest time for which this host let us stand still. */
  pauseMs: number;
  /** The shortest lease that the store grants. */
  shortestMs: number;
}

/** A request may take so many times the p99 before it counts as unanswered: beyond a p99 there is one in a hundred. */
const REQUEST_FACTOR = 2;
/** Of measurements that last some seconds nothing shorter can be concluded. */
const SHORTEST_MS = PROFILES.aggressive.ttlMs;
const LONGEST_MS = 600_000;
const STEP_MS = 1000;
const RENEWAL_STEP_MS = 100;

/** The rule: ttl = max(3 × renewal, 3 × p99, pause + margin). Undefined: this timing keeps it, and its requests have time enough. */
export function whatIsTooShort({ ttlMs, renewEveryMs, requestMs, marginMs }: Timing, need: Need): string | undefined {
  const { p99Ms, pauseMs } = need;
  const [ttl, every, p99, stall] = [ttlMs, renewEveryMs, p99Ms, pauseMs].map(formatDuration);
  if (Math.floor(renewEveryMs) * 3 > ttlMs + ROUNDING_MS)
    return `a ttl of ${ttl} is less than 3 renewals of ${every} each`;
  if (3 * p99Ms > ttlMs) return `a ttl of ${ttl} is less than 3 round trips of ${p99} (p99)`;
  if (pauseMs + marginMs > ttlMs)
    return `a ttl of ${ttl} is less than the longest pause of this host, ${stall}, and the margin of ${formatDuration(marginMs)}`;
  if (REQUEST_FACTOR * p99Ms > requestMs)
    return `with a ttl of ${ttl} a renewal has ${formatDuration(requestMs)} to be answered, less than ${REQUEST_FACTOR} round trips of ${p99} (p99)`;
  return undefined;
}

/** A third of a ttl that three does not divide. */
const ROUNDING_MS = 2;

/** The shortest timing that bears it; undefined: none does. */
export function advise(need: Need): Timing | undefined {
  const firstMs = Math.ceil(Math.max(SHORTEST_MS, need.shortestMs) / STEP_MS) * STEP_MS;
  for (let ttlMs = firstMs; ttlMs <= LONGEST_MS; ttlMs += STEP_MS) {
    const renewEveryMs = Math.floor(ttlMs / 3 / RENEWAL_STEP_MS) * RENEWAL_STEP_MS;
    const timing = planTiming({ ttlMs, renewEveryMs });
    if (whatIsTooShort(timing, need) === undefined) return timing;
  }
  return undefined;
}

/** The three that the ttl has to be as long as. */
export function describeRule({ renewEveryMs, marginMs }: Timing, { p99Ms, pauseMs }: Need): string {
  const [every, trips, pause] = [3 * renewEveryMs, 3 * p99Ms, pauseMs + marginMs].map(formatDuration);
  return `3 × renewal ${every}, 3 × p99 ${trips}, pause + margin ${pause}`;
}

export const flagsOf = ({ ttlMs, renewEveryMs }: Timing): string =>
  `--ttl ${formatDuration(ttlMs)} --renew-every ${formatDuration(renewEveryMs)}`;
