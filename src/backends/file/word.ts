import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** A word is forgotten after this, and a draft of one is nobody's. */
const WORD_MS = 60_000;
/** What follows the word's name in a draft's, which is its own for every process, also where several containers share the directory. */
const DRAFT = /^\.\d+-\d+\.new$/;

/** What `elect-run resign` leaves for the leader. Several may ask at once: the last word counts, and each is whole. */
export class WordFile {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  /** Undefined: takes it back. */
  leave(word: string | undefined): void {
    if (word === undefined) rmSync(this.#file, { force: true });
    else this.#replace(word);
    this.#sweep();
  }

  read(): string | undefined {
    const left = statSync(this.#file, { throwIfNoEntry: false });
    return left && !isOld(left) ? readFileSync(this.#file, 'utf8') : undefined;
  }

  /** Not synced: nobody waits for it when the machine has gone down. */
  #replace(word: string): void {
    const draft = `${this.#file}.${process.pid}-${process.hrtime.bigint()}.new`;
    try {
      writeFileSync(draft, word, { flag: 'wx' });
      renameSync(draft, this.#file);
    } finally {
      rmSync(draft, { force: true });
    }
  }

  /** Drafts of those that were killed while they wrote. */
  #sweep(): void {
    const [dir, name] = [dirname(this.#file), basename(this.#file)];
    try {
      for (const other of readdirSync(dir)) {
        if (!other.startsWith(name) || !DRAFT.test(other.slice(name.length))) continue;
        const draft = join(dir, other);
        if (isOld(statSync(draft))) rmSync(draft);
      }
    } catch {} // it is gone, or another user's
  }
}

const isOld = ({ mtimeMs }: { mtimeMs: number }): boolean => Date.now() - mtimeMs > WORD_MS;
