import { uptime } from 'node:os';
import { under } from './waiting.ts';

/**
 * Milliseconds since boot, time asleep included (CLOCK_BOOTTIME); never moves with the wall clock.
 *
 * Node's own clocks are CLOCK_MONOTONIC, which stands still while the machine is suspended (clock_gettime(2)), so a lease
 * could run out during a nap without a timer noticing. /proc/uptime counts the nap, in steps of 10 ms (proc(5)). Hence: monotonic time, up to a step ahead of uptime so
 * that only a nap lets it fall behind. What has come on /proc/uptime has come here, too.
 */
export function now(): number {
  return Math.max(origin + monotonicMs(), uptime() * 1000);
}

const STEP_MS = 10;
const origin = uptime() * 1000 + STEP_MS - monotonicMs();

/** CLOCK_MONOTONIC. `performance` is the same clock behind eleven modules, which take 0.6 ms to load. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

/** A `now()` as /proc/uptime in hundredths of a second, the clock that a shell can read: the first at which it has certainly come here, two steps later at most. */
export function toCentiseconds(at: number): number {
  return Math.ceil(at / STEP_MS);
}

/** A timer of Node's that is told to wait longer than this runs at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Resolves after the time, however long, or as soon as the signal is aborted: never rejects. */
export function pause(durationMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    let timer: NodeJS.Timeout;
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const sleep = (leftMs: number) => {
      const pieceMs = Math.min(leftMs, LONGEST_TIMER_MS);
      timer = setTimeout(() => (leftMs > pieceMs ? sleep(leftMs - pieceMs) : done()), pieceMs);
    };
    sleep(durationMs);
    signal?.addEventListener('abort', done);
  });
}

export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve());
  });
}

/** Aborts after the time, with a reason that can be shown, or together with the given signal. */
export function within(durationMs: number, signal?: AbortSignal): AbortSignal {
  const late = signal ? under(signal) : new AbortController();
  setTimeout(() => late.abort(new Error(`no answer within ${Math.round(durationMs)}ms`)), durationMs).unref();
  return late.signal;
}
