import {
  closeSync,
  constants,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  type Stats,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { Backend, Book, Gone, Leading, Observation, Waiting } from '../backend.ts';
import { isAlive, readProc } from '../proc.ts';
import { printable } from '../text.ts';
import { type FilePlace, LockFile } from './file/lock.ts';
import type { FileSpec } from './file/spec.ts';
import { troubleWith } from './file/trouble.ts';
import { WordFile } from './file/word.ts';
import type { Candidate } from './index.ts';

/**
 * One host, no server: flock(2) on `DIR/NAME.lock`, the same lock that util-linux `flock DIR/NAME.lock` takes. The kernel frees it when the
 * last process that has it open is gone, so nothing runs out and there is nothing to renew; the child inherits the open file, and
 * while anything of its tree lives nobody else can lead.
 *
 * `DIR/NAME.token` holds the fencing counter and who leads. It has one size for ever and is overwritten in place, so
 * that a full disk cannot keep a token from being handed out.
 */
export class FileBackend implements Backend {
  readonly url: string;
  readonly #lockFile: string;
  readonly #tokenFile: string;
  readonly #bookFile: string;
  readonly #wordFile: string;
  readonly #word: WordFile;
  readonly #dir: string;
  readonly #lock: LockFile;
  readonly #candidate: Candidate;

  constructor(spec: FileSpec, candidate: Candidate) {
    this.url = `file:${spec.dir}`;
    this.#dir = spec.dir;
    this.#candidate = candidate;
    this.#lockFile = join(spec.dir, `${candidate.election}.lock`);
    this.#tokenFile = join(spec.dir, `${candidate.election}.token`);
    this.#bookFile = join(spec.dir, `${candidate.election}.runs`);
    this.#wordFile = join(spec.dir, `${candidate.election}.word`);
    this.#word = new WordFile(this.#wordFile);
    this.#lock = new LockFile(this.#lockFile, () => this.#open(this.#lockFile));
  }

  newPlace(): FilePlace {
    return this.#lock.newPlace();
  }

  async acquire(place: FilePlace, _signal: AbortSignal): Promise<Leading | Waiting> {
    if (this.#lock.tryLock(place)) return { leads: true };
    const { leader, since } = this.#holder();
    return { leads: false, position: undefined, leader, since };
  }

  async vacancy(place: FilePlace, _waiting: Waiting, signal: AbortSignal): Promise<void> {
    await this.#lock.vacancy(place, signal);
  }

  async confirm(place: FilePlace, _signal: AbortSignal): Promise<bigint> {
    this.#lock.mustBeOurs(place);
    const fd = this.#open(this.#tokenFile);
    try {
      const token = this.#read(fd).token + 1n;
      const { id } = this.#candidate;
      const { pid, startedAt } = readProc(process.pid)!;
      writeRecord(fd, { token, holder: { id, since: new Date().toISOString(), pid, startedAt } });
      fdatasyncSync(fd);
      return token;
    } finally {
      closeSync(fd);
    }
  }

  async renew(place: FilePlace, _signal: AbortSignal): Promise<number> {
    this.#lock.mustBeOurs(place);
    return Number.POSITIVE_INFINITY;
  }

  gone(place: FilePlace, signal: AbortSignal): Promise<Gone> {
    return this.#lock.gone(place, signal);
  }

  async release(place: FilePlace, _signal: AbortSignal): Promise<void> {
    this.#lock.release(place);
  }

  async observe(_signal: AbortSignal): Promise<Observation> {
    const file = statSync(this.#lockFile, { throwIfNoEntry: false });
    if (!file || !isLocked(file)) return { leader: undefined, waiting: undefined };
    const { leader, since, token } = this.#holder();
    return { leader: { id: leader, token, since, leftMs: undefined }, waiting: undefined };
  }

  async leaveWord(word: string | undefined, _signal: AbortSignal): Promise<void> {
    try {
      this.#word.leave(word);
    } catch (error) {
      throw cannotWrite(this.#wordFile, error);
    }
  }

  async readWord(_place: FilePlace, _signal: AbortSignal): Promise<string | undefined> {
    return ifThere(this.#wordFile, () => this.#word.read());
  }

  async readBook(_signal: AbortSignal): Promise<Book | undefined> {
    const text = ifThere(this.#bookFile, () => readFileSync(this.#bookFile, 'utf8'));
    return text === undefined ? undefined : { text, edition: text };
  }

  /** Under the lock nobody else writes. */
  async writeBook(place: FilePlace, text: string, _before: Book | undefined, _signal: AbortSignal): Promise<void> {
    this.#lock.mustBeOurs(place);
    try {
      writeWhole(this.#bookFile, text);
    } catch (error) {
      throw cannotWrite(this.#bookFile, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #open(file: string, flags = constants.O_RDWR | constants.O_CREAT): number {
    try {
      return this.#openIn(this.#dir, file, flags);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const problem = `cannot ${flags === constants.O_RDONLY ? 'read' : 'write'} ${file}: ${code}`;
      throw trouble(error, problem, '; name a directory that you can write (file:DIR)');
    }
  }

  #openIn(dir: string, file: string, flags: number): number {
    try {
      return openSync(file, flags, 0o666);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      makeDirectory(dir);
      return openSync(file, flags, 0o666);
    }
  }

  #read(fd: number): TokenRecord {
    try {
      return readRecord(fd);
    } catch (error) {
      throw trouble(error, `${this.#tokenFile} ${(error as Error).message}`);
    }
  }

  /** Also for whoever may only read. */
  #holder(): { leader: string | undefined; since: string | undefined; token: string | undefined } {
    if (!existsSync(this.#tokenFile)) return { leader: undefined, since: undefined, token: undefined };
    const fd = this.#open(this.#tokenFile, constants.O_RDONLY);
    try {
      const { holder, token } = this.#read(fd);
      // Whoever crashed is still on record while flock(1) has the lock.
      return holder && isAlive(holder)
        ? { leader: holder.id, since: holder.since, token: String(token) }
        : { leader: undefined, since: undefined, token: undefined };
    } finally {
      closeSync(fd);
    }
  }
}

/**
 * Others may be making it, or a folder on the way to it, at the same time. Not with `recursive`: Node 20's mkdir loops for ever where a parent exists and yet nothing
 * can be made in it, as in /proc.
 */
function makeDirectory(dir: string): void {
  if (isMade(dir)) return;
  makeDirectory(dirname(dir));
  if (!isMade(dir)) throw Object.assign(new Error(), { code: 'ENOENT' });
}

/** Whether it is there now; not when the one around it is missing. */
function isMade(dir: string): boolean {
  try {
    mkdirSync(dir);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return false;
    if (code === 'EEXIST') return true;
    throw error;
  }
}

function ifThere<T>(file: string, read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw trouble(error, `cannot read ${file}: ${code}`);
  }
}

const trouble = (error: unknown, problem: string, advice = ''): Error =>
  troubleWith(error, problem, `--backend file: ${problem}${advice}`);

const cannotWrite = (file: string, error: unknown): Error =>
  trouble(error, `cannot write ${file}: ${(error as NodeJS.ErrnoException).code}`);

/** A new file takes the old one's place, so that a full disk or a crash leaves the old one whole. */
function writeWhole(file: string, text: string): void {
  const draft = `${file}.new`;
  const fd = openSync(draft, 'w', 0o666);
  try {
    writeFileSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(draft, file);
  // Or the name may lead to the old one after a power failure (fsync(2)).
  const folder = openSync(dirname(file), 'r');
  fsyncSync(folder);
  closeSync(folder);
}

/** Without a try of our own, which could make somebody else's fail. /proc/locks names a file by device and inode (proc_locks(5)). */
function isLocked({ dev, ino }: Stats): boolean {
  const major = (dev >> 8) & 0xfff;
  const minor = (dev & 0xff) | ((dev >> 12) & 0xfff00);
  const hex = (number: number) => number.toString(16).padStart(2, '0');
  const name = `${hex(major)}:${hex(minor)}:${ino}`;
  return readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .some((line) => /: FLOCK /.test(line) && !line.includes('->') && line.split(/\s+/).includes(name));
}

interface TokenRecord {
  token: bigint;
  holder: { id: string; since: string; pid: number; startedAt: string } | undefined;
}

/** One sector: written whole or not at all. */
const RECORD_BYTES = 512;

/** Line one is the last token, line two the holder as JSON, then spaces. Throws when there is something else: a counter that started again would be worse. */
function readRecord(fd: number): TokenRecord {
  const buffer = Buffer.alloc(RECORD_BYTES);
  const text = buffer.toString('utf8', 0, readSync(fd, buffer, 0, RECORD_BYTES, 0));
  if (text === '') return { token: 0n, holder: undefined };
  const [token, holder] = text.split('\n');
  if (!/^\d+$/.test(token!)) throw new Error(`does not begin with a number: "${printable(token!.slice(0, 40))}"`);
  try {
    return { token: BigInt(token!), holder: holder?.trim() ? JSON.parse(holder) : undefined };
  } catch {
    return { token: BigInt(token!), holder: undefined };
  }
}

function writeRecord(fd: number, { token, holder }: TokenRecord): void {
  const text = `${token}\n${JSON.stringify(holder)}\n`;
  const buffer = Buffer.alloc(RECORD_BYTES, ' ');
  buffer.write(text);
  writeSync(fd, buffer, 0, RECORD_BYTES, 0);
}
