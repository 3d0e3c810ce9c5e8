import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import {
  type Backend,
  type Book,
  type Gone,
  type Leading,
  type Observation,
  Unusable,
  type Waiting,
} from '../../backend.ts';
import { printable } from '../../text.ts';
import { type FilePlace, LockFile } from './lock.ts';
import { troubleWith } from './trouble.ts';

/** A block of most file systems. What fence writes is within the first sector, which is written whole or not at all, unless tokens have hundreds of digits. */
const RECORD_BYTES = 4096;

/**
 * A file as the target of a fence: the lock is flock(2) on the file itself, and the record stands in it. It has one size for ever and is overwritten in place, so that a full
 * disk leaves it whole. Neither it nor its folder is ever replaced by a new one: where a shared file system is not mounted there has to be an error, not a fence that has seen nothing.
 */
export class FenceFile implements Backend {
  readonly url: string;
  readonly #file: string;
  readonly #shown: string;
  readonly #lock: LockFile;

  constructor(file: string) {
    this.#file = file;
    this.#shown = printable(file);
    this.url = `file:${this.#shown}`;
    this.#lock = new LockFile(file, () => this.#open());
  }

  newPlace(): FilePlace {
    return this.#lock.newPlace();
  }

  async acquire(place: FilePlace, _signal: AbortSignal): Promise<Leading | Waiting> {
    if (this.#lock.tryLock(place)) return { leads: true };
    return { leads: false, leader: undefined, since: undefined, position: undefined };
  }

  async vacancy(place: FilePlace, _waiting: Waiting, signal: AbortSignal): Promise<void> {
    await this.#lock.vacancy(place, signal);
  }

  /** No token of its own: the child gets that of the leader for whom it acts. */
  async confirm(place: FilePlace, _signal: AbortSignal): Promise<bigint> {
    this.#lock.mustBeOurs(place);
    return 0n;
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

  /** A kernel lock does not tell whose it is. */
  async observe(_signal: AbortSignal): Promise<Observation> {
    return { leader: undefined, waiting: undefined };
  }

  /** Whoever holds a kernel lock is asked by a signal. */
  async leaveWord(_word: string | undefined, _signal: AbortSignal): Promise<void> {
    throw new Unusable(`${this.#shown}: nobody can be asked to give it back`);
  }

  async readWord(_place: FilePlace, _signal: AbortSignal): Promise<string | undefined> {
    return undefined;
  }

  /** An empty file has seen nothing: it was made by touch(1), or nobody got as far as the first record. */
  async readBook(_signal: AbortSignal): Promise<Book | undefined> {
    try {
      const text = readStart(this.#file);
      return text === '' ? undefined : { text, edition: text };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return undefined;
      throw this.#trouble(error, `cannot be read: ${code}`);
    }
  }

  async writeBook(place: FilePlace, text: string, before: Book | undefined, _signal: AbortSignal): Promise<void> {
    this.#lock.mustBeOurs(place);
    const fd = place.inheritFd!;
    const record = Buffer.alloc(RECORD_BYTES, ' ');
    record.write(text);
    record.write('\n', RECORD_BYTES - 1);
    try {
      // What could be written in part only is told why with the rest.
      for (let at = 0; at < RECORD_BYTES; ) at += writeSync(fd, record, at, RECORD_BYTES - at, at);
      fsyncSync(fd);
      if (!before) syncFolder(dirname(this.#file));
    } catch (error) {
      if (!before) ftruncateSync(fd, 0);
      throw this.#trouble(error, `cannot be written: ${(error as NodeJS.ErrnoException).code}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #open(): number {
    try {
      const fd = openSync(this.#file, constants.O_RDWR | constants.O_CREAT, 0o666);
      if (fstatSync(fd).isFile()) return fd;
      closeSync(fd);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      const reason = code === 'ENOENT' ? `there is no folder ${dirname(this.#shown)}` : code;
      throw this.#trouble(error, `cannot be written: ${reason}`);
    }
    throw new Unusable(`${this.#shown} is not a file`);
  }

  #trouble(error: unknown, problem: string): Error {
    return troubleWith(error, `${this.#shown} ${problem}`);
  }
}

/** Not more than can be ours: it may be another file, of any size. */
function readStart(file: string): string {
  const fd = openSync(file, constants.O_RDONLY);
  try {
    const buffer = Buffer.alloc(RECORD_BYTES);
    return buffer.toString('utf8', 0, readSync(fd, buffer, 0, RECORD_BYTES, 0));
  } finally {
    closeSync(fd);
  }
}

/** So that a new file is still there after a power cut (fsync(2)). */
function syncFolder(folder: string): void {
  const fd = openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
