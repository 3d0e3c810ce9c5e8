import os from 'node:os';
import { afterEach, expect, test, vi } from 'vitest';

afterEach(() => {
  vi.restoreAllMocks();
  vi.resetModules();
});

const asHrtime = (ms: number): [number, number] => [Math.floor(ms / 1000), (ms % 1000) * 1e6];

/** A fresh clock whose two sources are ours to move. */
async function clockWith() {
  const at = { monotonic: 5000, uptime: 100_000 };
  vi.spyOn(process, 'hrtime').mockImplementation(() => asHrtime(at.monotonic));
  vi.doMock('node:os', () => ({ ...os, uptime: () => Math.floor(at.uptime / 10) / 100 }));
  const { now } = await import('../../src/clock.ts');
  return { at, now };
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
  let reads = 0;
  vi.spyOn(process, 'hrtime').mockImplementation(() => {
    reads += 1;
    if (reads === 2) {
      at.monotonic += 5000;
      at.uptime += 5000;
    }
    return asHrtime(at.monotonic);
  });
  expect(now() - start).toBe(5000);
});
