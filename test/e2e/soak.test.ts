import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
// @ts-expect-error: plain JavaScript, as all of scripts/
import { buildDriver, soak } from '../../scripts/soak/soak.mjs';
import { STORES, type Store } from '../contract/stores.ts';
import { describeWith } from '../helpers/needs.ts';
import { stopServers } from '../helpers/servers.ts';

/** `npm run soak` goes on for a week's. */
const RENEWALS = 10_000;
const LOOKS = 10_000;
const SLOTS = 300;
const ARMINGS = 20_000;
/** Enough for a descriptor a time to be seen. */
const A_FEW = 200;
const TOO_LONG_MS = 180_000;

/** Where koffi is found. */
const CACHE = 'node_modules/.cache';
let folder: string;
let driver: string;
beforeAll(async () => {
  mkdirSync(CACHE, { recursive: true });
  folder = mkdtempSync(`${CACHE}/soak-`);
  driver = await buildDriver(folder);
});
afterAll(async () => {
  await stopServers();
  rmSync(folder, { recursive: true });
});

for (const kind of STORES.filter(({ name }) => ['file', 'etcd', 'redis', 'zookeeper', 'kubernetes'].includes(name))) {
  describeWith(kind.needs, kind.name, () => {
    let store: Store;
    beforeAll(async () => {
      store = await kind.start();
    });
    afterAll(() => store.end());

    test(
      `${RENEWALS} renewals leave nothing behind, neither in elect-run nor in its guard`,
      async () => {
        const { before, after, grown } = await soak(driver, { what: 'renewals', spec: store.spec, times: RENEWALS });
        expect(grown, JSON.stringify({ before, after })).toEqual([]);
      },
      TOO_LONG_MS,
    );
  });
}

for (const [what, name, times] of [
  ['standby', 'etcd', LOOKS],
  ['standby', 'redis', LOOKS],
  ['slots', 'file', SLOTS],
] as const) {
  const kind = STORES.find((one) => one.name === name)!;
  describeWith(kind.needs, `${what}, ${name}`, () => {
    let store: Store;
    beforeAll(async () => {
      store = await kind.start();
    });
    afterAll(() => store.end());

    test(
      `${times} times leave nothing behind`,
      async () => {
        const { before, after, grown } = await soak(driver, { what, spec: store.spec, times });
        expect(grown, JSON.stringify({ before, after })).toEqual([]);
      },
      TOO_LONG_MS,
    );

    test('what is left behind is found', async () => {
      const { grown } = await soak(driver, { what, spec: store.spec, times: A_FEW, leak: 'descriptor' });
      expect(grown).toContain('descriptors');
    });
  });
}

test(`${ARMINGS} armings of the guard in Node leave nothing behind`, async () => {
  const { before, after, grown } = await soak(driver, { what: 'guard', times: ARMINGS });
  expect(grown, JSON.stringify({ before, after })).toEqual([]);
});

test.each([
  ['race', 'heapKB', ARMINGS],
  ['listener', 'heapKB', ARMINGS],
  ['descriptor', 'descriptors', A_FEW],
])('what an arming of the guard in Node leaves behind is found: %s', async (leak, what, times) => {
  const { grown } = await soak(driver, { what: 'guard', times, leak });
  expect(grown).toContain(what);
});

describeWith(['flock'], 'what a renewal leaves behind is found', () => {
  test.each([
    ['race', 'heapKB'],
    ['listener', 'heapKB'],
    ['descriptor', 'descriptors'],
  ])(
    '%s',
    async (leak, what) => {
      const store = await STORES.find(({ name }) => name === 'file')!.start();
      const { grown } = await soak(driver, { what: 'renewals', spec: store.spec, times: RENEWALS, leak });
      await store.end();
      expect(grown).toContain(what);
    },
    TOO_LONG_MS,
  );
});
