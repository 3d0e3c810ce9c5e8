import type { Socket } from 'node:net';
import { Redis, type RedisOptions } from 'ioredis';
import { Refused, Unusable } from '../../backend.ts';
import { NETWORK_TROUBLES, splitEndpoint } from '../connection.ts';
import type { RedisSpec } from './spec.ts';

/**
 * One connection of ioredis, which serves as transport only: nothing is queued, resent or reconnected behind our back. A request that was not answered, or whose
 * caller gave up, costs the connection; the next request opens another one, and asks the Sentinels again where there are any.
 */
export class RedisConnection {
  readonly #spec: RedisSpec;
  readonly #requestMs: number;
  readonly #rights: string;
  /** In the order in which they are asked. Another connection to the same servers shares it. */
  readonly #endpoints: string[];
  #link: Link | undefined;
  #isClosed = false;
  /** So both sides speak the same. */
  #hasAnswered = false;

  /** `rights`: what a user has to be granted, for the message when it is missing. */
  constructor(spec: RedisSpec, requestMs: number, rights: string, endpoints = [...spec.endpoints]) {
    this.#spec = spec;
    this.#requestMs = requestMs;
    this.#rights = rights;
    this.#endpoints = endpoints;
  }

  /** Not open yet. */
  another(): RedisConnection {
    return new RedisConnection(this.#spec, this.#requestMs, this.#rights, this.#endpoints);
  }

  /** Answers within `requestMs`, counted apart for connecting and asking, unless the request `blocks`; or as soon as the signal is aborted. */
  async call<T>(signal: AbortSignal, request: (client: Redis) => Promise<T>, blocks = false): Promise<T> {
    signal.throwIfAborted();
    if (this.#isClosed) throw new Error('the connection was closed');
    this.#link ??= new Link(this.#spec, this.#endpoints, this.#requestMs);
    const link = this.#link;
    let stop!: () => void;
    let late: NodeJS.Timeout | undefined;
    const cut = new Promise<never>((_, reject) => {
      stop = () => reject(signal.reason);
      signal.addEventListener('abort', stop);
      const limit = () => {
        late = setTimeout(() => reject(new Error('no answer in time')), this.#requestMs);
      };
      limit();
      link.ready.then(
        () => {
          clearTimeout(late);
          if (!blocks) limit();
        },
        () => {},
      );
    });
    try {
      const answer = await Promise.race([link.ready.then(() => request(link.client)), cut]);
      this.#hasAnswered = true;
      return answer;
    } catch (error) {
      if (!link.isReady || isMoved(error as Error)) this.#passOver(link);
      if (!link.isReady || !isAnswer(error as Error) || isMoved(error as Error)) this.#drop(link);
      if (signal.aborted) throw signal.reason;
      throw this.#explain(link.problem ?? (error as Error));
    } finally {
      clearTimeout(late);
      signal.removeEventListener('abort', stop);
    }
  }

  /** What was sent and not answered is not sent any more. */
  reset(): void {
    if (this.#link) this.#drop(this.#link);
  }

  close(): void {
    this.#isClosed = true;
    this.reset();
  }

  /** A Sentinel that does not answer, or names a server that is no master (any more), is asked last the next time. */
  #passOver({ first }: Link): void {
    if (this.#endpoints[0] === first) this.#endpoints.push(this.#endpoints.shift()!);
  }

  #drop(link: Link): void {
    link.cut();
    if (this.#link === link) this.#link = undefined;
  }

  /** Says what the user can mend. */
  #explain(error: NodeJS.ErrnoException): Error {
    const { message } = error;
    const spec = this.#spec;
    const user = spec.auth?.username ? `user ${spec.auth.username}` : 'we';
    if (/without any password configured|no password is set/i.test(message))
      return new Refused('redis: the server has no password for the default user, but one is given; leave it out');
    if (/wrong number of arguments for 'auth'/i.test(message))
      return new Refused('redis: this server (older than 6) knows no users; give the password alone');
    if (/^WRONGPASS|invalid password/i.test(message))
      return new Refused(`redis: wrong user or password (--user, --password-file, or in the URL)`);
    if (/^NOAUTH/.test(message)) return new Refused('redis: authentication is on: give --user and --password-file');
    if (/^NOPERM|^ERR.*NOPERM/.test(message))
      return new Refused(
        `redis: ${user} may not do this (${message.replace(/^NOPERM\s*/, '')}); grant ${this.#rights}`,
      );
    if (/^NOTOKEN /.test(message))
      return new Unusable(`redis: the key ${message.slice(8)} is the last token, but not a number below 2^53 - 1`);
    if (/^ERR (DB index is out of range|invalid DB index)/i.test(message))
      return new Unusable(`--backend redis: the server has no database ${spec.database}`);
    if (/^WRONGTYPE/.test(message))
      return new Unusable('--name: this key is there already, and is not a lock; choose another name');
    if (/^(MOVED|CROSSSLOT|ASK) /.test(message))
      return new Unusable('--backend redis: a Redis Cluster is not supported; name a single server');
    if (/^DENIED/.test(message)) return new Refused(`redis: ${message}`);
    if (spec.tls && isTlsProblem(error))
      return new Refused(
        `redis: TLS with ${spec.endpoints.join(',')} failed: ${tlsReason(error)} (--cacert, --cert, --key)`,
      );
    const hint =
      this.#hasAnswered || !MAY_BE_TLS.test(`${error.code} ${message}`)
        ? ''
        : `; does it speak ${spec.tls ? 'TLS at all' : 'TLS only (rediss://)'}?`;
    return new Error(`redis at ${spec.endpoints.join(',')}: ${plainMessage(error)}${hint}`, { cause: error });
  }
}

class Link {
  readonly client: Redis;
  /** Once the server knows us, and which database is meant. */
  readonly ready: Promise<void>;
  isReady = false;
  /** The first that is asked. */
  readonly first: string;
  /** What ioredis tells beside "Connection is closed". */
  problem: Error | undefined;

  constructor(spec: RedisSpec, endpoints: string[], requestMs: number) {
    this.first = endpoints[0]!;
    this.client = new Redis(optionsFor(spec, endpoints, requestMs));
    this.client.on('error', (error: Error) => {
      this.problem ??= error;
    });
    this.ready = this.#open(spec);
    this.ready.catch(() => {});
  }

  /** ioredis would go on, with a line on stderr or without, when the server refuses one of these. */
  async #open({ auth, database }: RedisSpec): Promise<void> {
    await this.client.connect();
    const { username, password } = auth ?? {};
    await Promise.all([
      password === undefined ? undefined : this.client.call('auth', ...(username ? [username] : []), password),
      database === 0 ? undefined : this.client.call('select', database),
    ]);
    this.isReady = true;
  }

  cut(): void {
    // Reset, not closed: TCP would go on to deliver for minutes what nobody wants any more. (TLS cannot be reset.)
    const { stream } = this.client as unknown as { stream?: Socket };
    if (stream && 'encrypted' in stream) stream.destroy();
    else stream?.resetAndDestroy();
    this.client.disconnect();
  }
}

function optionsFor({ master, tls }: RedisSpec, endpoints: string[], requestMs: number) {
  const [first] = endpoints;
  return {
    ...(master === undefined
      ? splitEndpoint(first!)
      : {
          name: master,
          sentinels: endpoints.map(splitEndpoint),
          sentinelCommandTimeout: requestMs * SENTINEL_SHARE,
          updateSentinels: false,
        }),
    ...(tls ? { tls, ...(master === undefined ? {} : { sentinelTLS: tls, enableTLSForSentinelMode: true }) } : {}),
    protocol: 2, // what every server and proxy speaks
    lazyConnect: true,
    connectTimeout: requestMs,
    keepAlive: KEEP_ALIVE_MS,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    enableReadyCheck: false, // INFO, a right that a user of ours need not have; a server that loads says so
    disableClientInfo: true,
    retryStrategy: () => null,
    sentinelRetryStrategy: () => null,
    reconnectOnError: null,
  } satisfies RedisOptions;
}

const KEEP_ALIVE_MS = 5000;
/** Of the time to connect, what the first Sentinel may take to answer: it leaves enough for the second, and the master. */
const SENTINEL_SHARE = 0.4;

/** The server's own word, after which the connection is as good as before. */
const isAnswer = (error: Error): boolean => error.name === 'ReplyError';

/** The server's word that it is not the one to ask. */
const isMoved = ({ message }: Error): boolean => /^(READONLY|MASTERDOWN|LOADING|UNKILLABLE|NOREPLICAS)/.test(message);

/** How it looks when one side speaks TLS and the other does not. */
const MAY_BE_TLS = /no answer|ECONNRESET|EPIPE|Connection is closed|Unknown RESP type|timed? ?out/i;

const isTlsProblem = ({ code = '', message }: NodeJS.ErrnoException): boolean =>
  /^ERR_(SSL|TLS)|CERT|SELF_SIGNED|UNABLE_TO_/.test(code) || /SSL routines/.test(message);

const tlsReason = ({ message }: Error): string => (/SSL routines:[^:]*:([^:]+)/.exec(message)?.[1] ?? message).trim();

function plainMessage({ code, message }: NodeJS.ErrnoException): string {
  const reason = NETWORK_TROUBLES[code ?? ''];
  if (reason) return reason;
  if (message === 'Connection is closed.') return 'connection closed';
  if (/Unknown RESP type/.test(message)) return 'what answers there does not speak as Redis does';
  if (/All sentinels are unreachable/.test(message)) {
    const [, last] = /Last error: (.*)/s.exec(message) ?? [];
    return last ? `no Sentinel could be asked for the master (${last})` : 'no Sentinel knows this master';
  }
  return message.replace(/\s+/g, ' ');
}
