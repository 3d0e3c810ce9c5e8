import { Gone, Refused } from '../../backend.ts';
import { within } from '../../clock.ts';
import type { Candidate } from '../index.ts';
import { Connection, type SessionKey } from './connection.ts';
import { type Client, CODES, type Done, isAnswer, type Stat } from './library.ts';
import type { ZooKeeperSpec } from './spec.ts';

/** A connection takes more than a request on an open one: name, TCP, handshake. */
const SHORTEST_OPENING_MS = 2000;

/** A session of ours, over whichever server answers. Begins with the first call. Each call is one attempt. */
export class Session {
  readonly #spec: ZooKeeperSpec;
  readonly #candidate: Candidate;
  #key: SessionKey | undefined;
  #connection: Connection | undefined;
  #opening: Promise<Connection> | undefined;
  /** The server to begin with. */
  #next = 0;
  #end: Error | undefined;
  readonly #over = new AbortController();

  constructor(spec: ZooKeeperSpec, candidate: Candidate) {
    this.#spec = spec;
    this.#candidate = candidate;
    this.shortened = new Promise((resolve) => {
      this.#sayShortened = resolve;
    });
  }

  /** Hex, as in `Stat.ephemeralOwner`. */
  get id(): string | undefined {
    return this.#key?.id;
  }

  /** The session's length as the server granted it; undefined before there is a session. */
  grantedMs: number | undefined;

  /** Resolves with the length in ms once a server has granted less than what was asked for. */
  readonly shortened: Promise<number>;
  #sayShortened!: (toMs: number) => void;

  /** Aborted once the session is ended or left. */
  get signal(): AbortSignal {
    return this.#over.signal;
  }

  /** See `Connection`. Long ago while there is no connection. */
  countsFrom(sentAt: number): number {
    return this.#connection?.countsFrom(sentAt) ?? Number.NEGATIVE_INFINITY;
  }

  /** Goes on over a new connection to the same server: by that the ensemble's leader hears of the session. */
  async reopen(signal: AbortSignal): Promise<void> {
    if (this.#connection && !this.#connection.isLost) {
      this.#connection.cut();
      this.#next--;
    }
    await this.#connected(signal);
  }

  /** Throws Gone when the session is over, Refused when the server will have nothing to do with us, an Answer, or any other error for "don't know". */
  async call<Values extends unknown[]>(
    signal: AbortSignal,
    send: (client: Client, done: Done<Values>) => number,
  ): Promise<Values> {
    const connection = await this.#connected(signal);
    const sentAt = performance.now();
    try {
      return await connection.call(signal, send);
    } catch (error) {
      // It keeps the connection open and says nothing: the next attempt goes to another server.
      if (signal.aborted && performance.now() - sentAt >= this.#candidate.requestMs / 2) connection.cut();
      throw this.#read(error);
    }
  }

  /** As the server that we talk to has it. Throws as `call` does. */
  async stat(path: string, signal: AbortSignal): Promise<Stat> {
    const [stat] = await this.call<[Stat]>(signal, (client, done) => client.a_exists(path, false, done));
    return stat;
  }

  /** Resolves when the znode changes, or is not there. Throws as `call` does, also when the connection is lost meanwhile. */
  async change(path: string, signal: AbortSignal): Promise<void> {
    const connection = await this.#connected(signal);
    try {
      await connection.change(path, signal);
    } catch (error) {
      throw this.#read(error);
    }
  }

  /** Ends it, and with it all that it holds. Throws when the server has not confirmed that: otherwise it runs out. */
  async end(signal: AbortSignal): Promise<void> {
    const connected = this.#key && !this.#end ? this.#connected(signal) : undefined;
    try {
      await connected;
    } finally {
      this.#end ??= new Gone('the session is ended');
      this.#over.abort(this.#end);
    }
    await (await connected)?.end(signal);
  }

  /** Leaves it to run out. */
  cut(): void {
    this.#over.abort(new Error('the session is left'));
    this.#connection?.cut();
  }

  async #connected(signal: AbortSignal): Promise<Connection> {
    if (this.#end) throw this.#end;
    if (this.#connection && !this.#connection.isLost) return this.#connection;
    if (this.#connection) this.#read(this.#connection.lost.reason);
    if (this.#end) throw this.#end;
    if (!this.#opening) {
      this.#opening = this.#open().finally(() => {
        this.#opening = undefined;
      });
      this.#opening.catch(() => {}); // told to those who wait
    }
    const opening = this.#opening;
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      opening.then(resolve, reject);
    });
  }

  /** Goes on when those who asked have given up: a server that is slow to say hello would never be reached otherwise. */
  async #open(): Promise<Connection> {
    const { endpoints, auth } = this.#spec;
    const { ttlMs, requestMs } = this.#candidate;
    const openingMs = Math.max(SHORTEST_OPENING_MS, requestMs) / endpoints.length;
    let problem: unknown;
    for (let tried = 0; tried < endpoints.length && !this.#over.signal.aborted; tried++) {
      const endpoint = endpoints[this.#next++ % endpoints.length]!;
      const granted = (sessionMs: number) => {
        if (sessionMs < ttlMs) this.#sayShortened(sessionMs);
      };
      const to = { endpoint, ttlMs, session: this.#key, auth, granted };
      try {
        this.#connection = await Connection.open(to, within(openingMs, this.#over.signal));
        this.#key = this.#connection.session;
        this.grantedMs = this.#connection.grantedMs;
        this.#next--; // good until it fails
        this.#connection.lost.addEventListener('abort', () => this.#next++, { once: true });
        return this.#connection;
      } catch (error) {
        problem = this.#read(error);
        if (problem instanceof Gone || problem instanceof Refused) break;
      }
    }
    throw problem ?? this.#over.signal.reason;
  }

  #read(error: unknown): unknown {
    if (isAnswer(error, CODES.sessionExpired)) this.#end ??= new Gone('our session with ZooKeeper has expired');
    if (isAnswer(error, CODES.authFailed))
      this.#end ??= new Refused('zookeeper: the server refuses --user and its password');
    if (isAnswer(error, CODES.mustAuthenticate))
      this.#end ??= new Refused(
        'zookeeper: the server admits no session without authentication, and does not take digest (--user)',
      );
    return this.#end ?? error;
  }
}
