import {
  type Backend,
  type Book,
  Changed,
  Gone,
  type Leading,
  type Observation,
  type Place,
  type Waiting,
} from '../backend.ts';
import { pause, untilAborted } from '../clock.ts';
import { race } from '../waiting.ts';
import type { Candidate } from './index.ts';
import acquireScript from './redis/acquire.lua';
import { RedisConnection } from './redis/connection.ts';
import observeScript from './redis/observe.lua';
import releaseScript from './redis/release.lua';
import renewScript from './redis/renew.lua';
import { type RedisSpec, rightsFor } from './redis/spec.ts';
import writeBookScript from './redis/write-book.lua';

interface RedisPlace extends Place {
  handle: RedisHandle | undefined;
  /** Known while we lead. */
  token: bigint | undefined;
  /** When the holder's lock runs out unless it is renewed, as of the last look, in ms; undefined: never, or not known. */
  lapsesInMs: number | undefined;
  /** An acquisition went unanswered: it may be applied yet. */
  isInDoubt: boolean;
  /** Our place among those who wait for the baton, kept from one look to the next. */
  baton: { connection: RedisConnection; handed: Promise<true> } | undefined;
}

/** The lock's value is our id, unique to the process: whoever knows it can give the lock back. */
interface RedisHandle {
  key: string;
}

/** After a crash nobody hands on the baton: all look, but not all at once. */
const SHORTEST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 200;
/** How long a baton waits for somebody who has looked and is about to wait. */
const BATON_MS = 5000;
const WORD_MS = 60_000;
/** The answers of write-book.lua that are not 1. */
const GONE = 0;
const CHANGED = 2;
/** Of a request's time, what is left to the replicas. */
const REPLICAS_SHARE = 0.6;

/**
 * `SET NAME id NX PX ttl`, the lock of every redlock-style client, with renewal and release only where the value is ours. Redis keeps no line, but of all the
 * clients that block on a list it serves the one that has waited longest: a release hands it a baton. After a crash everybody
 * looks again when the lock has run out.
 *
 * The token, `{NAME}:token`, is the last one plus one or the server's time in µs, whichever is larger, taken in the script that takes the lock; so it
 * grows even where the counter was lost.
 */
export class RedisBackend implements Backend {
  readonly url: string;
  readonly #spec: RedisSpec;
  readonly #candidate: Candidate;
  readonly #connection: RedisConnection;
  readonly #lock: string;
  readonly #token: string;
  readonly #baton: string;
  readonly #book: string;
  readonly #word: string;

  constructor(spec: RedisSpec, candidate: Candidate) {
    this.#spec = spec;
    this.#candidate = candidate;
    this.#lock = candidate.election;
    this.#token = `{${candidate.election}}:token`;
    this.#baton = `{${candidate.election}}:baton`;
    this.#book = `{${candidate.election}}:runs`;
    this.#word = `{${candidate.election}}:word`;
    this.#connection = new RedisConnection(spec, candidate.requestMs, rightsFor(candidate.election, spec));
    const scheme = `${spec.tls ? 'rediss' : 'redis'}${spec.master === undefined ? '' : '+sentinel'}`;
    this.url = `${scheme}://${spec.endpoints.join(',')}/${spec.master ?? (spec.database || '')}`.replace(/\/$/, '');
  }

  newPlace(): RedisPlace {
    return {
      ttlMs: undefined,
      handle: undefined,
      token: undefined,
      lapsesInMs: undefined,
      isInDoubt: false,
      baton: undefined,
    };
  }

  async acquire(place: RedisPlace, signal: AbortSignal): Promise<Leading | Waiting> {
    const { id, ttlMs } = this.#candidate;
    const keys = [this.#lock, this.#token, this.#baton];
    const [leads, holderOrToken, lapsesInMs] = await this.#connection.call(signal, (client) => {
      place.handle = { key: this.#lock };
      place.isInDoubt = true;
      return client.eval(acquireScript, keys.length, ...keys, id, ttlMs) as Promise<[number, string, number]>;
    });
    place.isInDoubt = false;
    if (leads === 0) {
      place.lapsesInMs = lapsesInMs < 0 ? undefined : lapsesInMs;
      return { leads: false, leader: holderOrToken, since: undefined, position: undefined };
    }
    place.ttlMs = ttlMs;
    await this.#replicated(signal).catch(async (error) => {
      place.ttlMs = undefined;
      await this.#giveBack(signal).catch(() => {
        place.isInDoubt = true;
      });
      throw error;
    });
    this.#leaveLine(place);
    place.token = BigInt(holderOrToken);
    return { leads: true };
  }

  async vacancy(place: RedisPlace, _waiting: Waiting, signal: AbortSignal): Promise<void> {
    place.baton ??= this.#joinLine();
    const { baton } = place;
    const lapse =
      place.lapsesInMs === undefined
        ? untilAborted(signal)
        : pause(place.lapsesInMs + SHORTEST_PAUSE_MS + Math.random() * (LONGEST_PAUSE_MS - SHORTEST_PAUSE_MS), signal);
    try {
      if (await race([baton.handed, lapse, untilAborted(signal)])) this.#leaveLine(place);
    } catch (error) {
      this.#leaveLine(place);
      throw error;
    }
  }

  async confirm(place: RedisPlace, signal: AbortSignal): Promise<bigint> {
    const holder = await this.#connection.call(signal, (client) => client.get(this.#lock));
    if (holder !== this.#candidate.id || place.token === undefined) throw this.#gone(holder);
    return place.token;
  }

  async renew(place: RedisPlace, signal: AbortSignal): Promise<number> {
    const { id, ttlMs } = this.#candidate;
    const answer = await this.#eval<number | string | null>(signal, renewScript, [this.#lock], [id, String(ttlMs)]);
    if (answer !== 1) throw this.#gone(answer as string | null);
    await this.#replicated(signal);
    place.ttlMs = ttlMs;
    return ttlMs;
  }

  /** Redis has no word for it that can be relied upon: the next renewal tells. */
  gone(): Promise<Gone> {
    return new Promise(() => {});
  }

  async release(place: RedisPlace, signal: AbortSignal): Promise<void> {
    if (!place.handle) return;
    this.#leaveLine(place);
    await this.#giveBack(signal);
    // What a server has received by the time at which it answers is carried out before it reads our next request.
    if (place.isInDoubt) await this.#giveBack(signal);
    place.handle = undefined;
    place.token = undefined;
  }

  async observe(signal: AbortSignal): Promise<Observation> {
    const keys = [this.#lock, this.#token];
    const [id, leftMs, token] = await this.#eval<[string | null, number, string | null]>(
      signal,
      observeScript,
      keys,
      [],
    );
    const leader =
      id === null
        ? undefined
        : { id, token: token ?? undefined, since: undefined, leftMs: leftMs < 0 ? undefined : leftMs };
    return { leader, waiting: undefined };
  }

  async leaveWord(word: string | undefined, signal: AbortSignal): Promise<void> {
    await this.#connection.call<unknown>(signal, (client) =>
      word === undefined ? client.del(this.#word) : client.set(this.#word, word, 'PX', WORD_MS),
    );
  }

  async readWord(_place: RedisPlace, signal: AbortSignal): Promise<string | undefined> {
    return (await this.#connection.call(signal, (client) => client.get(this.#word))) ?? undefined;
  }

  async readBook(signal: AbortSignal): Promise<Book | undefined> {
    const text = await this.#connection.call(signal, (client) => client.get(this.#book));
    return text === null ? undefined : { text, edition: text };
  }

  async writeBook(_place: RedisPlace, text: string, before: Book | undefined, signal: AbortSignal): Promise<void> {
    const args = [this.#candidate.id, before?.edition ?? '', text];
    const [answer, holder] = await this.#eval<[number, string | null]>(
      signal,
      writeBookScript,
      [this.#lock, this.#book],
      args,
    );
    if (answer === GONE) throw this.#gone(holder);
    if (answer === CHANGED) throw new Changed(`the redis key ${this.#book} has changed`);
    await this.#replicated(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connection.close();
  }

  #giveBack(signal: AbortSignal): Promise<unknown> {
    return this.#eval(signal, releaseScript, [this.#lock, this.#baton], [this.#candidate.id, String(BATON_MS)]);
  }

  #eval<T>(signal: AbortSignal, script: string, keys: string[], args: string[]): Promise<T> {
    return this.#connection.call(signal, (client) => client.eval(script, keys.length, ...keys, ...args) as Promise<T>);
  }

  /** Until --redis-wait-replicas have confirmed what this connection has written. */
  async #replicated(signal: AbortSignal): Promise<void> {
    const { waitReplicas } = this.#spec;
    if (waitReplicas === 0) return;
    const patienceMs = Math.max(1, Math.floor(this.#candidate.requestMs * REPLICAS_SHARE));
    const count = await this.#connection.call(signal, (client) => client.wait(waitReplicas, patienceMs));
    if (count < waitReplicas)
      throw new Error(`redis: ${count} of ${waitReplicas} replicas confirmed in time (--redis-wait-replicas)`);
  }

  #joinLine(): NonNullable<RedisPlace['baton']> {
    // A connection of its own: nothing else can be asked on one that blocks.
    const connection = this.#connection.another();
    const forEver = new AbortController().signal;
    const handed = connection.call(forEver, (client) => client.blpop(this.#baton, 0), true).then((): true => true);
    handed.catch(() => {});
    return { connection, handed };
  }

  #leaveLine(place: RedisPlace): void {
    place.baton?.connection.close();
    place.baton = undefined;
  }

  #gone(holder: string | null): Gone {
    const what = holder === null ? 'is gone: deleted, or it ran out' : 'is held by another now';
    return new Gone(`the redis key ${this.#lock} ${what}`);
  }
}
