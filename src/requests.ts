import type { Leader } from './agenda.ts';
import type { Backend, Place } from './backend.ts';
import { within } from './clock.ts';
import { printable } from './text.ts';

/** What `elect-run resign` leaves in the store for a leader. */
export interface Request {
  /** The leader that it is meant for, and its term. */
  id: string;
  token: string;
  /** Who asks. */
  by: string;
  /** Who shall lead next: an identity, or its label. */
  to?: string;
}

/** Is this who was asked for? */
export const isMeant = (id: string, to: string): boolean => id === to || id.startsWith(`${to}-`);

/** The word that asks for another than us to lead next, if there is one. */
export async function wordForAnother(
  backend: Backend,
  place: Place,
  id: string,
  requestMs: number,
): Promise<string | undefined> {
  try {
    const word = await backend.readWord(place, within(requestMs));
    const { to } = JSON.parse(word ?? '{}') as Partial<Request>;
    return to === undefined || isMeant(id, to) ? undefined : word;
  } catch {
    return undefined; // no right to read it, not JSON, or no answer
  }
}

/** Of one term. */
export class Requests {
  /** Resolves with who asks us to step down. */
  readonly stepDown: Promise<string>;
  readonly #backend: Backend;
  readonly #leader: Leader;
  readonly #requestMs: number;
  #isLooking = false;
  #say!: (by: string) => void;

  constructor(backend: Backend, leader: Leader, requestMs: number) {
    this.#backend = backend;
    this.#leader = leader;
    this.#requestMs = requestMs;
    this.stepDown = new Promise((resolve) => {
      this.#say = resolve;
    });
  }

  /** One look, unless one is under way. What goes wrong is of no account: there will be another. */
  async look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    const { place, id, token } = this.#leader;
    try {
      const word = await this.#backend.readWord(place, within(this.#requestMs));
      const request = word === undefined ? undefined : (JSON.parse(word) as Partial<Request>);
      if (request?.id === id && request.token === token)
        this.#say(printable(String(request.by)).slice(0, LONGEST_NAME));
    } catch {
      // no right to read it, not JSON, or no answer
    } finally {
      this.#isLooking = false;
    }
  }
}

const LONGEST_NAME = 200;
