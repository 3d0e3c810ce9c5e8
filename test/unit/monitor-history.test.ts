import { beforeEach, expect, test, vi } from 'vitest';
import type { Event } from '../../src/events.ts';
import { liveness, readiness } from '../../src/report/monitor/health.ts';
import { History, HOUR_MS } from '../../src/report/monitor/history.ts';

const clock = vi.hoisted(() => ({ at: 0 }));
vi.mock('../../src/clock.ts', () => ({ now: () => clock.at }));

const US = 'us-1-abcd';
let history: History;
beforeEach(() => {
  clock.at = 10_000_000;
  history = new History(US);
});

const after = (ms: number, ...events: Event[]) => {
  clock.at += ms;
  for (const event of events) history.take(event);
};
const standby = (leader: string, more: Partial<Extract<Event, { type: 'standby' }>> = {}): Event => ({
  type: 'standby',
  leader,
  since: undefined,
  position: 2,
  leaderlessMs: undefined,
  ...more,
});
const elected = (token: string, leaderlessMs?: number): Event => ({
  type: 'elected',
  election: 'x',
  token,
  id: US,
  ttlMs: 15_000,
  leaderlessMs,
});
const renewed = (tookMs: number, validForMs = 15_000): Event => ({ type: 'renewed', token: '1', tookMs, validForMs });
const deposed: Event = { type: 'deposed', token: '1', reason: 'deleted' };

/** Who led, and for how long each, the oldest first. */
const story = () =>
  history.snapshot().spans.map(({ kind, leader, fromMs, toMs }) => [leader ?? kind, fromMs - toMs] as const);

test('tells who led when, and when nobody did', () => {
  after(100, standby('a'));
  after(5000, standby('b', { leaderlessMs: 300 }));
  after(2000, elected('7'));
  after(4000, deposed);
  after(1000, standby('a'));
  after(500);
  expect(story()).toEqual([
    ['unknown', 100],
    ['a', 4700],
    ['nobody', 300],
    ['b', 2000],
    [US, 4000],
    ['nobody', 1000],
    ['a', 500],
  ]);
  expect(history.leaderlessMs).toBe(1300);
  expect(history.transitions).toBe(3);
});

test('counts a gap while it lasts', () => {
  after(100, elected('1'));
  after(100, deposed);
  after(250);
  expect(history.leaderlessMs).toBe(250);
  expect(history.snapshot().leaderlessMs).toBe(250);
});

test('a leader whose time the store tells began then, also before we came; a time that cannot be is not believed', () => {
  const ago = (ms: number) => new Date(Date.now() - ms).toISOString();
  after(10, standby('a', { since: ago(60_000) }));
  expect(Math.abs(story()[0]![1] - 60_000)).toBeLessThan(1000);
  after(30_000, standby('b', { since: ago(-3_600_000) }));
  after(1000, standby('c', { since: 'yesterday' }));
  expect(story().map(([who]) => who)).toEqual(['a', 'b', 'c']);
  after(1000, standby('d', { since: ago(1e9) }));
  expect(story().map(([who]) => who)).toEqual(['a', 'b', 'c', 'd']);
});

test('while the store is out of reach nobody knows, and the same leader after it is no change', () => {
  after(10, standby('a'));
  after(1000, { type: 'unreachable', reason: 'refused', retryInMs: 1 });
  after(1000, { type: 'unreachable', reason: 'refused', retryInMs: 1 });
  after(1000, standby('a'));
  after(10);
  expect(story().slice(1)).toEqual([
    ['a', 1000],
    ['unknown', 2000],
    ['a', 10],
  ]);
  expect(history.transitions).toBe(0);
  expect(history.leaderlessMs).toBe(0);
});

test('is alive as long as the leadership is proved, and again when it is given back', () => {
  expect(liveness(history).ok).toBe(true);
  after(10, elected('1'));
  after(14_000, renewed(5));
  after(14_999);
  expect(liveness(history).ok).toBe(true);
  after(1001);
  expect(liveness(history)).toEqual({
    ok: false,
    text: 'the lease ran out 1s ago, and no renewal was confirmed',
  });
  after(1, renewed(5, Number.POSITIVE_INFINITY));
  after(1e9);
  expect(liveness(history).ok).toBe(true);
  after(1, renewed(5), deposed);
  after(1e9);
  expect(liveness(history).ok).toBe(true);
});

test.each<[string, Event[], boolean, boolean]>([
  ['nothing yet', [], false, false],
  ['standing by', [standby('a')], true, false],
  ['leading', [elected('1')], true, true],
  ['in doubt', [elected('1'), { type: 'suspended', token: '1', reason: 'x', stopInMs: 1 }], true, true],
  ['stepping down', [elected('1'), { type: 'stepping-down', token: '1', reason: 'x', killInMs: 1 }], false, false],
  ['deposed', [elected('1'), deposed], false, false],
  ['out of reach', [standby('a'), { type: 'unreachable', reason: 'x', retryInMs: 1 }], false, false],
  ['its place lost', [standby('a'), { type: 'place-lost', reason: 'x' }], false, false],
])('is ready, %s: %s', (_state, events, onStandby, onLeader) => {
  after(1, ...events);
  expect(readiness(history, 'standby').ok).toBe(onStandby);
  expect(readiness(history, 'leader').ok).toBe(onLeader);
});

test('an exit is of one cause, and a child that was stopped for a loss has one, too', () => {
  const started: Event = { type: 'started', pid: 1, command: 'x', token: '1', slot: undefined };
  const ended = (status: number, more: object = {}): Event => ({
    ...{ type: 'ended', pid: 1, status, signal: undefined, stopTimedOut: false },
    ...more,
  });
  for (const end of [
    ended(0),
    ended(1),
    ended(143, { signal: 'SIGTERM' }),
    ended(137, { signal: 'SIGKILL', stopTimedOut: true }),
  ])
    after(1, started, end);
  after(1, elected('1'), started, deposed, elected('2'), deposed);
  expect(history.childExits).toEqual({ success: 1, failure: 1, signal: 1, 'stop-timeout': 1, lost: 1 });
  expect(history.childStarts).toBe(5);
});

test('keeps an hour, and no more than fits: a hundred thousand hand-overs and renewals later it is as small as before', () => {
  for (let count = 0; count < 100_000; count++) {
    after(10, elected(String(count)), renewed(count % 7));
    after(10, { type: 'started', pid: 1, command: 'x', token: '1', slot: undefined }, deposed);
    if (count % 10 === 0) after(1, standby('x'.repeat(10_000)));
  }
  expect(JSON.stringify(history.snapshot()).length).toBeLessThan(150_000);
  after(2 * HOUR_MS, standby('a'));
  expect(story().map(([who]) => who)).toEqual(['nobody', 'a']);
  expect(history.snapshot().renewals.bins).toEqual([]);
});

test('shows the slowest renewal of each quarter of a minute', () => {
  after(1, elected('1'));
  for (const tookMs of [3, 90, 5]) after(1000, renewed(tookMs));
  after(15_000, renewed(7), { type: 'suspended', token: '1', reason: 'x', stopInMs: 1 });
  expect(history.snapshot().renewals.bins).toEqual([
    [238, 3, 90, 0],
    [239, 1, 7, 1],
  ]);
});
