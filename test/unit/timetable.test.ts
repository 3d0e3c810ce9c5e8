import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest';
import type { Leader } from '../../src/agenda.ts';
import { type Backend, type Book, Changed, Gone } from '../../src/backend.ts';
import type { Event } from '../../src/events.ts';
import type { RunBook } from '../../src/runs.ts';
import { readSlots } from '../../src/slots.ts';
import { OneSlot, Schedule, type SchedulePolicy } from '../../src/timetable.ts';

const MINUTE_MS = 60_000;
const NOW = Date.parse('2026-03-01T12:00:30Z');

// The clock on the wall stands still, half a minute after a slot.
beforeAll(() => void vi.useFakeTimers({ toFake: ['Date'], now: NOW }));
afterAll(() => void vi.useRealTimers());

/** A book in memory. `lose`: the next write is carried out, and its answer lost. */
class Shelf {
  book: Book | undefined;
  leads = true;
  lose = false;
  /** Somebody writes between our read and our write. */
  meanwhile: (() => void) | undefined;
  #edition = 0;

  readonly backend = {
    readBook: async () => this.book,
    writeBook: async (_place: unknown, text: string, before: Book | undefined) => {
      this.meanwhile?.();
      this.meanwhile = undefined;
      if (!this.leads) throw new Gone('deposed');
      if (this.book?.edition !== before?.edition) throw new Changed('changed');
      this.write(text);
      if (!this.lose) return;
      this.lose = false;
      throw new Error('no answer');
    },
  } as unknown as Backend;

  write(text: string): void {
    this.book = { text, edition: String(++this.#edition) };
  }

  get runs(): RunBook['runs'] {
    return this.book ? (JSON.parse(this.book.text) as RunBook).runs : [];
  }
}

const leader = (token: string): Leader => ({ place: { ttlMs: 3000, handle: {} }, id: `host-${token}`, token });
const patience = () => AbortSignal.timeout(5000);
const events: Event[] = [];
const report = (event: Event) => void events.push(event);

const at = (time: string): number => Date.parse(time);
const oneSlot = (shelf: Shelf, slot: string, rerun: 'never' | 'crash' | 'failure' = 'crash') =>
  new OneSlot(shelf.backend, 1000, report, at(slot), rerun);

const SLOT = '2026-03-01T00:00:00Z';
const LATER = '2026-03-02T00:00:00Z';

test('a slot is run once; whoever comes later is told by whom', async () => {
  const shelf = new Shelf();
  const first = oneSlot(shelf, SLOT);
  expect(await first.isSettled(patience())).toBe(false);
  const due = await first.next(leader('5'), patience());
  expect(due).toEqual({ slot: SLOT });
  await first.ended(leader('5'), due!, 3, patience());
  expect(shelf.runs).toMatchObject([{ slot: SLOT, holder: 'host-5', token: '5', status: 3 }]);
  events.length = 0;
  expect(await oneSlot(shelf, SLOT).isSettled(patience())).toBe(true);
  expect(await oneSlot(shelf, SLOT).next(leader('6'), patience())).toBeUndefined();
  expect(events).toMatchObject([{ type: 'slot-settled', run: { token: '5' } }, { type: 'slot-settled' }]);
});

test.each([
  ['never', undefined, false],
  ['never', 1, false],
  ['crash', undefined, true],
  ['crash', 1, false],
  ['failure', undefined, true],
  ['failure', 1, true],
  ['failure', 0, false],
] as const)('--rerun %s, and the run before ended with %s: it is run again: %s', async (rerun, status, again) => {
  const shelf = new Shelf();
  const first = oneSlot(shelf, SLOT, rerun);
  const due = await first.next(leader('5'), patience());
  if (status !== undefined) await first.ended(leader('5'), due!, status, patience());
  expect(await oneSlot(shelf, SLOT, rerun).next(leader('6'), patience())).toEqual(again ? { slot: SLOT } : undefined);
});

test('a slot is past once a later one was begun', async () => {
  const shelf = new Shelf();
  await oneSlot(shelf, LATER).next(leader('5'), patience());
  expect(await oneSlot(shelf, SLOT).isSettled(patience())).toBe(true);
});

test('a write whose answer was lost is one run, and is ours', async () => {
  const shelf = new Shelf();
  shelf.lose = true;
  const first = oneSlot(shelf, SLOT);
  const due = await first.next(leader('5'), patience());
  expect(due).toEqual({ slot: SLOT });
  shelf.lose = true;
  await first.ended(leader('5'), due!, 0, patience());
  expect(shelf.runs).toMatchObject([{ slot: SLOT, token: '5', status: 0 }]);
});

test('what somebody else has written since the read is looked at again', async () => {
  const shelf = new Shelf();
  shelf.meanwhile = () =>
    shelf.write(
      JSON.stringify({ runs: [{ slot: SLOT, holder: 'x', token: '4', startedAt: SLOT, endedAt: SLOT, status: 0 }] }),
    );
  expect(await oneSlot(shelf, SLOT).next(leader('5'), patience())).toBeUndefined();
  expect(shelf.runs).toHaveLength(1);
});

test('whoever does not lead begins nothing', async () => {
  const shelf = new Shelf();
  shelf.leads = false;
  await expect(oneSlot(shelf, SLOT).next(leader('5'), patience())).rejects.toThrow(Gone);
  expect(shelf.runs).toEqual([]);
});

test('a book that is damaged is not begun anew', async () => {
  const shelf = new Shelf();
  shelf.write('{');
  await expect(oneSlot(shelf, SLOT).next(leader('5'), patience())).rejects.toThrow(/damaged/);
});

const everyMinute = readSlots('--schedule', 'minute', 'UTC');
const schedule = (shelf: Shelf, policy: Partial<SchedulePolicy> = {}) =>
  new Schedule(shelf.backend, 1000, report, { slots: everyMinute, rerun: 'crash', catchUpMs: undefined, ...policy });
/** The slot so many minutes before the latest one. */
const minutesAgo = (count: number): string =>
  new Date(everyMinute.latest(Date.now())! - count * MINUTE_MS).toISOString().replace('.000Z', 'Z');
const run = (slot: string, more: object = { endedAt: slot, status: 0 }) => ({
  slot,
  holder: 'x',
  token: '4',
  startedAt: slot,
  ...more,
});
/** Undefined: nothing is due now. */
async function dueNow(agenda: Schedule, token = '5'): Promise<string | undefined> {
  const over = new AbortController();
  const waits = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 100));
  try {
    return await Promise.race([agenda.next(leader(token), over.signal).then((due) => due?.slot), waits]);
  } finally {
    over.abort(new Error('enough'));
  }
}

test('what was scheduled before there was any leader was not missed', async () => {
  expect(await dueNow(schedule(new Shelf()))).toBeUndefined();
});

test('of the slots that were missed the latest is caught up', async () => {
  const shelf = new Shelf();
  shelf.write(JSON.stringify({ runs: [run(minutesAgo(3))] }));
  expect(await dueNow(schedule(shelf))).toBe(minutesAgo(0));
});

test('with --catch-up all of them that are young enough, the oldest first', async () => {
  const shelf = new Shelf();
  shelf.write(JSON.stringify({ runs: [run(minutesAgo(9))] }));
  const agenda = schedule(shelf, { catchUpMs: 3 * MINUTE_MS });
  const seen: (string | undefined)[] = [];
  for (let count = 0; count < 4; count++) {
    const slot = await dueNow(agenda);
    seen.push(slot);
    if (slot) await agenda.ended(leader('5'), { slot }, 0, patience());
  }
  expect(seen).toEqual([minutesAgo(2), minutesAgo(1), minutesAgo(0), undefined]);
});

test('with --catch-up 0 none', async () => {
  const shelf = new Shelf();
  shelf.write(JSON.stringify({ runs: [run(minutesAgo(3))] }));
  expect(await dueNow(schedule(shelf, { catchUpMs: 0 }))).toBeUndefined();
});

test('a slot that was run far ahead of our clock: nothing runs before it, and that is said', async () => {
  const [slot, warning] = [minutesAgo(-9), { type: 'warning', message: expect.stringMatching(/clock/) }];
  const shelf = new Shelf();
  shelf.write(JSON.stringify({ runs: [run(slot)] }));
  events.length = 0;
  expect(await dueNow(schedule(shelf))).toBeUndefined();
  expect(events).toMatchObject([warning, { type: 'scheduled', slot: minutesAgo(-10) }]);
  events.length = 0;
  expect(await oneSlot(shelf, minutesAgo(0)).isSettled(patience())).toBe(true);
  expect(events).toMatchObject([warning, { type: 'slot-settled' }]);
});

test('with --catch-up 0 a slot that was waited for is run, though the clock is looked at a moment later', async () => {
  const shelf = new Shelf();
  shelf.write(JSON.stringify({ runs: [run(minutesAgo(0))] }));
  const next = schedule(shelf, { catchUpMs: 0 }).next(leader('5'), patience());
  const slot = minutesAgo(-1);
  vi.setSystemTime(at(slot) + 20);
  onTestFinished(() => void vi.setSystemTime(NOW));
  expect(await next).toEqual({ slot });
});

test('a slot that was cut off is run by the next leader, unless a later one has come', async () => {
  const shelf = new Shelf();
  shelf.write(JSON.stringify({ runs: [run(minutesAgo(0), {})] }));
  expect(await dueNow(schedule(shelf))).toBe(minutesAgo(0));
  shelf.write(JSON.stringify({ runs: [run(minutesAgo(1), {})] }));
  expect(await dueNow(schedule(shelf))).toBe(minutesAgo(0));
});

test('with --rerun failure a failed slot is run by the next leader, not by the same one again', async () => {
  const shelf = new Shelf();
  shelf.write(JSON.stringify({ runs: [run(minutesAgo(0), { endedAt: minutesAgo(0), status: 1 })] }));
  expect(await dueNow(schedule(shelf, { rerun: 'failure' }), '4')).toBeUndefined();
  expect(await dueNow(schedule(shelf, { rerun: 'failure' }), '5')).toBe(minutesAgo(0));
});

test('an end that could not be recorded is recorded when the same process leads again', async () => {
  const shelf = new Shelf();
  shelf.write(JSON.stringify({ runs: [run(minutesAgo(1))] }));
  const agenda = schedule(shelf);
  const slot = await dueNow(agenda);
  shelf.leads = false;
  await expect(agenda.ended(leader('5'), { slot }, 0, patience())).rejects.toThrow(Gone);
  shelf.leads = true;
  expect(await dueNow(agenda, '6')).toBeUndefined();
  expect(shelf.runs[0]).toMatchObject({ slot, token: '5', status: 0 });
});

test('the slots of a cron expression: the latest includes this very moment, the next does not', () => {
  const daily = readSlots('--schedule', 'day', 'Europe/Berlin');
  const midnight = at('2026-11-24T23:00:00Z');
  expect(daily.latest(midnight)).toBe(midnight);
  expect(daily.latest(midnight - 1)).toBe(midnight - 24 * 60 * MINUTE_MS);
  expect(daily.next(midnight)).toBe(midnight + 24 * 60 * MINUTE_MS);
});

test('a time that DST skips comes an hour later, one that it repeats comes once', () => {
  const nightly = readSlots('--schedule', '30 2 * * *', 'Europe/Berlin');
  expect(nightly.next(at('2026-03-29T00:00:00Z'))).toBe(at('2026-03-29T01:00:00Z'));
  expect(nightly.next(at('2026-10-25T00:00:00Z'))).toBe(at('2026-10-25T00:30:00Z'));
  expect(nightly.next(at('2026-10-25T00:30:00Z'))).toBe(at('2026-10-26T01:30:00Z'));
});

test('the slots of a duration are its multiples, the same on every host', () => {
  const five = readSlots('--once-per', '5m', undefined);
  expect(five.latest(at('2026-03-01T00:04:59Z'))).toBe(at('2026-03-01T00:00:00Z'));
  expect(five.next(at('2026-03-01T00:00:00Z'))).toBe(at('2026-03-01T00:05:00Z'));
});
