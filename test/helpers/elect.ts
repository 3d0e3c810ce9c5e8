import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url));
export const BIN = join(CHECKOUT, 'bin/elect-run.js');
export const NODE = process.execPath;

export interface LoggedEvent {
  event: string;
  time: string;
  level: string;
  /** performance.now() when the line was read */
  readAt: number;
  [field: string]: unknown;
}

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: Buffer;
  stderr: string;
}

/** The real binary as a process, with its events (`--log-format json`, read from stderr) to wait for. */
export class Elect {
  readonly process: ChildProcess;
  readonly events: LoggedEvent[] = [];
  stderr = '';
  readonly ended: Promise<Ended>;
  #stdout: Buffer[] = [];
  #waiters = new Set<() => void>();
  #isOver = false;

  constructor(
    args: string[],
    options: {
      env?: NodeJS.ProcessEnv;
      cwd?: string;
      stdin?: 'pipe' | 'ignore';
      prefix?: string[];
      /** In the place of this checkout's elect-run. */
      program?: string[];
    } = {},
  ) {
    const [file, ...rest] = [...(options.prefix ?? []), ...(options.program ?? [NODE, BIN]), ...args];
    this.process = spawn(file!, rest, {
      env: { ...process.env, ELECT_RUN_LOG_FORMAT: 'json', ...options.env },
      cwd: options.cwd,
      stdio: [options.stdin ?? 'ignore', 'pipe', 'pipe'],
      detached: true, // no controlling terminal, also when the tests are run from one
    });
    running.add(this);
    this.process.stdout!.on('data', (chunk: Buffer) => {
      this.#stdout.push(chunk);
      this.#wake();
    });
    let rest_ = '';
    this.process.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
      this.stderr += chunk;
      const lines = (rest_ + chunk).split('\n');
      rest_ = lines.pop()!;
      for (const line of lines) {
        if (!line.startsWith('{"time"')) continue;
        this.events.push({ ...JSON.parse(line), readAt: performance.now() });
      }
      this.#wake();
    });
    this.ended = once(this.process, 'close').then(([code, signal]) => {
      running.delete(this);
      this.#isOver = true;
      this.#wake();
      return { code, signal, stdout: Buffer.concat(this.#stdout), stderr: this.stderr };
    });
  }

  get pid(): number {
    return this.process.pid!;
  }

  get stdout(): Buffer {
    return Buffer.concat(this.#stdout);
  }

  #wake() {
    for (const waiter of this.#waiters) waiter();
  }

  kill(signal: NodeJS.Signals | number) {
    process.kill(this.pid, signal);
  }

  /** The first event of this type (and, with `after`, that came after that one), now or when it comes. */
  async event(type: string, options: { after?: LoggedEvent; timeoutMs?: number } = {}): Promise<LoggedEvent> {
    return this.#until(`event ${type}`, options.timeoutMs, () => {
      const from = options.after ? this.events.indexOf(options.after) + 1 : 0;
      return this.events.slice(from).find((event) => event.event === type);
    });
  }

  /** Until stderr shows this text. */
  async says(text: string | RegExp, timeoutMs?: number): Promise<string> {
    return this.#until(`stderr ${text}`, timeoutMs, () =>
      (typeof text === 'string' ? this.stderr.includes(text) : text.test(this.stderr)) ? this.stderr : undefined,
    );
  }

  /** Until stdout shows this text. */
  async prints(text: string | RegExp, timeoutMs?: number): Promise<string> {
    return this.#until(`stdout ${text}`, timeoutMs, () => {
      const shown = this.stdout.toString();
      return (typeof text === 'string' ? shown.includes(text) : text.test(shown)) ? shown : undefined;
    });
  }

  #until<T>(what: string, timeoutMs = 20_000, find: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const give = (settle: () => void) => {
        clearTimeout(timer);
        this.#waiters.delete(look);
        settle();
      };
      const look = () => {
        const found = find();
        if (found !== undefined) give(() => resolve(found));
        else if (this.#isOver) give(() => reject(new Error(`elect-run ended before ${what}; stderr:\n${this.stderr}`)));
      };
      const timer = setTimeout(
        () => give(() => reject(new Error(`no ${what} within ${timeoutMs} ms; stderr:\n${this.stderr}`))),
        timeoutMs,
      );
      this.#waiters.add(look);
      look();
    });
  }
}

const running = new Set<Elect>();

/** For afterEach: nothing of a test outlives it. */
export async function endAll(): Promise<void> {
  const all = [...running];
  for (const elect of all) {
    try {
      elect.kill('SIGCONT');
      elect.kill('SIGKILL');
    } catch {}
  }
  await Promise.all(all.map((elect) => elect.ended));
}

export function elect(args: string[], options?: ConstructorParameters<typeof Elect>[1]): Elect {
  return new Elect(args, options);
}
