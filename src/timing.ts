import { formatDuration } from './durations.ts';
import { EXIT, Failure } from './outcome.ts';

/**
 * How a lease's length is spent. All of it is counted from the moment at which the last confirmed renewal was *sent*:
 *
 *     sentAt ──── renewals ──── stopAt ── grace ── killAt ── margin ── expiresAt
 *                               TERM               KILL                the next leader may start
 */
export interface Timing {
  ttlMs: number;
  renewEveryMs: number;
  /** How long one request may take before it counts as unanswered. */
  requestMs: number;
  graceMs: number;
  /** From KILL to the lease's end: for the kernel to end the tree, and for late timers. */
  marginMs: number;
}

export const PROFILES = {
  aggressive: { ttlMs: 3000, renewEveryMs: 1000 },
  balanced: { ttlMs: 15_000, renewEveryMs: 5000 },
  conservative: { ttlMs: 45_000, renewEveryMs: 10_000 },
} as const;

/** A request that gets less than this to be answered would fail on a healthy network now and then. */
const SHORTEST_REQUEST_MS = 100;

/** Throws a usage Failure with the three numbers when a late renewal and its retry would not fit before the child has to be stopped. */
export function planTiming(wanted: { ttlMs: number; renewEveryMs?: number; graceMs?: number }): Timing {
  const { ttlMs } = wanted;
  const renewEveryMs = wanted.renewEveryMs ?? Math.round(ttlMs / 3);
  const graceMs = wanted.graceMs ?? Math.round(ttlMs / 5);
  const marginMs = Math.min(2000, Math.max(150, Math.round(ttlMs / 10)));
  const stopAfterMs = ttlMs - marginMs - graceMs;
  const roomMs = stopAfterMs - renewEveryMs;
  if (renewEveryMs <= 0 || roomMs < 2 * SHORTEST_REQUEST_MS) {
    const [ttl, every, grace] = [ttlMs, renewEveryMs, graceMs].map(formatDuration);
    throw new Failure(
      EXIT.usage,
      `--ttl ${ttl}, --renew-every ${every} and --grace ${grace} do not fit: a renewal and one retry of ${SHORTEST_REQUEST_MS}ms each ` +
        `must end before ${formatDuration(Math.max(0, stopAfterMs))} (ttl - margin ${formatDuration(marginMs)} - grace), when the child has to be stopped; ` +
        'lengthen --ttl, or shorten --renew-every or --grace',
    );
  }
  const requestMs = Math.min(renewEveryMs, Math.floor(roomMs / 2), 5000);
  return { ttlMs, renewEveryMs, requestMs, graceMs, marginMs };
}

/**
 * For how long the guard's alarm may sleep before it looks at the clock again: after a suspend of the machine it is late by no more than that. Half the margin, so
 * that the other half is left for the kill; but a look costs a process, some 1 ms of processor time, hence not more often than elect-run itself looks.
 */
export function longestNapMs({ marginMs }: Timing): number {
  return Math.max(250, marginMs / 2);
}
