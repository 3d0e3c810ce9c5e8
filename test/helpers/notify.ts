import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { onTestFinished } from 'vitest';
import { isStopped, until } from './procs.ts';
import { scratch } from './scratch.ts';

export interface Notification {
  lines: string[];
  /** Of the sender, as the kernel tells it. */
  pid: number;
  /** performance.now() when it was read */
  readAt: number;
}

const LISTENER = `
import json, socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind(sys.argv[1].replace('@', '\\0', 1))
print('ready', flush=True)
while True:
    data, control, _, _ = s.recvmsg(65536, 64)
    pid = struct.unpack('iII', control[0][2])[0]
    print(json.dumps({'lines': data.decode().split('\\n'), 'pid': pid}), flush=True)
`;

/** The service manager's end of NOTIFY_SOCKET: a real AF_UNIX datagram socket, with what came in on it to wait for. */
export class NotifySocket {
  readonly path: string;
  readonly received: Notification[] = [];
  readonly #process: ChildProcess;
  readonly #isListening: Promise<unknown>;

  private constructor(path: string) {
    this.path = path;
    this.#process = spawn('python3', ['-c', LISTENER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    onTestFinished(() => void this.#process.kill('SIGKILL'));
    const lines = createInterface({ input: this.#process.stdout! });
    this.#isListening = once(lines, 'line').then(() =>
      lines.on('line', (line) => this.received.push({ ...JSON.parse(line), readAt: performance.now() })),
    );
  }

  static async open(path = join(scratch(), 'notify')): Promise<NotifySocket> {
    const socket = new NotifySocket(path);
    await socket.#isListening;
    return socket;
  }

  get env(): NodeJS.ProcessEnv {
    return { NOTIFY_SOCKET: this.path };
  }

  /** All lines so far, in their order. */
  get lines(): string[] {
    return this.received.flatMap(({ lines }) => lines);
  }

  count(line: string): number {
    return this.lines.filter((other) => other === line).length;
  }

  /** Until a line has come that is this one, or fits. */
  hears(line: string | RegExp): Promise<Notification> {
    const fits = (other: string) => (typeof line === 'string' ? other === line : line.test(other));
    return until(() => this.received.find(({ lines }) => lines.some(fits)), '').catch(() => {
      throw new Error(`${line} is not among ${JSON.stringify(this.lines, null, 1)}`);
    });
  }

  /** Until it has heard all that was sent by now. */
  async hearsAll(): Promise<void> {
    const mark = `MARK=${this.received.length}`;
    const send = `import socket, sys; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), sys.argv[2])`;
    await promisify(execFile)('python3', ['-c', send, mark, this.path]);
    await this.hears(mark);
  }

  /** It stays open and takes nothing: what is sent waits in its queue, until that is full. */
  async freeze(): Promise<void> {
    this.#process.kill('SIGSTOP');
    await until(() => isStopped(this.#process.pid!), 'the listener is stopped');
  }

  thaw(): void {
    this.#process.kill('SIGCONT');
  }

  async close(): Promise<void> {
    const closed = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await closed;
  }
}
