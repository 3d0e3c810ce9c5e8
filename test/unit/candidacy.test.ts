import { expect, test } from 'vitest';
import type { Backend } from '../../src/backend.ts';
import { Candidacy } from '../../src/candidacy.ts';
import type { Config } from '../../src/config.ts';
import type { Guard } from '../../src/guard.ts';
import type { Job } from '../../src/job.ts';
import type { Signals } from '../../src/signals.ts';

test('a signal between the confirming answer and the look for a word ends it, and the place is given back', async () => {
  const interruption = new AbortController();
  let released = 0;
  const backend = {
    newPlace: () => ({ ttlMs: 3000, handle: {} }),
    acquire: async () => ({ leads: true }),
    confirm: async () => 7n,
    gone: () => new Promise(() => {}),
    release: async () => void released++,
    readWord: async () => {
      await new Promise(setImmediate); // the confirming answer is there
      interruption.abort(new Error('SIGTERM'));
      return undefined;
    },
  } as unknown as Backend;
  const guard = {
    setDeadline: () => {},
    armed: async () => {},
    failed: new Promise(() => {}),
    tellFacts: () => {},
  } as unknown as Guard;
  const job = { adopt: () => {}, ready: async () => {} } as unknown as Job;
  const signals = {
    interruption: () => ({ signal: interruption.signal, end: () => {} }),
    handle: () => () => {},
    catchRealtime: () => {},
  } as unknown as Signals;
  const timing = { ttlMs: 3000, renewEveryMs: 1000, requestMs: 500, graceMs: 300, marginMs: 300 };
  const config = { timing, waitMs: undefined, once: false, id: 'us', election: 'nightly' } as unknown as Config;
  const candidacy = new Candidacy(config, backend, guard, job, () => {}, signals);
  await expect(candidacy.stand()).rejects.toThrow('SIGTERM');
  expect(released).toBe(1);
});
