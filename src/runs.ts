import { type Backend, type Place, Unusable } from './backend.ts';
import { changeBook } from './book.ts';
import { within } from './clock.ts';
import type { Report } from './events.ts';

/** One start of the job for a slot. Without an end it was cut off, or is still under way. */
export interface Run {
  /** RFC 3339, as every time here; times other than the slot are by the runner's clock. */
  slot: string;
  holder: string;
  token: string;
  startedAt: string;
  endedAt?: string;
  /** As in `$?`. */
  status?: number;
}

/** What an election has run, the newest first. */
export interface RunBook {
  /** When the first leader of all came: what was scheduled before was not missed. */
  since?: string;
  runs: Run[];
}

/** What happens to a slot whose run has not succeeded: `crash` runs it again where it was cut off, `failure` also where its status was not 0. */
export const RERUNS = ['never', 'crash', 'failure'] as const;
export type Rerun = (typeof RERUNS)[number];

/** Has this run settled its slot, so that nobody has to run it again? */
export function isSettled(run: Run, rerun: Rerun): boolean {
  if (rerun === 'never') return true;
  if (run.endedAt === undefined) return false;
  return rerun === 'crash' || run.status === 0;
}

/** So many are kept, re-runs included. */
const MOST_RUNS = 50;

/** The run records of an election, in its store. Each call tries again until it is answered or aborted. */
export class Runs {
  readonly #backend: Backend;
  readonly #requestMs: number;
  readonly #report: Report;

  constructor(backend: Backend, requestMs: number, report: Report) {
    this.#backend = backend;
    this.#requestMs = requestMs;
    this.#report = report;
  }

  /** One attempt. */
  async look(signal: AbortSignal): Promise<RunBook> {
    return parseRuns((await this.#backend.readBook(within(this.#requestMs, signal)))?.text);
  }

  /**
   * Writes what `change` makes of the book, as the leader; it is asked again with what is there when somebody else has written meanwhile. Undefined:
   * nothing is written. Throws Gone when this place does not lead any more.
   */
  async change(place: Place, change: (book: RunBook) => RunBook | undefined, signal: AbortSignal): Promise<void> {
    const edit = (text: string | undefined) => {
      const book = change(parseRuns(text));
      return book && JSON.stringify({ ...book, runs: book.runs.slice(0, MOST_RUNS) });
    };
    await changeBook(this.#backend, this.#requestMs, place, edit, this.#report, signal);
  }
}

/** Throws Unusable for what is no book of ours: to begin anew could run a slot twice. */
export function parseRuns(text: string | undefined): RunBook {
  if (text === undefined) return { runs: [] };
  try {
    const book = JSON.parse(text);
    if (isBook(book)) return book;
  } catch {}
  throw new Unusable(
    '--name: the run record of this election in the store is damaged; it has to be JSON as elect-run writes it',
  );
}

type Fields<T> = { [field in keyof T]?: unknown };

const isTime = (value: unknown): boolean => typeof value === 'string' && !Number.isNaN(Date.parse(value));

function isBook({ since, runs }: Fields<RunBook>): boolean {
  return (since === undefined || isTime(since)) && Array.isArray(runs) && runs.every(isRun);
}

function isRun({ slot, holder, token, startedAt, endedAt, status }: Fields<Run>): boolean {
  const isEnd = endedAt === undefined ? status === undefined : isTime(endedAt) && typeof status === 'number';
  return isTime(slot) && typeof holder === 'string' && typeof token === 'string' && isTime(startedAt) && isEnd;
}
