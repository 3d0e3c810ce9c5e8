import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { newFolder } from './folders.ts';
import { LIBFAKETIME } from './tools.ts';

/**
 * A clock of a Node that is set while it runs (libfaketime). Of that process only: what inherits it shares a semaphore, takes it while it is loaded, and when it is killed just then
 * nobody else gets on. Jobs and guards tell the time by /proc/uptime.
 */
class FakeClock {
  readonly #folder = newFolder('clock');
  readonly #file = join(this.#folder, 'offset');
  readonly #alone = join(this.#folder, 'alone.cjs');

  constructor() {
    this.step(0);
    writeFileSync(
      this.#alone,
      `for (const name of ['LD_PRELOAD', 'FAKETIME_SHARED', 'NODE_OPTIONS']) delete process.env[name];`,
    );
  }

  /** For the process whose clock this is. */
  get env(): NodeJS.ProcessEnv {
    return {
      LD_PRELOAD: LIBFAKETIME,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_NO_CACHE: '1',
      NODE_OPTIONS: `--require=${this.#alone}`,
    };
  }

  /** From now on the process reads the true time plus so many seconds. */
  step(offsetSeconds: number): void {
    // By rename, so that it is never read half written.
    writeFileSync(`${this.#file}.new`, `${offsetSeconds < 0 ? '' : '+'}${offsetSeconds}\n`);
    renameSync(`${this.#file}.new`, this.#file);
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A wall clock that can be stepped. The monotonic clocks stay real, as they do when a real one is set. */
export class WallClock extends FakeClock {
  override get env(): NodeJS.ProcessEnv {
    return { ...super.env, FAKETIME_DONT_FAKE_MONOTONIC: '1' };
  }
}

/**
 * CLOCK_MONOTONIC of a machine that was suspended (clock_gettime(2)): whoever stops a process for some seconds and then puts its clock back by as many lets it
 * see what it sees after a suspend. /proc/uptime stays true, as there. The wall clock is put back as well.
 */
export class SuspendableClock extends FakeClock {}
