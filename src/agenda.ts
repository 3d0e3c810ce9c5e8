import type { Place } from './backend.ts';

/** Which runs a leader owes. The elector asks for one after the other, and tells how each ended. */
export interface Agenda {
  /** Whether it goes on after a run, as long as we lead. */
  readonly repeats: boolean;
  /** The token of the leader for whom the child acts; undefined: the child is ours, and gets our own. */
  readonly actsFor?: string;
  /** Before campaigning: is there nothing left to do? One look; rejects when the store does not answer. */
  isSettled(signal: AbortSignal): Promise<boolean>;
  /** The next run, once it is due; undefined: there is none. Rejects with Gone when this place does not lead, and when aborted. */
  next(leader: Leader, signal: AbortSignal): Promise<Due | undefined>;
  /**
   * Its child has ended by itself, and its tree is dead; `status` undefined: it could not be started, and the run is none. Rejects as `next` does; then the run counts as
   * cut off.
   */
  ended(leader: Leader, due: Due, status: number | undefined, signal: AbortSignal): Promise<void>;
}

export interface Leader {
  place: Place;
  id: string;
  token: string;
}

export interface Due {
  /** RFC 3339; undefined: the job has no schedule. */
  slot: string | undefined;
}

/** Without a schedule: one run, whenever we lead. */
export class OneRun implements Agenda {
  readonly repeats = false;

  async isSettled(): Promise<boolean> {
    return false;
  }

  async next(): Promise<Due> {
    return { slot: undefined };
  }

  async ended(): Promise<void> {}
}
