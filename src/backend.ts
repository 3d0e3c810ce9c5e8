/**
 * The whole contract of a store. A backend is mechanism only: no timers of policy, no retries, no logging, no
 * arithmetic on deadlines. All of that lives in campaign.ts, renewal.ts and candidacy.ts.
 *
 * Stores come in two kinds. etcd and ZooKeeper keep a line: a candidate holds a place in it that has to be kept
 * alive while it stands by. A file, Redis or a Kubernetes Lease have no line: there is nothing of ours in the store
 * until we lead. Both are a `Place`; in the second kind nothing of it runs out (`ttlMs` is undefined) before it leads.
 *
 * "No" and "don't know" are different types: a store that says that our place is gone throws `Gone`; anything else that
 * goes wrong (timeout, reset, no quorum) is any other error and proves nothing.
 */
export interface Backend extends AsyncDisposable {
  /** How `elect-run check` finds this store again: a URL without any secret. */
  readonly url: string;

  /** A candidate that has not entered yet. No request is made. */
  newPlace(): Place;

  /**
   * One attempt to lead. The first call enters the line; later calls look again. Throws `Gone` when our place was taken from
   * the store meanwhile: call again with a new Place.
   */
  acquire(place: Place, signal: AbortSignal): Promise<Leading | Waiting>;

  /** Resolves when another `acquire` is worthwhile: the one ahead of us is gone, or our own place is. May resolve early. */
  vacancy(place: Place, waiting: Waiting, signal: AbortSignal): Promise<void>;

  /**
   * The last look before the child starts: one more linearizable read that still shows us as the leader.
   * Its answer carries the fencing token. Throws `Gone` when it does not show us.
   */
  confirm(place: Place, signal: AbortSignal): Promise<bigint>;

  /** Keeps what we hold for another ttl and returns the ttl that the store granted, in ms. Throws `Gone` when the store says that it is ours no more. */
  renew(place: Place, signal: AbortSignal): Promise<number>;

  /** Resolves with the reason as soon as the store says that what we hold is gone. Never resolves in a store that cannot tell by itself; it never rejects. */
  gone(place: Place, signal: AbortSignal): Promise<Gone>;

  /** Gives back what is ours, by compare-and-delete. As leader: only once the child's tree is shown to be dead. */
  release(place: Place, signal: AbortSignal): Promise<void>;

  /** Who leads and who waits, other programs included, by one linearizable look. Enters nothing. */
  observe(signal: AbortSignal): Promise<Observation>;

  /** Leaves a word for the leader, whoever that is, in the place of an earlier one; undefined: takes it back. Left behind, it is forgotten after a minute, or names a leader that is gone. */
  leaveWord(word: string | undefined, signal: AbortSignal): Promise<void>;

  /** The word that was left, if there is one: now, or when the last renewal looked. As the leader, once per renewal. */
  readWord(place: Place, signal: AbortSignal): Promise<string | undefined>;

  /** The election's book: a text that outlives its leaders. One linearizable read; undefined: nobody has written yet. */
  readBook(signal: AbortSignal): Promise<Book | undefined>;

  /**
   * Writes the book in the place of `before`. Throws `Gone` when this place does not lead, and `Changed` when the book is not `before` any more, by whomever.
   * A leader that was deposed without knowing cannot get in between: what it still writes comes before the next leader's first write, which
   * then throws `Changed`.
   */
  writeBook(place: Place, text: string, before: Book | undefined, signal: AbortSignal): Promise<void>;
}

/** What the store does not tell is undefined. Identities are other programs' texts: not to be trusted on a terminal. */
export interface Observation {
  /** Undefined: nobody leads. */
  leader:
    | { id: string | undefined; token: string | undefined; since: string | undefined; leftMs: number | undefined }
    | undefined;
  /** Those who stand by, in their order. */
  waiting: (string | undefined)[] | undefined;
}

export interface Book {
  text: string;
  /** Names this very version of it to the store. */
  edition: string;
}

/** What this candidate has in the store. The elector keeps it and hands it back; only the backend writes to it. */
export interface Place {
  /** Set when the store holds something of ours that lapses unless renewed: the length of that lease, in ms, as the store granted it. */
  ttlMs: number | undefined;
  /** What the guard's clean-up needs to give the place back after this process was killed: plain JSON, no secret. */
  handle: unknown;
  /** A descriptor that the child has to inherit, since the kernel frees the lock only when nobody has it open any more. */
  inheritFd?: number | undefined;
}

export interface Leading {
  leads: true;
}

export interface Waiting {
  leads: false;
  /** The leader's identity as it wrote it, if the store tells. Another program's text: not to be trusted on a terminal. */
  leader: string | undefined;
  /** RFC 3339, if the store tells. */
  since: string | undefined;
  /** 1 is the leader. */
  position: number | undefined;
}

/** The store's own word that our place or our leadership is gone: revoked, deleted, expired, taken over. */
export class Gone extends Error {
  override name = 'Gone';
}

/** Somebody has written the book since it was read, or we have, and the answer was lost: read it again. */
export class Changed extends Error {
  override name = 'Changed';
}

/** The store refused us and will do so again: wrong password, certificate, missing right. Exit 77. */
export class Refused extends Error {
  override name = 'Refused';
}

/** What was asked for cannot be had from this store, whoever asks: a name it cannot hold, a lock directory that cannot be written. Exit 64. */
export class Unusable extends Error {
  override name = 'Unusable';
}
