import { randomBytes } from 'node:crypto';
import { type Backend, type Place, Refused } from '../backend.ts';
import { type Candidate, openBackend } from '../backends/index.ts';
import type { BackendSpec } from '../backends/spec.ts';
import { within } from '../clock.ts';
import type { Examiner } from './examiner.ts';

/** A candidate of doctor's own. */
export interface Seat {
  backend: Backend;
  place: Place;
  candidate: Candidate;
}

/** In bytes: with what is put behind it, every store can hold a name as long as this. */
const LONGEST = 180;
const PATIENCE_MS = 5000;

/** Next to the given election, not inside of it: in none of the stores does it stand in that one's line. */
export function scratchName(election: string): string {
  const cut = Buffer.from(election)
    .subarray(0, LONGEST)
    .toString()
    .replace(/\ufffd$/, '')
    .replace(/[-./]+$/, '');
  return `${cut}.doctor-${randomBytes(4).toString('hex')}`;
}

/** An election of doctor's own, and all that is in the store for its sake. */
export class Scratch {
  readonly election: string;
  readonly #spec: BackendSpec;
  readonly #examiner: Examiner;
  readonly #requestMs: number;
  readonly #seats = new Set<Seat>();
  #isPrepared = false;

  constructor(election: string, spec: BackendSpec, examiner: Examiner, requestMs: number) {
    this.election = scratchName(election);
    this.#spec = spec;
    this.#examiner = examiner;
    this.#requestMs = requestMs;
  }

  async open(ttlMs: number): Promise<Seat> {
    if (!this.#isPrepared) await this.#examiner.prepare(this.election, within(PATIENCE_MS));
    this.#isPrepared = true;
    const id = `doctor-${process.pid}-${randomBytes(4).toString('hex')}`;
    const candidate = { election: this.election, id, ttlMs, requestMs: this.#requestMs };
    const backend = await openBackend(this.#spec, candidate);
    const seat = { backend, candidate, place: backend.newPlace() };
    this.#seats.add(seat);
    return seat;
  }

  /** As after a crash: it is kept alive no more. */
  async abandon(seat: Seat): Promise<void> {
    await seat.backend[Symbol.asyncDispose]();
    seat.backend = await openBackend(this.#spec, seat.candidate);
    seat.place = { ttlMs: undefined, handle: seat.place.handle };
  }

  async giveBack(seat: Seat): Promise<void> {
    await seat.backend.release(seat.place, within(PATIENCE_MS));
    await seat.backend[Symbol.asyncDispose]();
    this.#seats.delete(seat);
  }

  /** Nothing of it is in the store any more when this resolves. Rejects with what could not be removed, and why. */
  async remove(): Promise<void> {
    const problems: Error[] = [];
    const note = (error: Error) => {
      if (!(error instanceof Refused)) problems.push(error); // then there is nothing of ours, either
    };
    for (const seat of this.#seats) await this.giveBack(seat).catch(note);
    if (this.#isPrepared) await this.#examiner.sweep(this.election, within(PATIENCE_MS)).catch(note);
    if (problems.length > 0) throw new Error(problems.map(({ message }) => message).join('; '));
  }
}
