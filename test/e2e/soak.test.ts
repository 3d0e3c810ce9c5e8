import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
// @ts-expect-error: plain JavaScript, as all of scripts/
import { buildDriver, soak } from '../../scripts/soak/soak.mjs';
import { STORES, type Store } from '../contract/stores.ts';
import { describeWith } from '../helpers/needs.ts';
import { stopServers } from '../helpers/servers.ts';

/** `npm run soak` goes on for a week's. */
const RENEWALS = 10_000;
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
        const { before, after, grown } = await soak(driver, { spec: store.spec, renewals: RENEWALS });
        expect(grown, JSON.stringify({ before, after })).toEqual([]);
      },
      TOO_LONG_MS,
    );
  });
}

describeWith(['flock'], 'what a renewal leaves behind is found', () => {
  test.each([
    ['race', 'heapKB'],
    ['listener', 'heapKB'],
    ['descriptor', 'descriptors'],
  ])(
    '%s',
    async (leak, what) => {
      const store = await STORES.find(({ name }) => name === 'file')!.start();
      const { grown } = await soak(driver, { spec: store.spec, renewals: RENEWALS, leak });
      await store.end();
      expect(grown).toContain(what);
    },
    TOO_LONG_MS,
  );
});
