import { mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { elect, endAll } from '../helpers/elect.ts';
import { scratch } from '../helpers/scratch.ts';

afterEach(endAll);

/** A cache of its own, and a run with it. */
function room() {
  const dir = scratch();
  const cache = join(scratch(), 'elect-run');
  const env = { XDG_CACHE_HOME: join(cache, '..') };
  const run = async (...args: string[]) =>
    (await elect(['-b', `file:${dir}`, '-n', 'job', ...args], { env }).ended).code;
  const kept = (start = 'main.js-') => readdirSync(cache).filter((name) => name.startsWith(start));
  const size = (name: string) => statSync(join(cache, name)).size;
  return { cache, run, kept, size };
}

test('what a run that got nowhere has kept grows by what a whole one uses', async () => {
  const { run, kept, size } = room();
  expect(await run('--ttl', 'nonsense', '--', 'true')).toBe(64);
  const [little] = kept();
  const before = size(little!);
  expect(await run('--', 'true')).toBe(0);
  const [more, ...others] = kept();
  expect(others).toEqual([]);
  expect(size(more!)).toBeGreaterThan(before * 1.1);
});

test('what was kept for good is only read', async () => {
  const { cache, run, kept } = room();
  for (let time = 0; time <= 4; time++) expect(await run('--', 'true')).toBe(0);
  const [name] = kept();
  expect(name).toMatch(/-run-4$/);
  const { mtimeMs, ino } = statSync(join(cache, name!));
  expect(await run('--', 'true')).toBe(0);
  expect(kept()).toEqual([name]);
  expect(statSync(join(cache, name!))).toMatchObject({ mtimeMs, ino });
});

test('what only looks does not decide what is kept for runs', async () => {
  const { run, kept } = room();
  expect(await run('--help')).toBe(0);
  expect(kept()[0]).toMatch(/-look-0$/);
  expect(await run('--', 'true')).toBe(0);
  expect(kept().sort()).toEqual([expect.stringMatching(/-look-0$/), expect.stringMatching(/-run-0$/)]);
});

test('what is damaged is kept anew', async () => {
  const { cache, run, kept } = room();
  for (let time = 0; time < 3; time++) expect(await run('--', 'true')).toBe(0);
  const [name] = kept();
  writeFileSync(join(cache, name!), readFileSync(join(cache, name!)).subarray(0, 1000));
  expect(await run('--', 'true')).toBe(0);
  expect(kept()).toEqual([expect.stringMatching(/-run-0$/)]);
});

test('what another installation keeps stays for a day', async () => {
  const { cache, run, kept } = room();
  mkdirSync(cache, { mode: 0o700 });
  for (const [name, ageHours] of [
    ['other.js-young', 23],
    ['other.js-old', 25],
  ] as const) {
    writeFileSync(join(cache, name), '');
    const at = Date.now() / 1000 - ageHours * 3600;
    utimesSync(join(cache, name), at, at);
  }
  expect(await run('--', 'true')).toBe(0);
  expect(kept('other')).toEqual(['other.js-young']);
});
