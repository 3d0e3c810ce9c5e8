import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { type Backend, Gone, type Place } from '../../src/backend.ts';
import { Renewal } from '../../src/renewal.ts';
import type { Timing } from '../../src/timing.ts';

const clock = vi.hoisted(() => ({ skippedMs: 0 }));

vi.mock('../../src/clock.ts', async (original) => ({
  ...(await original<typeof import('../../src/clock.ts')>()),
  now: () => performance.now() + clock.skippedMs,
}));

beforeEach(() => {
  clock.skippedMs = 0;
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const timing: Timing = { ttlMs: 3000, renewEveryMs: 1000, requestMs: 500, graceMs: 600, marginMs: 300 };

function start(renew: (signal: AbortSignal) => Promise<number>) {
  const place: Place = { ttlMs: 3000, handle: {} };
  const backend = {
    renew: (_: Place, signal: AbortSignal) => renew(signal),
    gone: () => new Promise(() => {}),
  } as unknown as Backend;
  const seen = {
    confirmed: [] as number[],
    unanswered: [] as string[],
    stop: false,
    kill: false,
    gone: undefined as Gone | undefined,
  };
  const renewal = new Renewal(backend, place, timing, {
    confirmed: (expiresAt) => seen.confirmed.push(expiresAt),
    unanswered: (reason) => seen.unanswered.push(reason),
  });
  renewal.stopDue.then(() => {
    seen.stop = true;
  });
  renewal.killDue.then(() => {
    seen.kill = true;
  });
  renewal.gone.then((gone) => {
    seen.gone = gone;
  });
  const startedAt = performance.now();
  renewal.start(startedAt);
  return { renewal, seen, startedAt };
}

/** Never answers; gives up when told to. */
const silence = (signal: AbortSignal) =>
  new Promise<number>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

test('the deadline counts from before the request was sent, however late the answer comes', async () => {
  const { renewal, startedAt } = start(async () => {
    await new Promise((resolve) => setTimeout(resolve, 400));
    return 3000;
  });
  await vi.advanceTimersByTimeAsync(1450);
  expect(renewal.expiresAt).toBeGreaterThanOrEqual(startedAt + 1000 + 3000);
  expect(renewal.expiresAt).toBeLessThan(startedAt + 1000 + 3000 + 50);
  renewal.end();
});

test('who leads notices a jump of the clock within a quarter of a second, who stands by within a second', async () => {
  const [leader, standby] = [start(async () => 3000), start(async () => 3000)];
  leader.renewal.watchClosely();
  await vi.advanceTimersByTimeAsync(20);
  clock.skippedMs = 10_000;
  await vi.advanceTimersByTimeAsync(250);
  expect([leader.seen.kill, standby.seen.kill]).toEqual([true, false]);
  await vi.advanceTimersByTimeAsync(750);
  expect(standby.seen.kill).toBe(true);
  for (const { renewal } of [leader, standby]) renewal.end();
});

test('the granted length counts, not the one asked for', async () => {
  const { renewal, startedAt } = start(async () => 2000);
  await vi.advanceTimersByTimeAsync(2100);
  expect(renewal.expiresAt).toBeLessThan(startedAt + 2000 + 2000 + 50);
  renewal.end();
});

test('a renewal that is granted for less brings the end forward', async () => {
  let renewals = 0;
  const { renewal, seen, startedAt } = start(async (signal) => (renewals++ === 0 ? 1800 : silence(signal)));
  await vi.advanceTimersByTimeAsync(1100);
  expect(seen.confirmed).toHaveLength(2);
  expect(renewal.expiresAt).toBeLessThan(startedAt + 1000 + 1800 + 50);
  await vi.advanceTimersByTimeAsync(1500);
  expect(seen.kill).toBe(true);
  renewal.end();
});

test('silence: stop is due a grace before kill, kill a margin before the end', async () => {
  const { renewal, seen } = start(silence);
  renewal.watchClosely();
  await vi.advanceTimersByTimeAsync(2050);
  expect(seen).toMatchObject({ stop: false, kill: false });
  expect(seen.unanswered.length).toBeGreaterThan(0);
  await vi.advanceTimersByTimeAsync(350);
  expect(seen).toMatchObject({ stop: true, kill: false });
  await vi.advanceTimersByTimeAsync(600);
  expect(seen).toMatchObject({ stop: true, kill: true });
  renewal.end();
});

test('what is due is said on time for who leads, not with the next look at the clock', async () => {
  const { renewal, seen } = start(silence);
  await vi.advanceTimersByTimeAsync(20);
  renewal.watchClosely();
  await vi.advanceTimersByTimeAsync(2075);
  expect(seen).toMatchObject({ stop: false, kill: false });
  await vi.advanceTimersByTimeAsync(10);
  expect(seen).toMatchObject({ stop: true, kill: false });
  await vi.advanceTimersByTimeAsync(590);
  expect(seen).toMatchObject({ stop: true, kill: false });
  await vi.advanceTimersByTimeAsync(10);
  expect(seen).toMatchObject({ stop: true, kill: true });
  renewal.end();
});

test('while we stand by nothing has to be stopped: what was late, but was confirmed, is forgotten when we lead', async () => {
  let isAway = true;
  const { renewal, seen } = start((signal) => (isAway ? silence(signal) : Promise.resolve(3000)));
  await vi.advanceTimersByTimeAsync(2250);
  isAway = false;
  await vi.advanceTimersByTimeAsync(1000);
  expect(seen).toMatchObject({ stop: false, kill: false });
  renewal.watchClosely();
  await vi.advanceTimersByTimeAsync(500);
  expect(seen).toMatchObject({ stop: false, kill: false });
  renewal.end();
});

test('who comes to lead past the time to stop is told so at once', async () => {
  const { renewal, seen } = start(silence);
  await vi.advanceTimersByTimeAsync(2250);
  expect(seen.stop).toBe(false);
  renewal.watchClosely();
  await vi.advanceTimersByTimeAsync(0);
  expect(seen).toMatchObject({ stop: true, kill: false });
  renewal.end();
});

test('"no" is told at once', async () => {
  const { seen } = start(async () => {
    throw new Gone('revoked');
  });
  await vi.advanceTimersByTimeAsync(1010);
  expect(seen.gone?.message).toBe('revoked');
  expect(seen.stop).toBe(false);
});

test('"don\'t know" is not "no": it is tried again, and an answer in time stops nothing', async () => {
  let tries = 0;
  const { renewal, seen, startedAt } = start(async () => {
    tries += 1;
    if (tries < 3) throw new Error('connection refused');
    return 3000;
  });
  await vi.advanceTimersByTimeAsync(2600);
  expect(seen.gone).toBeUndefined();
  expect(seen.stop).toBe(false);
  expect(renewal.expiresAt).toBeGreaterThan(startedAt + 4000);
  renewal.end();
});

test('after a suspend the deadline is looked at first: a late answer revives nothing', async () => {
  let answer: (ttl: number) => void = () => {};
  const { renewal, seen } = start(
    () =>
      new Promise((resolve) => {
        answer = resolve;
      }),
  );
  await vi.advanceTimersByTimeAsync(1100);
  clock.skippedMs = 3_600_000;
  answer(3000);
  await vi.advanceTimersByTimeAsync(0);
  expect(seen.confirmed).toHaveLength(1);
  expect(renewal.check()).toBe(false);
  expect(seen.kill).toBe(true);
  renewal.end();
});
