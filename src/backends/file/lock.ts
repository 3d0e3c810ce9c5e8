import { closeSync, fstatSync, statSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { Gone, type Place } from '../../backend.ts';
import { pause } from '../../clock.ts';
import { findSetpriv, lookUpCommand } from '../../lookup.ts';
import { tryLock } from '../../native.ts';
import { NOTHING, spawnProgram, tethered } from '../../spawn.ts';
import { printable } from '../../text.ts';
import { trySignal } from '../../tree.ts';

/** Nothing of it runs out. The child inherits the open file, and with it the lock. */
export interface FilePlace extends Place {
  inheritFd: number | undefined;
}

/** flock(2) on a file that may be deleted or replaced by anybody: what is held then is a lock on nothing. */
export class LockFile {
  readonly #file: string;
  readonly #open: () => number;

  constructor(file: string, open: () => number) {
    this.#file = file;
    this.#open = open;
  }

  newPlace(): FilePlace {
    return { ttlMs: undefined, handle: undefined, inheritFd: undefined };
  }

  /** Without waiting. */
  tryLock(place: FilePlace): boolean {
    for (;;) {
      place.inheritFd ??= this.#open();
      const fd = place.inheritFd;
      if (!tryLock(fd)) return false;
      if (isSameFile(fd, this.#file)) return true;
      // It was deleted while we waited for it.
      this.release(place);
    }
  }

  /** Waits as flock(1) does, on our own open file: its lock is ours the moment that it ends. Without flock(1), looks ten times a second. */
  async vacancy(place: FilePlace, signal: AbortSignal): Promise<void> {
    let helper: ReturnType<typeof spawnProgram>;
    try {
      const flock = [lookUpCommand('flock'), '3'];
      const setpriv = findSetpriv();
      // Nobody is left to end it when we are killed, and it would wait on.
      const argv = setpriv === undefined ? flock : tethered(setpriv, flock);
      const fds = [place.inheritFd!];
      helper = spawnProgram({ file: argv[0]!, argv, env: process.env, ownSession: true, stdio: NOTHING, fds });
    } catch {
      return pause(100, signal);
    }
    const stop = () => trySignal(helper.pid, 'SIGKILL');
    signal.addEventListener('abort', stop);
    if (signal.aborted) stop();
    await helper.ended;
    signal.removeEventListener('abort', stop);
  }

  /** Throws Gone. */
  mustBeOurs(place: FilePlace): void {
    if (place.inheritFd === undefined || !isSameFile(place.inheritFd, this.#file))
      throw new Gone(`${printable(this.#file)} was deleted or replaced`);
  }

  gone(place: FilePlace, signal: AbortSignal): Promise<Gone> {
    return new Promise((resolve) => {
      const look = () => {
        try {
          this.mustBeOurs(place);
        } catch (error) {
          if (error instanceof Gone) resolve(error); // anything else proves nothing
        }
      };
      // There is something else to be waited for by then: it takes 0.5 ms.
      setImmediate(() => {
        if (signal.aborted) return;
        try {
          watch(dirname(this.#file), { signal, persistent: false }, look).on('error', () => {}); // renewals look as well
        } catch {}
        look(); // it may have gone meanwhile
      });
    });
  }

  release(place: FilePlace): void {
    if (place.inheritFd === undefined) return; // killed: the kernel has freed the lock
    closeSync(place.inheritFd);
    place.inheritFd = undefined;
  }
}

function isSameFile(fd: number, file: string): boolean {
  const ours = fstatSync(fd);
  const theirs = statSync(file, { throwIfNoEntry: false });
  return theirs !== undefined && ours.ino === theirs.ino && ours.dev === theirs.dev;
}
