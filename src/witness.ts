import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { isNodesOwn } from './adoption.ts';
import { signalNumber } from './outcome.ts';
import { FORWARDED } from './signals.ts';

const SCRIPT = fileURLToPath(new URL('./witness.sh', import.meta.url));

/** Our side of witness.sh: tells signals of the terminal's whole process group from those that were sent to elect-run alone. */
export class Witness {
  readonly pid: number | undefined;
  readonly ready: Promise<void>;
  readonly #process;
  readonly #seen = new Map<string, number>();
  /** Callers that wait for the answer to their question; the first one waits for `ready`. */
  #waiting: (() => void)[] = [];
  #isGone = false;

  constructor() {
    const numbers = FORWARDED.map((signal) => String(signalNumber(signal)));
    this.#process = spawn('/bin/sh', [SCRIPT, ...numbers], { stdio: ['pipe', 'pipe', 'ignore'], cwd: '/' });
    this.pid = this.#process.pid;
    isNodesOwn(this.#process);
    this.ready = new Promise((resolve) => this.#waiting.push(resolve));
    for (const source of [this.#process, this.#process.stdin]) source.on('error', () => this.#leave());
    this.#process.on('exit', () => this.#leave());
    createInterface({ input: this.#process.stdout }).on('line', (line) => {
      if (line === 'ready' || line.startsWith('asked')) this.#waiting.shift()?.();
      else this.#seen.set(line, (this.#seen.get(line) ?? 0) + 1);
    });
  }

  /** Did the whole group get this signal, too? */
  async sawIt(signal: string): Promise<boolean> {
    if (this.#isGone) return false;
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      this.#process.stdin.write('?\n');
    });
    const number = String(signalNumber(signal));
    const count = this.#seen.get(number) ?? 0;
    if (this.#waiting.length > 0) this.#seen.set(number, count - 1);
    else this.#seen.clear();
    return count > 0;
  }

  end(): void {
    this.#process.stdin.end();
  }

  #leave(): void {
    this.#isGone = true;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
