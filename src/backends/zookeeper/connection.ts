import { now, untilAborted } from '../../clock.ts';
import { closeOnExec } from '../../native.ts';
import { race, under } from '../../waiting.ts';
import type { Auth } from '../connection.ts';
import { Answer, answerOfClose, type Client, CODES, type Done, isAnswer, loadLibrary } from './library.ts';
import { openRelay, type Relay } from './relay.ts';

/** What a server needs to know a session again. */
export interface SessionKey {
  id: string;
  password: string;
}

export interface ConnectionTo {
  endpoint: string;
  /** The session's length to ask for. */
  ttlMs: number;
  /** Undefined: a new session. */
  session: SessionKey | undefined;
  auth: Auth | undefined;
  /** Told what length was granted, as soon as it is known. */
  granted(sessionMs: number): void;
}

/**
 * How old a request's answer has to be so that a later one, which a quorum has agreed to, shows that the ensemble's leader has heard of the session by it. A follower touches the
 * session by itself and tells the leader so with its next answer to a ping, which come twice a tick (`LearnerHandler`, `Leader.lead` in ZooKeeper's source), and
 * sends that and what it forwards in one order. Half of the default tick of 2 s, and a quarter of a second for pings that are late.
 */
export const ECHO_MS = 1250;

interface Heard {
  sentAt: number;
  answeredAt: number;
}

/** One connection to one server. Once it is lost it stays lost; its session may go on over another one. */
export class Connection {
  readonly endpoint: string;
  readonly #client: Client;
  readonly #relay: Relay;
  readonly #lost = new AbortController();
  /** Each watched path has one watch, or the library would collect them. */
  readonly #watches = new Map<string, Promise<void>>();
  #isClosed = false;
  /** When those were sent that have not been answered. */
  readonly #open = new Set<{ sentAt: number }>();
  /** Requests that were answered, from the latest that the oldest open one may count from. A new session and one that moved here are taken to the leader at once, so the greeting counts at any age. */
  #heard: Heard[] = [];

  private constructor(endpoint: string, client: Client, relay: Relay) {
    this.endpoint = endpoint;
    this.#client = client;
    this.#relay = relay;
  }

  static async open(to: ConnectionTo, signal: AbortSignal): Promise<Connection> {
    const relay = await openRelay(to.endpoint, signal);
    const client = new (loadLibrary())();
    const connection = new Connection(to.endpoint, client, relay);
    try {
      await connection.#greet(to, signal);
      to.granted(connection.grantedMs);
      if (to.auth) {
        const { username, password } = to.auth;
        await connection.call(signal, (_, done) => client.add_auth('digest', `${username}:${password}`, done));
      }
      // This server may lag behind the one that we talked to before.
      await connection.call(signal, (_, done) => client.a_sync('/', done));
      return connection;
    } catch (error) {
      connection.cut();
      throw error;
    }
  }

  get isLost(): boolean {
    return this.#lost.signal.aborted;
  }

  /** Aborted with the reason: an Answer if the server ended the session. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  get session(): SessionKey {
    return { id: this.#client.client_id, password: this.#client.client_password };
  }

  /** The moment from which the session's length counts for the ensemble's leader, or an earlier one, should a quorum agree to a request that is sent at `sentAt` or later. */
  countsFrom(sentAt: number): number {
    return (this.#heard.findLast(({ answeredAt }) => answeredAt <= sentAt - ECHO_MS) ?? this.#heard[0]!).sentAt;
  }

  /** The session's length as granted. */
  get grantedMs(): number {
    return this.#client.timeout;
  }

  /** Rejects with an Answer when the server says no, and with any other error when we do not know. */
  call<Values extends unknown[]>(
    signal: AbortSignal,
    send: (client: Client, done: Done<Values>) => number,
  ): Promise<Values> {
    const either = under(signal, this.lost);
    const request = { sentAt: now() };
    return new Promise<Values>((resolve, reject) => {
      if (either.signal.aborted) return reject(either.signal.reason);
      either.signal.addEventListener('abort', () => reject(either.signal.reason));
      this.#open.add(request);
      const code = send(this.#client, (answer, meaning, ...values) => {
        if (!isOwn(answer)) this.#hear(request);
        this.#open.delete(request);
        if (answer === 0) resolve(values);
        else if (isOwn(answer)) reject(this.lost.reason ?? new Error(`zookeeper: ${meaning}`));
        else reject(new Answer(answer, meaning));
      });
      if (code === 0) return;
      this.#open.delete(request);
      reject(this.lost.reason ?? new Error(`zookeeper: the client refuses the request (${code})`));
    }).finally(() => either.abort());
  }

  /** Resolves when the znode changes, or is not there. Rejects when the connection is lost, and with the signal's reason. */
  async change(path: string, signal: AbortSignal): Promise<void> {
    let watch = this.#watches.get(path);
    if (!watch) {
      watch = this.#watch(path).finally(() => this.#watches.delete(path));
      watch.catch(() => {}); // told to those who wait
      this.#watches.set(path, watch);
    }
    const either = under(signal, this.lost);
    try {
      await race([watch, untilAborted(either.signal)]);
      either.signal.throwIfAborted();
    } finally {
      either.abort();
    }
  }

  #hear({ sentAt }: { sentAt: number }): void {
    this.#heard.push({ sentAt, answeredAt: now() });
    const oldest = Math.min(...Array.from(this.#open, (request) => request.sentAt));
    while (this.#heard.length > 1 && this.#heard[1]!.answeredAt <= oldest - ECHO_MS) this.#heard.shift();
  }

  async #watch(path: string): Promise<void> {
    let onChange!: () => void;
    const changed = new Promise<void>((resolve) => {
      onChange = resolve;
    });
    try {
      await this.call(this.lost, (client, done) => client.aw_exists(path, onChange, done));
    } catch (error) {
      if (isAnswer(error, CODES.noNode)) return;
      throw error;
    }
    await changed;
  }

  async #greet(to: ConnectionTo, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const { signal: either } = under(signal, this.lost);
      either.addEventListener('abort', () => reject(either.reason));
      this.#relay.closed.then(() => this.cut());
      this.#client.on('connect', resolve);
      this.#client.on('connecting', () => this.cut());
      this.#client.on('close', (_, code) => {
        this.#isClosed = true;
        this.#lose(answerOfClose(code));
      });
      const { session } = to;
      this.#heard.push({ sentAt: now(), answeredAt: Number.NEGATIVE_INFINITY });
      this.#client.init({
        connect: this.#relay.address,
        timeout: to.ttlMs,
        debug_level: 0, // it would print to stdout, which is the child's
        response_counter_limit: NEVER, // after ten reads that brought no whole answer it would say "session expired", and end it
        ...(session ? { client_id: session.id, client_password: session.password } : {}),
      });
      closeOnExec();
    });
  }

  /** Ends the connection now; the session lives on. */
  cut(): void {
    this.#lose(undefined);
    this.#relay.cut();
    setImmediate(() => this.#closeQuietly()); // not while the library is at work
  }

  /** Ends the session; what it held is gone when this resolves. */
  async end(signal: AbortSignal): Promise<void> {
    this.#relay.endSession();
    try {
      await new Promise<void>((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
        this.#relay.closed.then(resolve);
      });
    } finally {
      this.cut();
    }
  }

  /** A client that still believes in its connection would say goodbye for the session, and wait for that. It hears of the cut soon. */
  #closeQuietly(): void {
    if (!this.#isClosed && this.#client.state !== CONNECTED_STATE) this.#client.close();
  }

  #lose(answer: Answer | undefined): void {
    if (!this.isLost) this.#lost.abort(answer ?? new Error(`zookeeper: the connection to ${this.endpoint} is lost`));
  }
}

const CONNECTED_STATE = 3;
const NEVER = 2 ** 31 - 1;

/** Codes by which the client, not the server, ends a request: whether it was done nobody knows. */
const isOwn = (code: number): boolean =>
  (code < 0 && code > -100 && code !== CODES.unimplemented) || code === CODES.closing || code === CODES.sessionMoved;
