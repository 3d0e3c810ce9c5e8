import type { Agenda, Due, Leader } from './agenda.ts';
import { type Backend, Gone, Unusable } from './backend.ts';
import { changeBook } from './book.ts';
import type { Report } from './events.ts';
import { EXIT, Failure } from './outcome.ts';
import { printable } from './text.ts';

/** What a target has seen. Tokens are decimal integers of any size. */
export interface FenceRecord {
  /** The highest token of all that were let through. */
  highest: string;
  /** The fence that was the last to let one through. */
  by: string;
  /** How many were refused. */
  refused: number;
  lastRefused?: { token: string; at: string; by: string };
}

/** Throws Unusable for what is no record of ours: to begin anew would let a straggler through. */
export function parseFence(text: string | undefined, target: string): FenceRecord | undefined {
  if (text === undefined) return undefined;
  try {
    const record = JSON.parse(text) as FenceRecord;
    const isWhole = Number.isSafeInteger(record.refused) && record.refused >= 0 && typeof record.by === 'string';
    if (isWhole && typeof record.highest === 'string' && /^\d+$/.test(record.highest)) return record;
  } catch {}
  throw new Unusable(
    `${target} is damaged, or is not elect-run's: it has to be JSON as fence writes it, and is not begun anew`,
  );
}

/**
 * One run of a command that acts for a leader, if that leader's token is not stale. The lock of the target is an election of its own, so that whoever leads it looks at the
 * record and acts, and nobody else does meanwhile. The record is written before the command starts, also for a token that is the highest already: that write, which the
 * store takes from the holder of the lock only, is the last look before the start.
 */
export class Fenced implements Agenda {
  readonly repeats = false;
  readonly actsFor: string;
  readonly #backend: Backend;
  readonly #requestMs: number;
  readonly #target: string;
  readonly #report: Report;

  constructor(backend: Backend, requestMs: number, target: string, token: bigint, report: Report) {
    this.#backend = backend;
    this.#requestMs = requestMs;
    this.#target = target;
    this.actsFor = String(token);
    this.#report = report;
  }

  async isSettled(): Promise<boolean> {
    return false;
  }

  /** Throws a Failure for a stale token. */
  async next({ place, id }: Leader, signal: AbortSignal): Promise<Due> {
    const token = this.actsFor;
    const at = new Date().toISOString();
    let newer: FenceRecord | undefined;
    let uncounted = '';
    const change = (text: string | undefined): string | undefined => {
      const before = parseFence(text, this.#target);
      newer = before && BigInt(before.highest) > BigInt(token) ? before : undefined;
      if (newer) {
        if (newer.lastRefused?.by === id) return undefined; // our own write, whose answer was lost
        return JSON.stringify({ ...newer, refused: newer.refused + 1, lastRefused: { token, at, by: id } });
      }
      return JSON.stringify({ refused: 0, ...before, highest: token, by: id });
    };
    try {
      await changeBook(this.#backend, this.#requestMs, place, change, this.#report, signal);
    } catch (error) {
      if (!newer || signal.aborted || error instanceof Gone) throw error;
      uncounted = `; it could not be counted: ${(error as Error).message}`;
    }
    if (newer) {
      const seen = `${this.#target} has seen ${newer.highest}, by ${printable(newer.by)}`;
      throw new Failure(EXIT.stale, `stale token ${token}: ${seen}; the command is not run${uncounted}`);
    }
    return { slot: undefined };
  }

  async ended(): Promise<void> {}
}
