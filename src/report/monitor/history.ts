import { now } from '../../clock.ts';
import type { Event } from '../../events.ts';
import { printable } from '../../text.ts';

/** What is kept of the past, and shown. */
export const HOUR_MS = 3_600_000;
const MOST_SPANS = 500;
const MOST_RUNS = 50;
/** Another program's name may be of any length. */
const LONGEST_NAME = 200;
const BIN_MS = 15_000;
const BINS = HOUR_MS / BIN_MS;

export type State = 'campaigning' | 'unreachable' | 'standby' | 'leading' | 'suspended' | 'stepping-down';

/** `nobody`: seen to be without a leader. `unknown`: the store could not be asked. */
interface Span {
  kind: 'leader' | 'nobody' | 'unknown';
  leader?: string;
  isUs?: boolean;
  token?: string;
  fromAt: number;
  toAt?: number;
}

export type ExitCause = 'success' | 'failure' | 'signal' | 'lost' | 'stop-timeout';

interface ChildRun {
  slot: string | undefined;
  token: string;
  startedAt: number;
  endedAt?: number;
  cause?: ExitCause;
  status?: number;
}

/** The renewals of some seconds. */
interface Bin {
  number: number;
  count: number;
  worstMs: number;
  doubts: number;
}

/** What this candidate has seen of its election, made from events; of the last hour, and never more than fits into some hundred kB. */
export class History {
  state: State = 'campaigning';
  /** Why, where that is not plain. */
  reason = '';
  position: number | undefined;
  backend = '';
  /** As the store or we tell it, RFC 3339. */
  since: string | undefined;
  /** Of our own leadership; empty when we do not lead. */
  token = '';
  /** Our lease, by the last confirmed renewal. */
  validUntilAt = Number.POSITIVE_INFINITY;
  confirmedAt: number | undefined;
  transitions = 0;
  suspensions = 0;
  leftovers = 0;
  childStarts = 0;
  readonly childExits: Record<ExitCause, number> = {
    success: 0,
    failure: 0,
    signal: 0,
    lost: 0,
    'stop-timeout': 0,
  };
  readonly #id: string;
  readonly #spans: Span[] = [{ kind: 'unknown', fromAt: now() }];
  readonly #runs: ChildRun[] = [];
  readonly #bins: Bin[] = [];
  #lastLeader: string | undefined;
  #pastLeaderlessMs = 0;

  constructor(id: string) {
    this.#id = id;
  }

  /** From winning to having given the lease back. */
  get leads(): boolean {
    return this.token !== '';
  }

  /** Who leads, as far as we know. */
  get leader(): Span | undefined {
    const last = this.#spans.at(-1)!;
    return last.kind === 'leader' ? last : undefined;
  }

  /** All of it, the present gap included. */
  get leaderlessMs(): number {
    const last = this.#spans.at(-1)!;
    return this.#pastLeaderlessMs + (last.kind === 'nobody' ? now() - last.fromAt : 0);
  }

  /** Since the last confirmed renewal was sent; undefined: we do not lead. */
  get unconfirmedMs(): number | undefined {
    return this.leads && this.confirmedAt !== undefined ? now() - this.confirmedAt : undefined;
  }

  take(event: Event): void {
    switch (event.type) {
      case 'campaigning':
        this.backend = event.backend;
        return;
      case 'unreachable':
        this.#become('unreachable', event.reason);
        this.#begin({ kind: 'unknown', fromAt: now() });
        return;
      case 'place-lost':
        this.#become('campaigning', event.reason);
        return;
      case 'standby':
        this.#become('standby');
        this.position = event.position;
        this.#standby(event.leader ?? '', event.since, event.leaderlessMs);
        return;
      case 'elected':
        this.#become('leading');
        this.token = event.token;
        this.since = new Date().toISOString();
        this.confirmedAt = now();
        this.validUntilAt = now() + event.ttlMs;
        this.transitions++;
        this.#lead(
          { leader: this.#id, isUs: true, token: event.token, kind: 'leader', fromAt: now() },
          event.leaderlessMs,
        );
        return;
      case 'renewed':
        this.confirmedAt = now() - event.tookMs;
        this.validUntilAt = now() + event.validForMs;
        this.#bin((bin) => {
          bin.count++;
          bin.worstMs = Math.max(bin.worstMs, event.tookMs);
        });
        return;
      case 'suspended':
        this.#become('suspended', event.reason);
        this.suspensions++;
        this.#bin((bin) => {
          bin.doubts++;
        });
        return;
      case 'resumed':
        this.#become('leading');
        return;
      case 'stepping-down':
        this.#become('stepping-down', event.reason);
        return;
      case 'started':
        this.childStarts++;
        this.#runs.unshift({ slot: event.slot, token: event.token, startedAt: now() });
        this.#runs.length = Math.min(this.#runs.length, MOST_RUNS);
        return;
      case 'ended':
        this.#ended(causeOf(event), event.status);
        return;
      case 'leftovers':
        this.leftovers += event.pids.length;
        return;
      case 'deposed':
        this.#ended('lost');
        this.#endLeading(event.reason);
        return;
      case 'resigned':
        this.#endLeading('');
        return;
      case 'left-to-expire':
        this.#ended('lost');
        this.#endLeading(event.reason);
        return;
    }
  }

  /** As plain data, for whoever shows it. Times of the past are ages, in ms. */
  snapshot() {
    const at = now();
    const recent = this.#spans.filter(({ toAt }) => toAt === undefined || at - toAt < HOUR_MS);
    const age = (instant: number) => Math.max(0, Math.round(at - instant));
    const oldestBin = binAt(at) - BINS + 1;
    const within = (ms: number, fromAt: number) => Math.max(0, Math.min(ms, Math.round(at - fromAt)));
    return {
      at: new Date().toISOString(),
      state: this.state,
      reason: this.reason,
      backend: this.backend,
      id: this.#id,
      leads: this.leads,
      token: this.token || null,
      leader: this.leader ? this.leader.leader! : null,
      since: this.leader ? (this.since ?? null) : null,
      position: this.state === 'standby' ? (this.position ?? null) : null,
      unconfirmedMs: this.unconfirmedMs === undefined ? null : Math.round(this.unconfirmedMs),
      validForMs: this.leads && Number.isFinite(this.validUntilAt) ? Math.round(this.validUntilAt - at) : null,
      windowMs: HOUR_MS,
      spans: recent.map(({ kind, leader, isUs, token, fromAt, toAt }) => ({
        kind,
        leader: leader ?? null,
        isUs: isUs ?? false,
        token: token ?? null,
        fromMs: age(fromAt),
        toMs: toAt === undefined ? 0 : age(toAt),
        isOpen: toAt === undefined,
      })),
      leaderlessMs: recent
        .filter(({ kind }) => kind === 'nobody')
        .reduce((sum, { fromAt, toAt = at }) => sum + within(HOUR_MS, fromAt) - within(HOUR_MS, toAt), 0),
      changes: Math.max(0, recent.filter(({ kind }) => kind === 'leader').length - 1),
      renewals: {
        binMs: BIN_MS,
        /** [which one of the hour's, renewals, the slowest in ms, times that leadership was in doubt] */
        bins: this.#bins
          .filter(({ number }) => number >= oldestBin)
          .map(({ number, count, worstMs, doubts }) => [number - oldestBin, count, worstMs, doubts]),
      },
      runs: this.#runs.map(({ slot, token, startedAt, endedAt, cause, status }) => ({
        slot: slot ?? null,
        token,
        startedMs: age(startedAt),
        tookMs: Math.round((endedAt ?? at) - startedAt),
        cause: cause ?? null,
        status: status ?? null,
      })),
    };
  }

  #become(state: State, reason = ''): void {
    this.state = state;
    this.reason = clean(reason);
  }

  #standby(name: string, since: string | undefined, leaderlessMs: number | undefined): void {
    const leader = clean(name);
    const isOther = leader !== this.#lastLeader;
    if (!isOther && this.leader) return;
    if (isOther && this.#lastLeader !== undefined) this.transitions++;
    const sinceMs = since === undefined ? Number.NaN : Date.now() - Date.parse(since);
    // By another host's clock.
    const isCredible = isOther && sinceMs >= 0 && leaderlessMs === undefined;
    const fromAt = now() - (isCredible ? Math.min(sinceMs, HOUR_MS) : 0);
    this.since = Number.isNaN(sinceMs) ? undefined : new Date(Date.parse(since!)).toISOString();
    this.#lead({ kind: 'leader', leader, isUs: false, fromAt }, leaderlessMs);
  }

  #lead(span: Span, leaderlessMs: number | undefined): void {
    if (leaderlessMs !== undefined) this.#begin({ kind: 'nobody', fromAt: now() - leaderlessMs });
    this.#begin(span);
    this.#lastLeader = span.leader!;
  }

  #begin(span: Span): void {
    const [first] = this.#spans;
    // What was before we came is known from the store.
    if (this.#spans.length === 1 && first!.kind === 'unknown' && span.kind === 'leader') {
      first!.fromAt = Math.min(first!.fromAt, span.fromAt);
    }
    const last = this.#spans.at(-1)!;
    if (last.kind === span.kind && span.kind !== 'leader') return;
    last.toAt = Math.max(last.fromAt, span.fromAt);
    if (last.kind === 'nobody') this.#pastLeaderlessMs += last.toAt - last.fromAt;
    if (last.toAt === last.fromAt && last.kind !== 'leader') this.#spans.pop();
    this.#spans.push({ ...span, fromAt: last.toAt });
    const oldest = now() - HOUR_MS;
    while (this.#spans.length > MOST_SPANS || this.#spans[0]!.toAt! < oldest) this.#spans.shift();
  }

  #endLeading(reason: string): void {
    this.#become('campaigning', reason);
    this.token = '';
    this.since = undefined;
    this.validUntilAt = Number.POSITIVE_INFINITY;
    this.confirmedAt = undefined;
    this.#begin({ kind: 'nobody', fromAt: now() });
  }

  #ended(cause: ExitCause, status?: number): void {
    const [run] = this.#runs;
    if (!run || run.endedAt !== undefined) return;
    run.endedAt = now();
    run.cause = cause;
    if (status !== undefined) run.status = status;
    this.childExits[cause]++;
  }

  #bin(change: (bin: Bin) => void): void {
    const number = binAt(now());
    if (this.#bins.at(-1)?.number !== number) this.#bins.push({ number, count: 0, worstMs: 0, doubts: 0 });
    if (this.#bins.length > BINS) this.#bins.shift();
    change(this.#bins.at(-1)!);
  }
}

export type Snapshot = ReturnType<History['snapshot']>;

const binAt = (at: number): number => Math.floor(at / BIN_MS);

const clean = (text: string): string => {
  const shown = printable(text);
  return shown.length > LONGEST_NAME ? `${shown.slice(0, LONGEST_NAME)}…` : shown;
};

function causeOf(ended: { status: number; signal: string | undefined; stopTimedOut: boolean }): ExitCause {
  if (ended.stopTimedOut) return 'stop-timeout';
  if (ended.signal) return 'signal';
  return ended.status === 0 ? 'success' : 'failure';
}
