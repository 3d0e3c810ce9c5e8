import { existsSync, rmdirSync, rmSync, statfsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Examiner } from '../../doctor/examiner.ts';
import { lookUpCommand } from '../../lookup.ts';
import type { FileSpec } from './spec.ts';

export interface FileHealth {
  kind: 'file';
  dir: string;
  /** Whether it is there already; it is made when it is needed. */
  isThere: boolean;
  /** Of the directory, or of the one in which it will be made: the number in statfs(2). */
  fileSystem: number;
  freeBytes: number;
  hasFlock: boolean;
}

/** Of an election's files, all that there can be. */
const ENDINGS = ['.lock', '.token', '.runs', '.runs.new'];

export class FileExaminer implements Examiner {
  readonly #dir: string;
  /** Directories that are not there yet, the innermost first. */
  #missing: string[] = [];

  constructor(spec: FileSpec) {
    this.#dir = spec.dir;
  }

  async health(): Promise<FileHealth> {
    const [outermost] = this.#whatIsMissing().slice(-1);
    const { type, bavail, bsize } = statfsSync(outermost === undefined ? this.#dir : dirname(outermost));
    return {
      kind: 'file',
      dir: this.#dir,
      isThere: existsSync(this.#dir),
      fileSystem: type,
      freeBytes: bavail * bsize,
      hasFlock: hasProgram('flock'),
    };
  }

  async enter(): Promise<false> {
    return false;
  }

  async prepare(): Promise<void> {
    this.#missing = this.#whatIsMissing();
  }

  async sweep(election: string): Promise<void> {
    for (const ending of ENDINGS) rmSync(join(this.#dir, election + ending), { force: true });
    for (const dir of this.#missing) {
      try {
        rmdirSync(dir);
      } catch {
        return; // somebody has put something into it, or it was not made
      }
    }
  }

  async close(): Promise<void> {}

  #whatIsMissing(): string[] {
    const missing: string[] = [];
    for (let dir = this.#dir; !existsSync(dir); dir = dirname(dir)) missing.push(dir);
    return missing;
  }
}

function hasProgram(name: string): boolean {
  try {
    lookUpCommand(name);
    return true;
  } catch {
    return false;
  }
}
