import os from 'node:os';
import { afterEach, expect, test, vi } from 'vitest';

afterEach(() => {
  vi.restoreAllMocks();
  vi.resetModules();
});

const asHrtime = (ms: number): [number, number] => [Math.floor(ms / 1000), (ms % 1000) * 1e6];

/** A fresh clock whose two sources are ours to move. */
async function clockWith(uptime = 100_000) {
  const at = { monotonic: 5000, uptime };
  vi.spyOn(process, 'hrtime').mockImplementation(() => asHrtime(at.monotonic));
  vi.doMock('node:os', () => ({ ...os, uptime: () => Math.floor(at.uptime / 10) / 100 }));
  const { now, toCentiseconds } = await import('../../src/clock.ts');
  return { at, now, toCentiseconds };
}

test('goes with monotonic time while both sources agree', async () => {
  const { at, now } = await clockWith();
  const start = now();
  at.monotonic += 1234;
  at.uptime += 1234;
  expect(now() - start).toBe(1234);
});

test('counts the time that the machine was suspended, which monotonic time does not', async () => {
  const { at, now } = await clockWith();
  const start = now();
  at.uptime += 3_600_000;
  expect(now() - start).toBeGreaterThanOrEqual(3_600_000 - 20);
});

test('does not move with the wall clock', async () => {
  const { now } = await clockWith();
  const start = now();
  vi.spyOn(Date, 'now').mockReturnValue(0);
  expect(now()).toBe(start);
});

test('does not take a stop between its two readings for a suspend', async () => {
  const { at, now } = await clockWith();
  const start = now();
  vi.spyOn(process, 'hrtime').mockImplementationOnce(() => {
    const before = asHrtime(at.monotonic);
    at.monotonic += 5000;
    at.uptime += 5000;
    return before;
  });
  expect(now() - start).toBeLessThanOrEqual(5000);
  expect(now() - start).toBe(5000);
});

test.each([
  [0, 703.3],
  [4, 701],
  [9, 700.5],
  [9, 708.9],
])(
  'a time that the guard was told has not come for it before it has for us, and comes two steps later at most (%i ms into a step, in %f ms)',
  async (phaseMs, inMs) => {
    const { at, now, toCentiseconds } = await clockWith(100_000 + phaseMs);
    const until = now() + inMs;
    const waitMs = toCentiseconds(until) * 10 - at.uptime;
    at.monotonic += waitMs;
    at.uptime += waitMs;
    expect(now()).toBeGreaterThanOrEqual(until);
    expect(now()).toBeLessThanOrEqual(until + 20);
  },
);
