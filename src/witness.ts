import { join } from 'node:path';
import { Helper } from './helper.ts';
import { hasShell, SHELL } from './lookup.ts';
import { signalNumber } from './outcome.ts';
import { FORWARDED } from './signals.ts';

const beside = (name: string): string => join(import.meta.dirname, name);

/** A shell, or where there is none a second Node. */
function commandLine(): [string, ...string[]] {
  if (!hasShell()) return [process.execPath, beside('witness-process.js'), 'elect-run-witness'];
  return [SHELL, beside('witness.sh'), ...FORWARDED.map((signal) => String(signalNumber(signal)))];
}

/** Our side of witness.sh and witness-process.ts: tells signals of the terminal's whole process group from those that were sent to elect-run alone. */
export class Witness {
  readonly pid: number | undefined;
  readonly ready: Promise<void>;
  readonly #process: Helper | undefined;
  readonly #seen = new Map<string, number>();
  /** Questions that are under way, by signal. */
  readonly #asked = new Map<string, number>();
  /** Callers that wait for the answer to their question; the first one waits for `ready`. */
  #waiting: (() => void)[] = [];
  #isGone = false;

  constructor() {
    this.ready = new Promise((resolve) => this.#waiting.push(resolve));
    try {
      this.#process = new Helper(commandLine(), {
        ownSession: false,
        stderr: undefined,
        heard: (line) => {
          if (line === 'ready' || line.startsWith('asked')) this.#waiting.shift()?.();
          else this.#seen.set(line, (this.#seen.get(line) ?? 0) + 1);
        },
      });
      this.#process.ended.then(() => this.#leave());
    } catch {
      this.#leave();
    }
    this.pid = this.#process?.pid;
  }

  /** Did the whole group get this signal, too? */
  async sawIt(signal: string): Promise<boolean> {
    if (this.#isGone) return false;
    const number = String(signalNumber(signal));
    this.#asked.set(number, (this.#asked.get(number) ?? 0) + 1);
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      this.#process?.tell('?');
    });
    const count = this.#seen.get(number) ?? 0;
    const open = this.#asked.get(number)! - 1;
    this.#asked.set(number, open);
    // What is left over was one signal to us and two to the witness: the kernel makes one of those that were not handled yet.
    this.#seen.set(number, open > 0 ? count - 1 : 0);
    return count > 0;
  }

  end(): void {
    this.#process?.end();
  }

  #leave(): void {
    this.#isGone = true;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
