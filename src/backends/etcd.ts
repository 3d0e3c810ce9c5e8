import { randomBytes } from 'node:crypto';
import {
  type Backend,
  type Book,
  Changed,
  Gone,
  type Leading,
  type Observation,
  type Place,
  Refused,
  Unusable,
  type Waiting,
} from '../backend.ts';
import { pause, untilAborted, within } from '../clock.ts';
import { printable } from '../text.ts';
import { race } from '../waiting.ts';
import { isNotFound } from './etcd/errors.ts';
import { EtcdMembers } from './etcd/members.ts';
import { DELETE_RANGE, LEASE_GRANT, LEASE_REVOKE, LEASE_TIME_TO_LIVE, PUT, RANGE, TXN } from './etcd/methods.ts';
import { BOOKS, type EtcdSpec, LEADERS, WORDS } from './etcd/spec.ts';
import type { Candidate } from './index.ts';

interface EtcdPlace extends Place {
  handle: EtcdHandle | undefined;
  /** Our key's create revision: our number in the line. */
  revision: string | undefined;
  leads: boolean;
  /** The key just ahead of ours, as of `asOf`. Before there is one: that of ours which was taken. */
  ahead: string | undefined;
  /** Nobody but that one is ahead of us. */
  isNext: boolean;
  /** The store has told since that it is gone, and nothing of ours being gone. */
  isFirst: boolean;
  /** The store's revision at the last look. */
  asOf: string | undefined;
  /** A key whose owner has said that it gives its place back, and nothing of it is at work. */
  resigned: string | undefined;
  /** What observers have not been told yet. */
  untold: Term | undefined;
  /** What the last look at our key sees of it, until it is asked for. */
  word: Promise<{ text: string | undefined } | undefined> | undefined;
  /** Kept from one look to the next. */
  watch: { ahead: string; deletion: Promise<void>; over: AbortController } | undefined;
}

interface EtcdHandle {
  key: string;
  lease: string;
}

interface Look {
  kvs: (KeyValue | undefined)[];
  revision: string;
}

/** What a leader tells observers of itself. */
interface Term {
  id: string;
  token: string;
  since: string;
}

interface KeyValue {
  key: Buffer;
  value: Buffer;
  create_revision: string;
  mod_revision: string;
  lease: string;
}

/** Follows the id in a key that is about to be given back. */
const RESIGNS = ' resigns';
/** Twice the time in which the command of a leader is gone whose place was taken. */
const TAKEN_MS = 200;
/** The child is started first. */
const TELL_AFTER_MS = 20;
/** A pause before a broken watch is opened again, so that a dead member is not asked in a loop. */
const REOPEN_MS = 250;

/**
 * The line of etcd's own `concurrency` package, and so the same election as `etcdctl elect` and `etcdctl lock`: one key per candidate,
 * `NAME/` + lease id in hex, attached to the lease; the lowest create revision leads; everybody watches the key just ahead.
 *
 * The token is `header.revision` of the linearizable read that shows us leading. Our key is deleted at a later revision, and the next leader
 * reads later still, so it only grows. (A key's create revision may be lower than that of an earlier leader.)
 */
export class EtcdBackend implements Backend {
  readonly url: string;
  readonly #candidate: Candidate;
  readonly #members: EtcdMembers;
  readonly #prefix: string;
  readonly #book: string;
  readonly #term: string;
  readonly #word: string;
  #mayReadWords = true;
  /** Our key that the store said was gone. Those ahead of it may have gone with it, and hear of it now as we do: our next place succeeds to it. */
  #taken: string | undefined;
  /** That of the word which we left last. */
  #wordLease: string | undefined;

  constructor(spec: EtcdSpec, candidate: Candidate) {
    this.#candidate = candidate;
    this.#prefix = `${candidate.election}/`;
    this.#book = `${BOOKS}/${candidate.election}`;
    this.#term = `${LEADERS}/${candidate.election}`;
    this.#word = `${WORDS}/${candidate.election}`;
    const right = `readwrite on the prefix ${this.#prefix}, and on ${this.#book} where slots are recorded`;
    this.#members = new EtcdMembers(spec, candidate.requestMs, right);
    this.url = `${spec.tls ? 'etcds' : 'etcd'}://${spec.endpoints.join(',')}`;
  }

  newPlace(): EtcdPlace {
    const ahead = this.#taken;
    this.#taken = undefined;
    return {
      ttlMs: undefined,
      handle: undefined,
      revision: undefined,
      leads: false,
      ahead,
      isNext: false,
      isFirst: false,
      resigned: undefined,
      asOf: undefined,
      untold: undefined,
      word: undefined,
      watch: undefined,
    };
  }

  async acquire(place: EtcdPlace, signal: AbortSignal): Promise<Leading | Waiting> {
    if (place.isFirst) return this.#succeed(place, signal);
    if (!place.handle) {
      await this.#mustNotBlockParents(signal);
      await this.#grant(place, signal);
    }
    const { key, lease } = place.handle!;
    const enter = {
      // A put whose answer was lost must not be repeated, nor a key that was deleted be put again: it would be a place at the end of the line.
      compare: place.revision
        ? []
        : [{ key: bytes(key), target: 'Create' as const, result: 'Equal' as const, create_revision: '0' }],
      success: [
        ...(place.revision ? [] : [{ request_put: { key: bytes(key), value: bytes(this.#candidate.id), lease } }]),
        ...this.#look(key),
      ],
      failure: this.#look(key),
    };
    const answer = await this.#members.ask(TXN, enter, signal).catch((error) => {
      throw isNotFound(error) ? this.#gone(place) : error; // nothing renews the lease before the key is there
    });
    const [mine, first, line] = answer.responses.flatMap(({ response_range }) =>
      response_range ? [response_range.kvs as unknown as KeyValue[]] : [],
    );
    const own = mine?.[0];
    if (!own) throw this.#gone(place);
    place.revision = own.create_revision;
    place.asOf = answer.header.revision;
    this.#mustStandAlone(line!);
    const position = line!.findIndex((other) => other.key.equals(own.key));
    if (position === 0 && place.ahead !== undefined && !place.leads) return this.#succeed(place, signal);
    place.leads = position === 0;
    place.isNext = position === 1;
    place.isFirst = false; // should that have been told meanwhile, it is told again
    if (place.leads) {
      place.watch?.over.abort();
      return { leads: true };
    }
    place.ahead = line![position - 1]!.key.toString();
    return { leads: false, leader: idIn(first![0]!), since: undefined, position: position + 1 };
  }

  /** We have come to be first. Where nobody has resigned the place was taken from somebody, who hears of it now as we do, and has a command to end. */
  async #succeed(place: EtcdPlace, signal: AbortSignal): Promise<Leading> {
    if (place.resigned !== place.ahead) await pause(TAKEN_MS, signal);
    signal.throwIfAborted();
    place.isFirst = false;
    place.leads = true;
    place.watch?.over.abort();
    return { leads: true };
  }

  async vacancy(place: EtcdPlace, _waiting: Waiting, signal: AbortSignal): Promise<void> {
    if (place.watch?.ahead !== place.ahead) this.#watchAhead(place);
    await race([place.watch!.deletion, untilAborted(signal)]);
  }

  #watchAhead(place: EtcdPlace): void {
    place.watch?.over.abort();
    const over = new AbortController();
    const ahead = place.ahead!;
    const own = place.handle!.key;
    const changed = (key: string, value: string) => {
      if (key === ahead && value.endsWith(RESIGNS)) place.resigned = key;
    };
    const deletion = this.#deletion([ahead, own], place.asOf!, over.signal, changed).then((deleted) => {
      if (place.watch?.over !== over) return;
      place.watch = undefined;
      // Only those who came after us can have entered since we looked.
      place.isFirst = place.isNext && place.ahead === ahead && deleted.includes(ahead) && !deleted.includes(own);
    });
    place.watch = { ahead, deletion, over };
  }

  async confirm(place: EtcdPlace, signal: AbortSignal): Promise<bigint> {
    const { key } = place.handle!;
    const { kvs, revision } = await this.#lookWithWord(place, this.#look(key).slice(0, 2), signal);
    const [mine, first] = kvs;
    if (mine?.create_revision !== place.revision || !first?.key.equals(mine!.key)) throw this.#gone(place);
    place.asOf = revision;
    place.untold = { id: this.#candidate.id, token: revision, since: new Date().toISOString() };
    setTimeout(() => this.#tellTerm(place), TELL_AFTER_MS);
    return BigInt(revision);
  }

  /** Our token and since when, for observers. It goes with our lease. What goes unanswered is told again with the next renewal. Without the right to it observers go by the name alone. */
  async #tellTerm(place: EtcdPlace): Promise<void> {
    const { handle, untold: term } = place;
    if (!handle || !term) return;
    const { key, lease } = handle;
    const telling = this.#members.ask(
      TXN,
      {
        compare: [{ key: bytes(key), target: 'Create', result: 'Equal', create_revision: place.revision! }],
        success: [{ request_put: { key: bytes(this.#term), value: bytes(JSON.stringify(term)), lease } }],
        failure: [],
      },
      within(this.#candidate.requestMs),
    );
    const isOver = await telling.then(
      () => true,
      (error) => error instanceof Refused,
    );
    if (isOver && place.untold === term) place.untold = undefined;
  }

  async renew(place: EtcdPlace, signal: AbortSignal): Promise<number> {
    if (!place.handle) throw this.#gone(place);
    const { key, lease } = place.handle;
    const [ttlSeconds] = await Promise.all([
      this.#members.keepAlive(lease, signal),
      // The watch tells of a deleted key at once, unless its connection died without a word. Those who stand by look at the line anyway.
      place.leads && this.#mustHave(place, key, signal),
    ]);
    if (ttlSeconds <= 0) throw this.#gone(place);
    place.ttlMs = ttlSeconds * 1000;
    this.#tellTerm(place);
    return place.ttlMs;
  }

  async gone(place: EtcdPlace, signal: AbortSignal): Promise<Gone> {
    await this.#deletion([place.handle!.key], place.asOf!, signal);
    if (signal.aborted) return new Promise(() => {});
    return this.#gone(place);
  }

  /** All that hangs on our lease is ours, and goes with it by one write. The next in line need not wait for what has been said to be over. */
  async release(place: EtcdPlace, signal: AbortSignal): Promise<void> {
    place.watch?.over.abort();
    if (!place.handle) return;
    const { key, lease } = place.handle;
    place.handle = undefined;
    // Attached to our lease, a key is ours: nobody else knows the lease.
    const isOurs = (name: string) => ({ key: bytes(name), target: 'Lease' as const, result: 'Equal' as const, lease });
    if (place.leads !== false) {
      // The guard's clean-up knows of our key only. Who has not told its term may be waiting for another one's command to end, and says nothing.
      const compare = place.leads ? [isOurs(key)] : [isOurs(key), isOurs(this.#term)];
      const value = bytes(this.#candidate.id + RESIGNS);
      const resign = { compare, success: [{ request_put: { key: bytes(key), value, lease } }], failure: [] };
      await this.#members.ask(TXN, resign, signal).catch(() => {}); // the next one waits a little longer
    }
    try {
      await this.#members.ask(LEASE_REVOKE, { ID: lease }, signal);
    } catch (error) {
      if (isNotFound(error as Error)) return;
      if (!(error instanceof Refused)) throw error;
      // That takes the right to every key on the lease, and one may have been taken from us.
      const remove = { compare: [isOurs(key)], success: [{ request_delete_range: { key: bytes(key) } }], failure: [] };
      await this.#members.ask(TXN, remove, signal);
    }
  }

  async observe(signal: AbortSignal): Promise<Observation> {
    const [line, told] = await Promise.all([
      this.#members.ask(RANGE, this.#line, signal),
      this.#members.ask(RANGE, { key: bytes(this.#term) }, signal).catch((error) => {
        if (error instanceof Refused) return { kvs: [] };
        throw error;
      }),
    ]);
    const [first, ...waiting] = line.kvs as unknown as KeyValue[];
    if (!first) return { leader: undefined, waiting: [] };
    const { lease } = first;
    const left =
      lease === '0' // etcdctl put: it stays
        ? undefined
        : await this.#members.ask(LEASE_TIME_TO_LIVE, { ID: lease, keys: false }, signal);
    const leftMs = left && Math.max(0, Number(left.TTL)) * 1000; // -1: gone
    const id = idIn(first);
    const term = termOf(told.kvs[0], id);
    return {
      leader: { id, token: term?.token, since: term?.since, leftMs },
      waiting: waiting.map(idIn),
    };
  }

  async leaveWord(word: string | undefined, signal: AbortSignal): Promise<void> {
    const key = bytes(this.#word);
    const before = this.#wordLease;
    if (word === undefined) await this.#members.ask(DELETE_RANGE, { key }, signal);
    else {
      const granted = await this.#members.ask(LEASE_GRANT, { ID: '0', TTL: WORD_SECONDS }, signal); // etcd chooses the id
      this.#wordLease = granted.ID;
      await this.#members.ask(PUT, { key, value: bytes(word), lease: granted.ID }, signal);
    }
    if (before === undefined) return;
    if (word === undefined) this.#wordLease = undefined;
    await this.#members.ask(LEASE_REVOKE, { ID: before }, signal);
  }

  async readWord(place: EtcdPlace, signal: AbortSignal): Promise<string | undefined> {
    const seen = await place.word;
    place.word = undefined;
    if (seen) return seen.text;
    const { kvs } = await this.#members.ask(RANGE, { key: bytes(this.#word) }, signal);
    return kvs[0]?.value.toString();
  }

  async readBook(signal: AbortSignal): Promise<Book | undefined> {
    const { kvs } = await this.#members.ask(RANGE, { key: bytes(this.#book) }, signal);
    const [found] = kvs as unknown as KeyValue[];
    return found && { text: found.value.toString(), edition: found.mod_revision };
  }

  async writeBook(place: EtcdPlace, text: string, before: Book | undefined, signal: AbortSignal): Promise<void> {
    const key = bytes(place.handle!.key);
    const { succeeded, responses } = await this.#members.ask(
      TXN,
      {
        // Whoever has led keeps the lowest key until it is gone.
        compare: [
          { key, target: 'Create', result: 'Equal', create_revision: place.revision! },
          { key: bytes(this.#book), target: 'Mod', result: 'Equal', mod_revision: before?.edition ?? '0' },
        ],
        success: [{ request_put: { key: bytes(this.#book), value: bytes(text) } }],
        failure: [{ request_range: { key } }],
      },
      signal,
    );
    if (succeeded) return;
    const [own] = responses[0]!.response_range!.kvs;
    if (own?.create_revision !== place.revision) throw this.#gone(place);
    throw new Changed(`the key ${this.#book} has changed`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#members.close();
  }

  async #grant(place: EtcdPlace, signal: AbortSignal): Promise<void> {
    // Our own choice of id: an answer that is lost leaves a lease behind that holds no key and runs out.
    const lease = (randomBytes(8).readBigUInt64BE() >> 1n) | 1n;
    const TTL = Math.ceil(this.#candidate.ttlMs / 1000);
    const granted = await this.#members.ask(LEASE_GRANT, { ID: String(lease), TTL }, signal);
    place.ttlMs = Number(granted.TTL) * 1000;
    place.handle = { key: this.#prefix + lease.toString(16), lease: String(lease) };
  }

  /** Our own key; who leads; all who stand in the line, in their order; and the lines in which our name would be a key. */
  #look(key: string) {
    return [
      { request_range: { key: bytes(key) } },
      { request_range: { ...this.#line, limit: 1 } },
      { request_range: { ...this.#line, keys_only: true } },
    ];
  }

  /** All who stand in the line, in its order. */
  get #line() {
    return {
      key: bytes(this.#prefix),
      range_end: prefixEnd(this.#prefix),
      sort_target: 'Create',
      sort_order: 'Ascend',
    } as const;
  }

  /** An election inside ours (`a/b` in `a`) stands in our line, and nobody would ever lead. */
  #mustStandAlone(line: KeyValue[]): void {
    const stranger = line.find(({ key }) => !isSeat(key.toString().slice(this.#prefix.length)));
    if (!stranger) return;
    const { election } = this.#candidate;
    throw new Unusable(
      `--name ${election}: the key ${printable(stranger.key.toString())} lies below it and blocks the election; choose another name`,
    );
  }

  /** The other way round: our keys would stand in the line of `a` if our name is `a/b`. What we may not read is not looked at. */
  async #mustNotBlockParents(signal: AbortSignal): Promise<void> {
    for (const parent of parentsOf(this.#candidate.election)) {
      const range = {
        key: bytes(`${parent}/`),
        range_end: prefixEnd(`${parent}/`),
        keys_only: true,
        limit: PARENT_KEYS,
      };
      const { kvs } = await this.#members.ask(RANGE, range, signal).catch((error) => {
        if (error instanceof Refused) return { kvs: [] };
        throw error;
      });
      if (kvs.some(({ key }) => isSeat(key.toString().slice(parent.length + 1)))) {
        throw new Unusable(
          `--name ${this.#candidate.election} lies inside the election ${parent} and would block it; choose another name`,
        );
      }
    }
  }

  async #mustHave(place: EtcdPlace, key: string, signal: AbortSignal): Promise<void> {
    const own = { request_range: { key: bytes(key), keys_only: true } };
    const { kvs } = await this.#lookWithWord(place, [own], signal);
    if (!kvs[0]) throw this.#gone(place);
  }

  /** The first key of each range, by one linearizable look. The word that was left for us is read along with them, where we may. */
  async #lookWithWord(place: EtcdPlace, ranges: object[], signal: AbortSignal): Promise<Look> {
    const withWord = this.#mayReadWords
      ? this.#lookAt([...ranges, { request_range: { key: bytes(this.#word) } }], signal)
      : undefined;
    place.word = withWord?.then(
      ({ kvs }) => ({ text: kvs[ranges.length]?.value.toString() }),
      () => undefined,
    );
    try {
      return await (withWord ?? this.#lookAt(ranges, signal));
    } catch (error) {
      if (!(error instanceof Refused) || !withWord) throw error;
      this.#mayReadWords = false;
      return this.#lookWithWord(place, ranges, signal);
    }
  }

  async #lookAt(ranges: object[], signal: AbortSignal): Promise<Look> {
    const { header, responses } = await this.#members.ask(TXN, { compare: [], success: ranges, failure: [] }, signal);
    const kvs = responses.map(({ response_range }) => (response_range!.kvs as unknown as KeyValue[])[0]);
    return { kvs, revision: header.revision };
  }

  #gone(place: EtcdPlace): Gone {
    this.#taken = place.handle?.key;
    return new Gone(
      `key ${place.handle?.key ?? this.#prefix} is gone from etcd: deleted, or its lease expired or was revoked`,
    );
  }

  /** Resolves when one of the keys is not there (any more), with those that are seen to be gone; with none when aborted. Survives broken watches and compaction. */
  async #deletion(
    keys: string[],
    asOf: string,
    signal: AbortSignal,
    changed?: (key: string, value: string) => void,
  ): Promise<string[]> {
    for (let fromRevision = BigInt(asOf) + 1n; !signal.aborted; ) {
      try {
        return await this.#members.watchDeletion(keys, fromRevision, signal, changed);
      } catch {
        await pause(REOPEN_MS, signal);
      }
      try {
        const ranges = keys.map((key) => ({ request_range: { key: bytes(key), keys_only: true } }));
        const { kvs, revision } = await this.#lookAt(ranges, signal);
        const deleted = keys.filter((_, index) => !kvs[index]);
        if (deleted.length > 0) return deleted;
        fromRevision = BigInt(revision) + 1n;
      } catch {
        await pause(REOPEN_MS, signal);
      }
    }
    return [];
  }
}

const PARENT_KEYS = 16;
const WORD_SECONDS = 60;

/** Undefined unless it is that of this leader. */
function termOf(told: Pick<KeyValue, 'value'> | undefined, id: string): Term | undefined {
  try {
    const term = JSON.parse(told?.value.toString() ?? '{}') as Term;
    return term.id === id ? term : undefined;
  } catch {
    return undefined;
  }
}

const idIn = ({ value }: KeyValue): string => {
  const text = value.toString();
  return text.endsWith(RESIGNS) ? text.slice(0, -RESIGNS.length) : text;
};

const bytes = (text: string): Buffer => Buffer.from(text);

/** The end of the range of all keys with this prefix: its last byte plus one. A prefix ends with `/` here, so there is no carry. */
function prefixEnd(prefix: string): Buffer {
  const end = bytes(prefix);
  end[end.length - 1]! += 1;
  return end;
}

/** A lease id as etcd writes it into a candidate's key: hex without padding. */
const isSeat = (suffix: string): boolean => /^[0-9a-f]{1,16}$/.test(suffix);

/** `a/b/c` → `a`, `a/b`. */
function parentsOf(name: string): string[] {
  const parts = name.split('/');
  return parts
    .slice(1)
    .map((_, index) => parts.slice(0, index + 1).join('/'))
    .filter(Boolean);
}
