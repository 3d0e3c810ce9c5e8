import {
  type Backend,
  type Book,
  Changed,
  Gone,
  type Leading,
  type Place,
  Refused,
  type Observation as Seen,
  type Waiting,
} from '../backend.ts';
import { now, pause, within } from '../clock.ts';
import { printable } from '../text.ts';
import { race, under } from '../waiting.ts';
import type { Candidate } from './index.ts';
import { Conflict, LeaseApi } from './kubernetes/api.ts';
import { Cluster } from './kubernetes/cluster.ts';
import {
  acquired,
  durationMsOf,
  holderOf,
  type Lease,
  type Observation,
  observed,
  released,
  renewed,
} from './kubernetes/record.ts';
import { BOOK_SUFFIX, type KubernetesSpec, mustBeNamespace } from './kubernetes/spec.ts';

interface KubernetesPlace extends Place {
  handle: KubernetesHandle | undefined;
  /** As it was seen or written last. */
  lease: Lease | undefined;
  observation: Observation | undefined;
  /** resourceVersion of the write by which we came to lead. */
  token: string | undefined;
}

/** Which Lease, also when the kubeconfig's current context is another one by then. */
interface KubernetesHandle {
  context: string;
}

/** A pause before a broken watch is opened again. */
const REOPEN_MS = 250;
/** Where we may not watch. */
const POLL_MS = 1000;

/**
 * A Lease by the rules of client-go's leaderelection, so one election with its candidates: whoever finds no Lease, no holder, or a record that has stood
 * unchanged for the record's own duration on the finder's clock, writes itself into it by compare-and-swap.
 *
 * The token is the resourceVersion of that write. It is a revision of the whole store, so it grows also across a deleted Lease; leaseTransitions
 * would start again.
 */
export class KubernetesBackend implements Backend {
  readonly url: string;
  readonly #candidate: Candidate;
  readonly #cluster: Cluster;
  readonly #namespace: string;
  readonly #api: LeaseApi;
  /** The book is an annotation of a Lease of its own, which outlives that of the election. */
  readonly #bookApi: LeaseApi;
  readonly #bookName: string;
  /** Leases count whole seconds. */
  readonly #seconds: number;

  constructor(spec: KubernetesSpec, candidate: Candidate) {
    this.#candidate = candidate;
    this.#cluster = new Cluster(spec);
    this.#namespace = spec.namespace ?? this.#cluster.namespace ?? 'default';
    mustBeNamespace(this.#namespace, `--backend kubernetes: the namespace of context ${this.#cluster.context}`);
    this.#api = new LeaseApi(this.#cluster, this.#namespace, candidate.election);
    this.#bookName = candidate.election + BOOK_SUFFIX;
    this.#bookApi = new LeaseApi(this.#cluster, this.#namespace, this.#bookName);
    this.#seconds = Math.ceil(candidate.ttlMs / 1000);
    this.url = `kubernetes://${this.#namespace}`;
  }

  newPlace(): KubernetesPlace {
    return { ttlMs: undefined, handle: undefined, lease: undefined, observation: undefined, token: undefined };
  }

  async acquire(place: KubernetesPlace, signal: AbortSignal): Promise<Leading | Waiting> {
    for (;;) {
      const lease = await this.#api.read(signal);
      if (place.ttlMs !== undefined && !this.#isOurs(place, lease)) throw this.#gone(lease);
      observe(place, lease);
      const holder = holderOf(lease);
      if (holder !== this.#candidate.id && leftMs(place) > 0) {
        place.handle = undefined;
        return {
          leads: false,
          leader: holder || undefined,
          since: (holder && lease?.spec?.acquireTime) || undefined,
          position: undefined,
        };
      }
      // Before the write, whose answer may be lost.
      place.handle ??= { context: this.#cluster.context };
      const written = await this.#write(lease, signal);
      if (!written) continue;
      place.lease = written;
      place.token = written.metadata.resourceVersion;
      place.ttlMs = this.#seconds * 1000;
      return { leads: true };
    }
  }

  async vacancy(place: KubernetesPlace, _waiting: Waiting, signal: AbortSignal): Promise<void> {
    const over = under(signal);
    try {
      const freed = this.#follow(
        place,
        (lease) => {
          observe(place, lease);
          return leftMs(place) <= 0;
        },
        over.signal,
      );
      await race([freed, ranOut(place, over.signal)]);
    } finally {
      over.abort();
    }
  }

  async confirm(place: KubernetesPlace, signal: AbortSignal): Promise<bigint> {
    const lease = await this.#api.read(signal);
    if (!this.#isOurs(place, lease)) throw this.#gone(lease);
    if (annotationsOf(lease)[TOKEN] !== this.#tokenOf(place)) this.#tellToken(place, lease!);
    return BigInt(place.token!);
  }

  /** For observers. Where something comes in between, the next renewal tells it. */
  #tellToken(place: KubernetesPlace, lease: Lease): void {
    const told = withAnnotation(lease, TOKEN, this.#tokenOf(place));
    this.#api.replace(told, within(this.#candidate.requestMs)).then(
      (written) => {
        if (written && this.#isOurs(place, written)) place.lease = written;
      },
      () => {},
    );
  }

  #tokenOf = (place: KubernetesPlace): string => `${this.#candidate.id} ${place.token}`;

  async renew(place: KubernetesPlace, signal: AbortSignal): Promise<number> {
    for (let { lease } = place; ; lease = await this.#api.read(signal)) {
      if (!lease || !this.#isOurs(place, lease)) throw this.#gone(lease);
      const told = withAnnotation(renewed(lease, this.#seconds), TOKEN, this.#tokenOf(place));
      const written = await this.#api.replace(told, signal).catch(nothingIfConflict);
      if (!written) continue;
      place.lease = written;
      return this.#seconds * 1000;
    }
  }

  async gone(place: KubernetesPlace, signal: AbortSignal): Promise<Gone> {
    let last: Lease | undefined;
    await this.#follow(
      place,
      (lease) => {
        last = lease;
        return !this.#isOurs(place, lease);
      },
      signal,
    );
    if (signal.aborted) return new Promise(() => {});
    return this.#gone(last);
  }

  async release(place: KubernetesPlace, signal: AbortSignal): Promise<void> {
    if (!place.handle) return;
    this.#cluster.use(place.handle.context);
    // What was seen last may be older than a write of ours whose answer was lost.
    const seen = holderOf(place.lease) === this.#candidate.id ? place.lease : undefined;
    for (let lease = seen ?? (await this.#api.read(signal)); ; lease = await this.#api.read(signal)) {
      if (!lease || holderOf(lease) !== this.#candidate.id) break;
      if (await this.#api.replace(released(lease), signal).catch(nothingIfConflict)) break;
    }
    place.handle = undefined;
  }

  /** What is left is by the leader's clock and ours: for people, not for decisions. */
  async observe(signal: AbortSignal): Promise<Seen> {
    const lease = await this.#api.read(signal);
    const id = holderOf(lease);
    if (id === '') return { leader: undefined, waiting: undefined };
    const { acquireTime, renewTime } = lease!.spec!;
    const runsOutAt = Date.parse(renewTime ?? '') + durationMsOf(lease!);
    const leftMs = Number.isNaN(runsOutAt) ? undefined : Math.max(0, runsOutAt - Date.now());
    const told = annotationsOf(lease)[TOKEN] ?? '';
    const token = told.startsWith(`${id} `) ? told.slice(id.length + 1) : undefined;
    return { leader: { id, token, since: acquireTime ?? undefined, leftMs }, waiting: undefined };
  }

  /** An annotation of the Lease itself, so that kubectl can leave one, too. */
  async leaveWord(word: string | undefined, signal: AbortSignal): Promise<void> {
    for (;;) {
      const lease = await this.#api.read(signal);
      if (!lease || (word === undefined && annotationsOf(lease)[WORD] === undefined)) return;
      const left = word && `${new Date(this.#api.answeredAt).toISOString()} ${word}`;
      const told = withAnnotation(withAnnotation(lease, WORD, word), WORD_LEFT, left);
      if (await this.#api.replace(told, signal).catch(nothingIfConflict)) return;
    }
  }

  /** As the last renewal has shown it. */
  async readWord(place: KubernetesPlace, _signal: AbortSignal): Promise<string | undefined> {
    const { [WORD]: word, [WORD_LEFT]: left = '' } = annotationsOf(place.lease);
    if (word === undefined || !left.endsWith(` ${word}`)) return word; // kubectl's own
    const leftAt = Date.parse(left.slice(0, -word.length - 1));
    return this.#api.answeredAt - leftAt < WORD_MS ? word : undefined;
  }

  async readBook(signal: AbortSignal): Promise<Book | undefined> {
    const lease = await this.#bookApi.read(signal);
    const text = annotationsOf(lease)[BOOK];
    return text === undefined ? undefined : { text, edition: lease!.metadata.resourceVersion! };
  }

  /** Whoever leads next has written the book, and so moved its resourceVersion, before its child starts. */
  async writeBook(place: KubernetesPlace, text: string, before: Book | undefined, signal: AbortSignal): Promise<void> {
    await this.confirm(place, signal);
    const found = await this.#bookApi.read(signal);
    if (annotationsOf(found)[BOOK] !== before?.text) throw new Changed(`the Lease ${this.#bookName} has changed`);
    const lease = found ?? { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: this.#bookName } };
    const edited = withAnnotation(lease, BOOK, text);
    const written = await (found ? this.#bookApi.replace(edited, signal) : this.#bookApi.create(edited, signal)).catch(
      nothingIfConflict,
    );
    if (!written) throw new Changed(`the Lease ${this.#bookName} has changed`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cluster.close();
  }

  /** Undefined: somebody else wrote first, or deleted it. */
  #write(lease: Lease | undefined, signal: AbortSignal): Promise<Lease | undefined> {
    const { id, election } = this.#candidate;
    if (lease) return this.#api.replace(acquired(lease, id, this.#seconds), signal).catch(nothingIfConflict);
    const empty = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: election } };
    return this.#api.create(acquired(empty, id, this.#seconds), signal).catch(nothingIfConflict);
  }

  /** Whether it is the very object that we hold, for as long as we believe: others go by the duration that stands in it. */
  #isOurs(place: KubernetesPlace, lease: Lease | undefined): boolean {
    return (
      lease !== undefined &&
      holderOf(lease) === this.#candidate.id &&
      lease.metadata.uid === place.lease?.metadata.uid &&
      durationMsOf(lease) >= this.#seconds * 1000
    );
  }

  #gone(lease: Lease | undefined): Gone {
    const name = `Lease ${this.#namespace}/${this.#candidate.election}`;
    if (!lease) return new Gone(`${name} was deleted`);
    const holder = holderOf(lease);
    if (holder === '') return new Gone(`the holder of ${name} was removed`);
    if (holder !== this.#candidate.id) return new Gone(`${name} is held by ${printable(holder)}`);
    return new Gone(`${name} was created anew, or its duration was shortened, by somebody else`);
  }

  /**
   * Shows the Lease (undefined: deleted) whenever it changes, until `isEnough` or aborted; never rejects. By a watch, which may break; where we
   * may not watch, by polling.
   */
  async #follow(
    place: KubernetesPlace,
    isEnough: (lease: Lease | undefined) => boolean,
    signal: AbortSignal,
  ): Promise<void> {
    for (let from = place.lease?.metadata.resourceVersion; !signal.aborted; ) {
      let pauseMs = REOPEN_MS;
      try {
        if (from !== undefined) return await this.#api.watch(from, isEnough, signal);
      } catch (error) {
        if (error instanceof Refused) pauseMs = POLL_MS * (0.75 + Math.random() / 2);
      }
      await pause(pauseMs, signal);
      try {
        const lease = await this.#api.read(within(this.#candidate.requestMs, signal));
        if (isEnough(lease)) return;
        from = lease!.metadata.resourceVersion;
      } catch {
        // Unanswered: the next look is due after the same pause.
      }
    }
  }
}

/** The annotation with the run records. */
const BOOK = 'elect-run/runs';
/** The annotation with a word for the leader. */
const WORD = 'elect-run/word';
/** The annotation that tells when that word was left, and which: the API server forgets nothing by itself. */
const WORD_LEFT = 'elect-run/word-left';
const WORD_MS = 60_000;
/** The annotation with the holder's name and token, for observers. */
const TOKEN = 'elect-run/token';

const annotationsOf = (lease: Lease | undefined): Record<string, string> =>
  (lease?.metadata.annotations as Record<string, string> | undefined) ?? {};

/** Undefined: without it. */
function withAnnotation(lease: Lease, name: string, text: string | undefined): Lease {
  const annotations = { ...annotationsOf(lease), [name]: text };
  return { ...lease, metadata: { ...lease.metadata, annotations } };
}

function observe(place: KubernetesPlace, lease: Lease | undefined): void {
  place.lease = lease;
  place.observation = observed(place.observation, lease, now());
}

/** Until anybody may take over. */
const leftMs = ({ observation }: KubernetesPlace): number => (observation ? observation.runsOutAt - now() : 0);

/** Resolves when the record has stood unchanged for its duration, and when aborted. */
async function ranOut(place: KubernetesPlace, signal: AbortSignal): Promise<void> {
  // In pieces: the record may change, and with it the duration.
  for (let restMs = leftMs(place); restMs > 0 && !signal.aborted; restMs = leftMs(place))
    await pause(Math.min(restMs, POLL_MS), signal);
}

function nothingIfConflict(error: Error): undefined {
  if (error instanceof Conflict) return undefined;
  throw error;
}
