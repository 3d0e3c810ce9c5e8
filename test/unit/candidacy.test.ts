import { expect, test } from 'vitest';
import { type Backend, Gone } from '../../src/backend.ts';
import { Candidacy } from '../../src/candidacy.ts';
import type { Config } from '../../src/config.ts';
import type { Event } from '../../src/events.ts';
import type { Guard } from '../../src/guard.ts';
import type { Job } from '../../src/job.ts';
import type { Signals } from '../../src/signals.ts';

/** A candidate that leads at once, as far as the store says, until this store says otherwise. */
function candidate(
  store: Partial<Backend>,
  options: Partial<Config> = {},
  armed: () => Promise<void> = async () => {},
) {
  const interruption = new AbortController();
  const seen = { released: 0, said: [] as Event[] };
  const backend = {
    url: 'store://',
    newPlace: () => ({ ttlMs: 3000, handle: {} }),
    acquire: async () => ({ leads: true }),
    confirm: async () => 7n,
    gone: () => new Promise(() => {}),
    release: async () => void seen.released++,
    readWord: async () => undefined,
    ...store,
  } as unknown as Backend;
  const guard = {
    setDeadline: () => {},
    letGo: () => {},
    armed,
    failed: new Promise(() => {}),
    tellFacts: () => {},
  } as unknown as Guard;
  const job = { adopt: () => {}, ready: async () => {} } as unknown as Job;
  const signals = {
    interruption: () => ({ signal: interruption.signal, end: () => {} }),
    handle: () => () => {},
    catchRealtime: () => {},
  } as unknown as Signals;
  const config = {
    timing: { ttlMs: 3000, renewEveryMs: 1000, requestMs: 500, graceMs: 300, marginMs: 300 },
    waitMs: Number.POSITIVE_INFINITY,
    once: false,
    id: 'us',
    election: 'nightly',
    exitCodes: { standby: 75, lost: 79 },
    ...options,
  } as unknown as Config;
  const candidacy = new Candidacy(config, backend, guard, job, (event) => void seen.said.push(event), signals);
  return { candidacy, seen, interrupt: (signal: string) => interruption.abort(new Error(signal)) };
}

test('a signal between the confirming answer and the look for a word ends it, and the place is given back', async () => {
  const { candidacy, seen, interrupt } = candidate({
    readWord: async () => {
      await new Promise(setImmediate); // the confirming answer is there
      interrupt('SIGTERM');
      return undefined;
    },
  });
  await expect(candidacy.stand()).rejects.toThrow('SIGTERM');
  expect(seen.released).toBe(1);
});

/** A store that takes the place away when it is told to. */
function deposable() {
  let depose!: () => void;
  const said = new Promise<Gone>((resolve) => {
    depose = () => resolve(new Gone('deleted'));
  });
  return { depose, gone: () => said };
}

test('one that is deposed while its guard is not armed yet does not lead', async () => {
  const { depose, gone } = deposable();
  const armed = async () => {
    await new Promise(setImmediate); // the confirming answer is there
    depose();
    await new Promise(() => {});
  };
  await expect(candidate({ gone }, { once: true }, armed).candidacy.stand()).rejects.toMatchObject({
    message: /deleted/,
  });
});

test('one that is deposed while a word for another is looked for does not lead', async () => {
  const { depose, gone } = deposable();
  const readWord = async () => {
    await new Promise(setImmediate); // confirmed, and armed
    depose();
    await new Promise(setImmediate);
    return undefined;
  };
  await expect(candidate({ gone, readWord }, { once: true }).candidacy.stand()).rejects.toMatchObject({
    message: /deleted/,
  });
});

const silence = (_place: unknown, signal: AbortSignal) =>
  new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));

test('--no-wait: one confirming read, and when it is not answered the place is given back: 69', async () => {
  let reads = 0;
  const confirm: Backend['confirm'] = (place, signal) => {
    reads++;
    return silence(place, signal);
  };
  const { candidacy, seen } = candidate({ confirm }, { once: true, waitMs: 3000 });
  await expect(candidacy.stand()).rejects.toMatchObject({ code: 69, message: /store:.* no answer within 500ms/ });
  expect([reads, seen.released]).toEqual([1, 1]);
});

test('--wait ends the confirming read, too, and the place is given back: 69', async () => {
  const { candidacy, seen } = candidate({ confirm: silence }, { waitMs: 700 });
  const startedAt = performance.now();
  await expect(candidacy.stand()).rejects.toMatchObject({ code: 69 });
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(695);
  expect(performance.now() - startedAt).toBeLessThan(2000);
  expect(seen.released).toBe(1);
});

test('a signal while the place is given back is what it ends with', async () => {
  const { candidacy, interrupt } = candidate(
    { confirm: () => Promise.reject(new Error('refused')), release: async () => interrupt('SIGTERM') },
    { once: true, waitMs: 3000 },
  );
  await expect(candidacy.stand()).rejects.toThrow('SIGTERM');
});

test.each([
  ['--no-wait', { once: true, waitMs: 3000 }, 1],
  ['--wait', { waitMs: 1900 }, 2],
] as const)('%s does not begin anew for who gives way to another: 75', async (_name, options, times) => {
  let words = 0;
  const { candidacy, seen } = candidate(
    { readWord: async () => JSON.stringify({ to: 'another', by: String(++words) }) },
    options,
  );
  await expect(candidacy.stand()).rejects.toMatchObject({ code: 75, message: /another was asked to lead/ });
  expect([words, seen.released]).toEqual([times, times]);
});
