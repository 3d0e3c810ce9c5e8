import { readFileSync } from 'node:fs';
import { now } from '../clock.ts';
import { type Percentiles, percentilesOf } from './percentiles.ts';

/** What this host did to us while we measured. */
export interface Pauses {
  /** How late timers were. */
  late: Percentiles;
  /** The share of the processors' time that the hypervisor gave to others; undefined where the kernel does not tell. */
  stolen: number | undefined;
  /** How often the cgroup was out of its share of processor time; undefined where it has no limit. */
  throttled: number | undefined;
  /** The largest step of the wall clock against the time since boot, in ms. */
  stepMs: number;
}

const TICK_MS = 10;
/** Less than this may be our own two readings that do not belong together. */
const SMALLEST_STEP_MS = 100;

/** From its making until `end`. */
export class PauseMeter {
  readonly #late: number[] = [];
  readonly #timer: NodeJS.Timeout;
  readonly #processors = processorTicks();
  readonly #throttled = throttledPeriods();
  #dueAt = now() + TICK_MS;
  #ahead = Date.now() - now();
  #stepMs = 0;

  constructor() {
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  end(): Pauses {
    clearInterval(this.#timer);
    this.#tick();
    const [before, after] = [this.#processors, processorTicks()];
    const total = before && after ? after.total - before.total : 0;
    const [throttledBefore, throttled] = [this.#throttled, throttledPeriods()];
    return {
      late: percentilesOf(this.#late),
      stolen: total > 0 ? (after!.stolen - before!.stolen) / total : undefined,
      throttled: throttledBefore === undefined || throttled === undefined ? undefined : throttled - throttledBefore,
      stepMs: this.#stepMs,
    };
  }

  #tick(): void {
    const at = now();
    this.#late.push(Math.max(0, at - this.#dueAt));
    this.#dueAt = at + TICK_MS;
    const ahead = Date.now() - at;
    const stepMs = ahead - this.#ahead;
    if (Math.abs(stepMs) < SMALLEST_STEP_MS) return;
    this.#ahead = ahead;
    if (Math.abs(stepMs) > Math.abs(this.#stepMs)) this.#stepMs = stepMs;
  }
}

/** Of all processors since boot: the eighth number of the line `cpu` is what was stolen (proc_stat(5)). */
function processorTicks(): { total: number; stolen: number } | undefined {
  try {
    const [, ...ticks] = /^cpu .*$/m.exec(readFileSync('/proc/stat', 'latin1'))![0].trim().split(/ +/).map(Number);
    const counted = ticks.slice(0, 8); // those of guests are in user's and nice's already
    return { total: counted.reduce((sum, one) => sum + one, 0), stolen: counted[7] ?? 0 };
  } catch {
    return undefined;
  }
}

/** In a container that is our own cgroup (cgroup v2, "CPU Interface Files"). */
function throttledPeriods(): number | undefined {
  try {
    const [, count] = /^nr_throttled (\d+)$/m.exec(readFileSync('/sys/fs/cgroup/cpu.stat', 'latin1')) ?? [];
    return count === undefined ? undefined : Number(count);
  } catch {
    return undefined;
  }
}
