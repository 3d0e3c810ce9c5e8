// What all soaks that ask a store have in common.
import type { Event } from '../../src/events.ts';

export const TTL_MS = 100_000;
export const REQUEST_MS = 1000;
export const PATIENCE_MS = 10_000;
export const TIMING = { ttlMs: TTL_MS, renewEveryMs: 30_000, requestMs: REQUEST_MS, graceMs: 1000, marginMs: 2000 };

/** What is not to be heard of in a soak. */
export function tell(event: Event): void {
  if (['guard-replaced', 'unreachable', 'place-lost', 'warning'].includes(event.type))
    console.log(JSON.stringify({ warning: event }));
}
