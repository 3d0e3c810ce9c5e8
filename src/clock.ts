import { uptime } from 'node:os';
import { under } from './waiting.ts';

/**
 * Milliseconds since boot, time asleep included (CLOCK_BOOTTIME); never moves with the wall clock.
 *
 * Node's own clocks are CLOCK_MONOTONIC, which stands still while the machine is suspended (clock_gettime(2)), so a lease
 * could run out during a nap without a timer noticing. /proc/uptime counts the nap, in steps of 10 ms (proc(5)). Hence: monotonic time, plus the
 * nap as seen in uptime.
 */
export function now(): number {
  const before = monotonicMs();
  const uptimeMs = uptime() * 1000;
  const monotonic = monotonicMs();
  // Stopped between the two readings (SIGSTOP, a busy machine): they do not belong together.
  if (monotonic - before > STEP_MS) return now();
  const aheadMs = uptimeMs - monotonic - origin;
  return origin + monotonic + (aheadMs > 2 * STEP_MS ? aheadMs : 0);
}

const STEP_MS = 10;
const origin = uptime() * 1000 - monotonicMs();

/** CLOCK_MONOTONIC. `performance` is the same clock behind eleven modules, which take 0.6 ms to load. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

/** A `now()` as /proc/uptime in hundredths of a second, the clock that a shell can read. */
export function toCentiseconds(at: number): number {
  return Math.floor(at / 10);
}

export function fromCentiseconds(uptime: number): number {
  return uptime * 10;
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
