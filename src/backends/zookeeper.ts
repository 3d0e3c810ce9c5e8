import { randomUUID } from 'node:crypto';
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
import { now, pause, within } from '../clock.ts';
import { formatDuration } from '../durations.ts';
import { printable } from '../text.ts';
import { race } from '../waiting.ts';
import type { Candidate } from './index.ts';
import { ECHO_MS } from './zookeeper/connection.ts';
import {
  type Acl,
  ALL,
  type Client,
  CODES,
  CONTAINER,
  type Done,
  EPHEMERAL,
  EPHEMERAL_SEQUENTIAL,
  isAnswer,
  loadLibrary,
  PERSISTENT,
  READ,
} from './zookeeper/library.ts';
import { isCertain, isSeat, lineOf, type Seat, seatPrefix } from './zookeeper/line.ts';
import { Session } from './zookeeper/session.ts';
import { BOOKS, WORDS, type ZooKeeperSpec } from './zookeeper/spec.ts';

interface ZooKeeperPlace extends Place {
  /** What our znode's name begins with, and nobody else's. */
  handle: { seat: string } | undefined;
  session: Session | undefined;
  path: string | undefined;
  leads: boolean;
  /** Before the last request was sent that our place counts from, as far as the runner knows. */
  countedFrom: number;
  isTouched: boolean;
  /** The path of the znode just ahead of ours. */
  ahead: string | undefined;
  /** Who leads, by the name of its znode. */
  leader: { seat: string; id: string | undefined } | undefined;
}

/** A pause before a broken watch is set again, so that a dead server is not asked in a loop. */
const REOPEN_MS = 250;
/** Whose names are asked for, one request each. */
const MOST_SHOWN = 100;
/** Of a leader's session, in each ttl. */
const TOUCHES = 16;

/**
 * The line of Curator's LeaderLatch, of its locks, or of Kazoo's: one ephemeral sequential znode per candidate below the election's; the lowest
 * number leads; everybody watches the one just ahead. Our znode's data is our id, as the natives show it.
 *
 * The token is the czxid of our own znode, the number of the transaction that created it. Every later znode has a larger one, whatever
 * happened to the parent and its counter.
 */
export class ZooKeeperBackend implements Backend {
  readonly url: string;
  readonly #spec: ZooKeeperSpec;
  readonly #candidate: Candidate;
  readonly #parent: string;
  readonly #book: string;
  readonly #word: string;
  readonly #acl: Acl;
  readonly #sessions = new Set<Session>();
  /** One that no place has yet. */
  #idle: Session | undefined;

  constructor(spec: ZooKeeperSpec, candidate: Candidate) {
    loadLibrary();
    this.#spec = spec;
    this.#candidate = candidate;
    this.#parent = `${spec.chroot}/${candidate.election.replace(/^\//, '')}`;
    const node = encodeURIComponent(candidate.election.replace(/^\//, ''));
    this.#book = `${spec.chroot}/${BOOKS}/${node}`;
    this.#word = `${spec.chroot}/${WORDS}/${node}`;
    this.#acl = spec.auth
      ? [
          { perms: ALL, scheme: 'auth', auth: '' }, // whoever this session is
          { perms: READ, scheme: 'world', auth: 'anyone' },
        ]
      : [{ perms: ALL, scheme: 'world', auth: 'anyone' }];
    this.url = `zookeeper://${spec.endpoints.join(',')}${spec.chroot}`;
  }

  newPlace(): ZooKeeperPlace {
    return {
      ttlMs: undefined,
      handle: undefined,
      session: undefined,
      path: undefined,
      leads: false,
      countedFrom: 0,
      isTouched: false,
      ahead: undefined,
      leader: undefined,
    };
  }

  async acquire(place: ZooKeeperPlace, signal: AbortSignal): Promise<Leading | Waiting> {
    place.session ??= this.#takeSession();
    const { session } = place;
    try {
      if (!place.path) await this.#enter(place, session, signal);
    } finally {
      if (session.grantedMs !== undefined) place.ttlMs = session.grantedMs - this.#reserveMs;
    }
    this.#mustLastAsAsked(session.grantedMs!);
    const seats = await this.#line(session, signal);
    const position = seats.findIndex(({ name }) => this.#pathOf(name) === place.path);
    if (position === -1) throw this.#gone(place);
    if (!isCertain(seats[position]!)) {
      throw new Unusable(
        `--name ${this.#candidate.election}: the znode ${printable(this.#parent)} cannot number any more candidates; remove it while nobody stands in its line`,
      );
    }
    place.leads = position === 0;
    if (place.leads) {
      if (session.countsFrom(now()) < place.countedFrom - this.#reserveMs) await session.reopen(signal);
      return { leads: true };
    }
    place.ahead = this.#pathOf(seats[position - 1]!.name);
    return {
      leads: false,
      leader: await this.#whoLeads(place, session, seats[0]!.name, signal),
      since: undefined,
      position: position + 1,
    };
  }

  /**
   * What is said to last a ttl has to last that much longer, since the ensemble's leader may have heard of us last that long before: a touch of ours is as old as that
   * when it is shown to have been told.
   */
  get #reserveMs(): number {
    return Math.ceil(ECHO_MS + this.#touchEveryMs);
  }

  get #touchEveryMs(): number {
    return this.#candidate.ttlMs / TOUCHES;
  }

  /** With a shorter session than was planned for, the first renewal would come too late. */
  #mustLastAsAsked(grantedMs: number): void {
    if (grantedMs >= this.#candidate.ttlMs + this.#reserveMs) return;
    const enough = Math.floor((grantedMs - ECHO_MS) / (1 + 1 / TOUCHES) / 1000) * 1000;
    throw new Unusable(
      `--ttl ${formatDuration(this.#candidate.ttlMs)}: this ZooKeeper grants sessions of ${formatDuration(grantedMs)} at most (its maxSessionTimeout); choose a --ttl of ${formatDuration(enough)} or less`,
    );
  }

  async vacancy(place: ZooKeeperPlace, _waiting: Waiting, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await place.session!.change(place.ahead!, signal);
        return; // whatever it was: the next look tells
      } catch (error) {
        if (error instanceof Gone) return;
        await pause(REOPEN_MS, signal);
      }
    }
  }

  async confirm(place: ZooKeeperPlace, signal: AbortSignal): Promise<bigint> {
    const session = place.session!;
    // All of a session's requests are answered in their order: what the server shows is not older than that write.
    const [, seats, stat] = await Promise.all([
      this.#affirm(place, signal),
      this.#line(session, signal),
      this.#aboutOurs(place, session.stat(place.path!, signal)),
    ]);
    if (this.#pathOf(seats[0]?.name ?? '') !== place.path || stat.ephemeralOwner !== session.id)
      throw this.#gone(place);
    this.#touchOften(place, session);
    if (!Number.isSafeInteger(stat.czxid))
      throw new Unusable(
        `zookeeper: the transaction number ${stat.czxid} is beyond 2^53, and no token can be made of it`,
      );
    return BigInt(stat.czxid);
  }

  async renew(place: ZooKeeperPlace, signal: AbortSignal): Promise<number> {
    if (!place.path || !place.session) throw this.#gone(place);
    const { session } = place;
    const sentAt = now();
    if (place.leads) {
      await this.#affirm(place, signal);
      place.ttlMs = session.grantedMs! - Math.max(this.#reserveMs, sentAt - session.countsFrom(sentAt));
    } else {
      // Whether the ensemble's leader hears of it matters only once we lead.
      await this.#aboutOurs(place, session.stat(place.path, signal));
      place.ttlMs = session.grantedMs! - this.#reserveMs;
    }
    place.countedFrom = sentAt;
    return place.ttlMs;
  }

  /** Cheap, and answered by the server that we talk to: what a renewal is to count from. Ends with the session. */
  #touchOften(place: ZooKeeperPlace, session: Session): void {
    if (place.isTouched) return;
    place.isTouched = true;
    const keepTouching = async () => {
      for (const { signal } = session; ; ) {
        await pause(this.#touchEveryMs, signal);
        if (signal.aborted) return;
        await session.stat(place.path!, within(this.#candidate.requestMs, signal)).catch(() => {}); // the next renewal counts for less
      }
    };
    keepTouching();
  }

  /** A session that was shortened may end before the time that its last renewal was good for. */
  async gone(place: ZooKeeperPlace, signal: AbortSignal): Promise<Gone> {
    const session = place.session!;
    const shortenedTo = await race([session.shortened, this.#disappears(session, place.path!, signal)]);
    if (shortenedTo !== undefined) return this.#shortened(shortenedTo);
    if (signal.aborted) return new Promise(() => {});
    return this.#gone(place);
  }

  async release(place: ZooKeeperPlace, signal: AbortSignal): Promise<void> {
    if (!place.handle) return;
    const session = place.session ?? this.#newSession();
    try {
      if (place.session && !place.path) {
        await session.end(signal); // what an unanswered create has made goes with it
      } else {
        const path = place.path ?? (await this.#find(place.handle.seat, session, signal));
        if (path) await session.call(signal, (client, done: Done<[]>) => client.a_delete_(path, -1, done));
      }
    } catch (error) {
      // Gone with its session, or deleted.
      if (!(error instanceof Gone) && !isAnswer(error, CODES.noNode)) throw this.#read(error);
    } finally {
      await session.end(signal).catch(() => {}); // it holds nothing more, or runs out
      this.#sessions.delete(session);
    }
    place.handle = undefined;
    place.path = undefined;
  }

  async observe(signal: AbortSignal): Promise<Observation> {
    const session = this.#sessionForBook();
    await session.call(signal, (client, done: Done<[string]>) => client.a_sync(this.#parent, done));
    const seats = (await this.#line(session, signal)).map(({ name }) => name);
    const ids = await Promise.all(seats.slice(0, MOST_SHOWN).map((name) => this.#whoIs(session, name, signal)));
    if (seats.length === 0) return { leader: undefined, waiting: [] };
    const path = this.#pathOf(seats[0]!);
    const stat = await session.stat(path, signal).catch((error) => {
      if (isAnswer(error, CODES.noNode)) return undefined;
      throw this.#read(error);
    });
    const token = stat && String(stat.czxid);
    const [id] = ids;
    return {
      leader: { id, token, since: undefined, leftMs: undefined },
      waiting: seats.slice(1).map((_, index) => ids[index + 1]),
    };
  }

  /** It goes with the session of whoever left it. */
  async leaveWord(word: string | undefined, signal: AbortSignal): Promise<void> {
    const session = this.#sessionForBook();
    const remove = () =>
      session
        .call(signal, (client, done: Done<[]>) => client.a_delete_(this.#word, -1, done))
        .catch((error) => {
          if (!isAnswer(error, CODES.noNode)) throw error;
        });
    /** False: somebody else has left one since. */
    const isPut = (text: string) =>
      this.#create(this.#word, Buffer.from(text), EPHEMERAL, session, signal).then(
        () => true,
        (error) => {
          if (!isAnswer(error, CODES.nodeExists)) throw error;
          return false;
        },
      );
    try {
      do await remove();
      while (word !== undefined && !(await isPut(word)));
    } catch (error) {
      throw this.#read(error, this.#word);
    }
  }

  async readWord(place: ZooKeeperPlace, signal: AbortSignal): Promise<string | undefined> {
    const session = place.session ?? this.#sessionForBook();
    try {
      const [, data] = await session.call(signal, (client, done: Done<[unknown, Buffer | null]>) =>
        client.a_get(this.#word, false, done as never),
      );
      return data?.toString();
    } catch (error) {
      if (isAnswer(error, CODES.noNode)) return undefined;
      throw this.#read(error, this.#word);
    }
  }

  async readBook(signal: AbortSignal): Promise<Book | undefined> {
    const session = this.#sessionForBook();
    try {
      // A server may lag behind.
      await session.call(signal, (client, done: Done<[string]>) => client.a_sync(this.#book, done));
      const [stat, data] = await session.call(signal, (client, done: Done<[{ version: number }, Buffer | null]>) =>
        client.a_get(this.#book, false, done as never),
      );
      return { text: data?.toString() ?? '', edition: String(stat.version) };
    } catch (error) {
      if (isAnswer(error, CODES.noNode)) return undefined;
      throw this.#read(error, this.#book);
    }
  }

  /**
   * The npm package has no multi: first a quorum agrees that our znode is there, then the book is written where its version is still the one that was read. Whoever
   * leads next has written it before its child starts.
   */
  async writeBook(place: ZooKeeperPlace, text: string, before: Book | undefined, signal: AbortSignal): Promise<void> {
    await this.#affirm(place, signal);
    const session = this.#sessionForBook();
    const data = Buffer.from(text);
    try {
      if (before) {
        const version = Number(before.edition);
        await session.call(signal, (client, done: Done<[unknown]>) => client.a_set(this.#book, data, version, done));
      } else {
        await this.#createBook(session, data, signal);
      }
    } catch (error) {
      if (isAnswer(error, CODES.badVersion, CODES.nodeExists, CODES.noNode))
        throw new Changed(`the znode ${this.#book} has changed`);
      throw this.#read(error, this.#book);
    }
  }

  /** That of our place; before we have one, the one that it will have. */
  #sessionForBook(): Session {
    const [latest] = [...this.#sessions].slice(-1);
    if (latest) return latest;
    this.#idle = this.#newSession();
    return this.#idle;
  }

  /** What is above it is not made as containers: it is to outlive its election. */
  async #create(path: string, data: Buffer, flags: number, session: Session, signal: AbortSignal): Promise<void> {
    const make = (node: string, text: Buffer, how: number) =>
      session.call(signal, (client, done: Done<[string]>) => client.a_create(node, text, how, done));
    await make(path, data, flags).catch(async (error) => {
      if (!isAnswer(error, CODES.noNode)) throw error;
      const parts = path.split('/').slice(1, -1);
      for (const depth of parts.keys()) {
        await make(`/${parts.slice(0, depth + 1).join('/')}`, Buffer.alloc(0), PERSISTENT).catch((problem) => {
          if (!isAnswer(problem, CODES.nodeExists) && !isAnswer(problem, CODES.noAuth)) throw problem;
        });
      }
      await make(path, data, flags);
    });
  }

  async #createBook(session: Session, data: Buffer, signal: AbortSignal): Promise<void> {
    await this.#create(this.#book, data, PERSISTENT, session, signal);
    if (this.#spec.auth)
      await session.call(signal, (client, done: Done<[]>) => client.a_set_acl(this.#book, -1, this.#acl, done));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#idle?.end(within(this.#candidate.requestMs));
    for (const session of this.#sessions) session.cut();
  }

  #takeSession(): Session {
    const session = this.#idle ?? this.#newSession();
    this.#idle = undefined;
    return session;
  }

  #newSession(): Session {
    const { ttlMs } = this.#candidate;
    const session = new Session(this.#spec, { ...this.#candidate, ttlMs: ttlMs + this.#reserveMs });
    this.#sessions.add(session);
    return session;
  }

  async #enter(place: ZooKeeperPlace, session: Session, signal: AbortSignal): Promise<void> {
    place.countedFrom = now();
    // The answer to an earlier attempt may be lost.
    if (place.handle) place.path = await this.#find(place.handle.seat, session, signal);
    place.handle ??= { seat: seatPrefix(this.#spec.flavor, randomUUID()) };
    if (!place.path) {
      const path = this.#pathOf(place.handle.seat);
      const data = Buffer.from(this.#candidate.id);
      const create = (client: Client, done: Done<[string]>) => client.a_create(path, data, EPHEMERAL_SEQUENTIAL, done);
      const [created] = await session.call(signal, create).catch(async (error) => {
        if (!isAnswer(error, CODES.noNode)) throw this.#read(error);
        await this.#makeParents(session, signal);
        return this.#aboutOurs(place, session.call(signal, create));
      });
      place.path = created;
    }
    if (this.#spec.auth) await this.#affirm(place, signal);
  }

  /** The path of the znode that was created by this name. */
  async #find(seat: string, session: Session, signal: AbortSignal): Promise<string | undefined> {
    const name = (await this.#children(session, this.#parent, signal)).find((child) => child.startsWith(seat));
    return name && this.#pathOf(name);
  }

  /**
   * A write that changes nothing: a quorum has agreed that our znode is there, which a read does not show (a server that is cut off from the
   * others goes on answering reads). It must not change the data: Curator's LeaderLatch spends its one watch on that, and never
   * hears of the deletion. Nobody can watch an ACL.
   */
  async #affirm(place: ZooKeeperPlace, signal: AbortSignal): Promise<void> {
    const setAcl = (client: Client, done: Done<[]>) => client.a_set_acl(place.path!, -1, this.#acl, done);
    await this.#aboutOurs(place, place.session!.call(signal, setAcl));
  }

  async #line(session: Session, signal: AbortSignal): Promise<Seat[]> {
    const { seats, strangers } = lineOf(this.#spec.flavor, await this.#children(session, this.#parent, signal));
    if (strangers.length > 0) {
      throw new Unusable(
        `--name ${this.#candidate.election}: the znode ${printable(this.#pathOf(strangers[0]!))} lies below it and does not belong into the line of ` +
          `--zk-flavor ${this.#spec.flavor}; choose another name or flavor`,
      );
    }
    return seats;
  }

  async #children(session: Session, path: string, signal: AbortSignal): Promise<string[]> {
    try {
      const [names] = await session.call(signal, (client, done: Done<[string[]]>) =>
        client.a_get_children(path, false, done),
      );
      return names;
    } catch (error) {
      if (isAnswer(error, CODES.noNode)) return [];
      throw this.#read(error);
    }
  }

  /** Asked once for each leader. */
  async #whoLeads(
    place: ZooKeeperPlace,
    session: Session,
    seat: string,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    if (place.leader?.seat !== seat) place.leader = { seat, id: await this.#whoIs(session, seat, signal) };
    return place.leader.id;
  }

  async #whoIs(session: Session, name: string, signal: AbortSignal): Promise<string | undefined> {
    try {
      const [, data] = await session.call(signal, (client, done: Done<[unknown, Buffer | null]>) =>
        client.a_get(this.#pathOf(name), false, done as never),
      );
      return data?.toString();
    } catch (error) {
      if (isAnswer(error, CODES.noNode, CODES.noAuth)) return undefined;
      throw error;
    }
  }

  /** Containers, which ZooKeeper removes when their last child is gone; plain znodes where it has none (before 3.5.3). */
  async #makeParents(session: Session, signal: AbortSignal): Promise<void> {
    const parts = this.#parent.split('/').slice(1);
    for (let depth = 1; depth <= parts.length; depth++) {
      const path = `/${parts.slice(0, depth).join('/')}`;
      if (depth > 1) await this.#mustNotBlock(session, path, signal);
      const make = (flags: number) =>
        session.call(signal, (client, done: Done<[string]>) => client.a_create(path, Buffer.alloc(0), flags, done));
      try {
        await make(CONTAINER).catch((error) => {
          if (isAnswer(error, CODES.unimplemented)) return make(0);
          throw error;
        });
        if (this.#spec.auth && depth === parts.length)
          await session.call(signal, (client, done: Done<[]>) => client.a_set_acl(path, -1, this.#acl, done));
      } catch (error) {
        const isThere = isAnswer(error, CODES.nodeExists) || (depth < parts.length && isAnswer(error, CODES.noAuth));
        if (!isThere) throw this.#read(error);
      }
    }
  }

  /** A znode of ours inside another election would stand in its line. */
  async #mustNotBlock(session: Session, path: string, signal: AbortSignal): Promise<void> {
    const above = path.slice(0, path.lastIndexOf('/'));
    const children = await this.#children(session, above, signal).catch((error) => {
      if (error instanceof Refused) return [];
      throw error;
    });
    if (children.some(isSeat))
      throw new Unusable(
        `--name ${this.#candidate.election} lies inside the election ${above} and would stand in its line; choose another name`,
      );
  }

  /** Resolves when the znode is not there (any more); also when aborted. Survives lost connections. */
  async #disappears(session: Session, path: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await session.stat(path, signal);
        await session.change(path, signal);
      } catch (error) {
        if (error instanceof Gone || isAnswer(error, CODES.noNode)) return;
        await pause(REOPEN_MS, signal);
      }
    }
  }

  /** What was asked about our own znode: that it is not there is Gone. */
  async #aboutOurs<Answer>(place: ZooKeeperPlace, asked: Promise<Answer>): Promise<Answer> {
    try {
      return await asked;
    } catch (error) {
      throw isAnswer(error, CODES.noNode) ? this.#gone(place) : this.#read(error);
    }
  }

  #read(error: unknown, path = this.#parent): unknown {
    if (isAnswer(error, CODES.noAuth)) {
      const { auth } = this.#spec;
      const who = auth ? `user ${auth.username} (or its password is wrong)` : 'nobody without --user';
      return new Refused(
        `zookeeper: ${who} ${auth ? 'may not do this' : 'may do this'}; needed are read, create${path !== this.#parent ? ' and write' : ' and delete'} on ${path}`,
      );
    }
    if (isAnswer(error, CODES.noChildrenForEphemerals))
      return new Unusable(`--name ${this.#candidate.election}: a znode above ${this.#parent} is ephemeral`);
    return error;
  }

  #pathOf(name: string): string {
    return `${this.#parent}/${name}`;
  }

  #shortened(toMs: number): Gone {
    const lengths = `${formatDuration(this.#candidate.ttlMs + this.#reserveMs)} to ${formatDuration(toMs)}`;
    return new Gone(`our session with ZooKeeper was shortened from ${lengths} (its maxSessionTimeout)`);
  }

  #gone(place: ZooKeeperPlace): Gone {
    return new Gone(`znode ${place.path ?? this.#parent} is gone from ZooKeeper: deleted, or its session expired`);
  }
}
