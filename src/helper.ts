import { closeSync, readSync, writeSync } from 'node:fs';
import { onReadable, socketPair } from './native.ts';
import { spawnProgram } from './spawn.ts';

const TRY_AGAIN_MS = 10;
const MOST_BYTES = 4096;

export interface HelperOptions {
  /** A session of its own. */
  ownSession: boolean;
  /** A descriptor of ours, or nothing. */
  stderr: 2 | undefined;
  /** What it inherits beside them. */
  fds?: number[];
  /** Each line of its stdout, as soon as it is whole. */
  heard(line: string): void;
}

/**
 * A process of ours, in `/`, that is spoken to and answers by lines. Node's own way to one takes 3 ms for a fork(2) that copies our page tables, and as much again for the modules that it loads.
 */
export class Helper {
  readonly pid: number;
  /** Resolves with the status of wait(2). */
  readonly ended: Promise<number>;
  readonly #stdin: number;
  readonly #stdout: number;
  readonly #stopReading: () => void;
  readonly #heard: (line: string) => void;
  #isOver = false;
  #begun = '';
  /** What it could not be told yet, since it does not read. */
  #backlog: Buffer[] = [];
  #tryAgain: NodeJS.Timeout | undefined;

  /** Throws when it cannot be started. */
  constructor(argv: [string, ...string[]], { ownSession, stderr, fds = [], heard }: HelperOptions) {
    // One for each direction: where both are the same socket, Node's stdout now and then takes what was meant for its stdin.
    const stdin = socketPair();
    const stdout = socketPair();
    try {
      const { pid, ended } = spawnProgram({
        file: argv[0],
        argv,
        env: process.env,
        ownSession,
        stdio: [stdin.theirs, stdout.theirs, stderr],
        fds,
        directory: '/',
      });
      this.pid = pid;
      this.ended = ended;
    } catch (error) {
      closeSync(stdin.ours);
      closeSync(stdout.ours);
      throw error;
    } finally {
      closeSync(stdin.theirs);
      closeSync(stdout.theirs);
    }
    this.#stdin = stdin.ours;
    this.#stdout = stdout.ours;
    this.#heard = heard;
    this.#stopReading = onReadable(stdout.ours, () => this.hear());
    this.ended.then(() => {
      this.hear();
      this.end();
    });
  }

  /** Never waits, whether it reads or not, and never fails: its death is told by `ended`. */
  tell(line: string): void {
    if (this.#isOver) return;
    this.#backlog.push(Buffer.from(`${line}\n`));
    this.#flush();
  }

  /** It hears the end of its stdin. Nothing of it is heard any more. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#tryAgain);
    this.#stopReading();
    closeSync(this.#stdin);
    closeSync(this.#stdout);
  }

  #flush(): void {
    clearTimeout(this.#tryAgain);
    try {
      for (let [first] = this.#backlog; first; [first] = this.#backlog) {
        const written = writeSync(this.#stdin, first);
        if (written < first.length) this.#backlog[0] = first.subarray(written);
        else this.#backlog.shift();
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') {
        this.#backlog = []; // it is dead
        return;
      }
      this.#tryAgain = setTimeout(() => this.#flush(), TRY_AGAIN_MS);
      this.#tryAgain.unref();
    }
  }

  /** At once what it has said by now, which after a stall of ours nobody may have read yet. */
  hear(): void {
    if (this.#isOver) return;
    const buffer = Buffer.alloc(MOST_BYTES);
    let length: number;
    try {
      length = readSync(this.#stdout, buffer);
    } catch {
      return; // there is nothing
    }
    if (length === 0) this.#stopReading();
    const lines = (this.#begun + buffer.toString('latin1', 0, length)).split('\n');
    this.#begun = lines.pop()!;
    for (const line of lines) this.#heard(line);
  }
}
