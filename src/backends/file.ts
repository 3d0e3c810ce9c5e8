import { closeSync, constants, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Backend, Book, Gone, Leading, Observation, Waiting } from '../backend.ts';
import { type FilePlace, LockFile } from './file/lock.ts';
import { isSeenLocked } from './file/seen.ts';
import type { FileSpec } from './file/spec.ts';
import { TokenFile } from './file/token.ts';
import { trouble } from './file/trouble.ts';
import { WordFile } from './file/word.ts';
import type { Candidate } from './index.ts';

/**
 * One host, no server: flock(2) on `DIR/NAME.lock`, the same lock that util-linux `flock DIR/NAME.lock` takes. The kernel frees it when the
 * last process that has it open is gone, so nothing runs out and there is nothing to renew; the child inherits the open file, the guard holds it
 * (custody.ts), and while anything of the tree lives nobody else can lead.
 */
export class FileBackend implements Backend {
  readonly url: string;
  readonly #lockFile: string;
  readonly #token: TokenFile;
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
    this.#lock = new LockFile(this.#lockFile, () => this.#open(this.#lockFile));
    const tokenFile = join(spec.dir, `${candidate.election}.token`);
    this.#token = new TokenFile(tokenFile, (flags) => this.#open(tokenFile, flags));
    this.#bookFile = join(spec.dir, `${candidate.election}.runs`);
    this.#wordFile = join(spec.dir, `${candidate.election}.word`);
    this.#word = new WordFile(this.#wordFile);
  }

  newPlace(): FilePlace {
    return this.#lock.newPlace();
  }

  async acquire(place: FilePlace, _signal: AbortSignal): Promise<Leading | Waiting> {
    if (this.#lock.tryLock(place)) return { leads: true };
    const { leader, since } = this.#token.look();
    return { leads: false, position: undefined, leader, since };
  }

  async vacancy(place: FilePlace, _waiting: Waiting, signal: AbortSignal): Promise<void> {
    await this.#lock.vacancy(place, signal);
  }

  async confirm(place: FilePlace, _signal: AbortSignal): Promise<bigint> {
    this.#lock.mustBeOurs(place);
    return this.#token.next(this.#candidate.id);
  }

  async renew(place: FilePlace, _signal: AbortSignal): Promise<number> {
    this.#lock.mustBeOurs(place);
    return Number.POSITIVE_INFINITY;
  }

  gone(place: FilePlace, signal: AbortSignal): Promise<Gone> {
    return this.#lock.gone(place, signal);
  }

  async release(place: FilePlace, _signal: AbortSignal): Promise<void> {
    this.#token.letGo();
    this.#lock.release(place);
  }

  async observe(_signal: AbortSignal): Promise<Observation> {
    const isLocked = isSeenLocked(this.#lockFile);
    const { leader, since, token, isLed } = this.#token.look();
    if (!isLocked && !isLed) return { leader: undefined, waiting: undefined };
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
