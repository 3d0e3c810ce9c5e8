import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readFileSync, rmSync } from 'node:fs';
import { isStopped, until } from './procs.ts';

/** Where a server runs: its address, and what is put before a command that is to run there. */
export interface Host {
  address: string;
  prefix: string[];
}

const HERE: Host = { address: '127.0.0.1', prefix: [] };

/** Of the n-th server; none given: all of them run here. */
export const hostOf = (hosts: Host[] | undefined, index: number): Host => hosts?.[index % hosts.length] ?? HERE;

/** One real server process, from any package. It dies with the test process that started it. */
export class Server {
  readonly name: string;
  readonly #command: string[];
  readonly #log: string;
  #process: ChildProcess | undefined;

  constructor(name: string, command: string[], log: string) {
    this.name = name;
    this.#command = command;
    this.#log = log;
    this.start();
  }

  get pid(): number {
    return this.#process!.pid!;
  }

  get isRunning(): boolean {
    return this.#process?.exitCode === null && this.#process.signalCode === null;
  }

  get log(): string {
    return readFileSync(this.#log, 'utf8');
  }

  start(): void {
    const log = createWriteStream(this.#log, { flags: 'a' });
    // A session of its own, so that Ctrl-C in a test runner does not reach it first.
    this.#process = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...this.#command], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#process.stdout!.pipe(log);
    this.#process.stderr!.pipe(log);
  }

  /** It keeps its connections and answers nobody. */
  async freeze(): Promise<void> {
    process.kill(this.pid, 'SIGSTOP');
    await until(() => isStopped(this.pid), `${this.name} is frozen`);
  }

  thaw(): void {
    if (this.isRunning) process.kill(this.pid, 'SIGCONT');
  }

  async kill(): Promise<void> {
    if (!this.isRunning) return;
    const ended = once(this.#process!, 'exit');
    process.kill(this.pid, 'SIGKILL');
    await ended;
  }
}

/** A store of one or more servers, with a folder of its own. */
export interface Servers {
  readonly folder: string;
  stop(): Promise<void>;
}

const running = new Set<Servers>();

export const started = (servers: Servers): void => void running.add(servers);

/** Its servers have ended already. */
export function stopped(servers: Servers): void {
  rmSync(servers.folder, { recursive: true, force: true });
  running.delete(servers);
}

/** For afterAll. */
export async function stopServers(): Promise<void> {
  await Promise.all([...running].map((servers) => servers.stop()));
}

process.on('exit', () => {
  for (const { folder } of running) rmSync(folder, { recursive: true, force: true });
});
