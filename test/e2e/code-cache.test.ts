import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { BIN, elect, endAll, NODE } from '../helpers/elect.ts';
import { scratch } from '../helpers/scratch.ts';

afterEach(endAll);

/** A cache of its own, and a run with it. */
function room() {
  const dir = scratch();
  const cache = join(scratch(), 'elect-run');
  const env = { XDG_CACHE_HOME: join(cache, '..') };
  const under = async (prefix: string[], ...args: string[]) =>
    (await elect(['-b', `file:${dir}`, '-n', 'job', ...args], { env, prefix }).ended).code;
  const run = Object.assign((...args: string[]) => under([], ...args), { under });
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

test('what another installation keeps stays for a day, and what is not ours for ever', async () => {
  const { cache, run } = room();
  mkdirSync(cache, { mode: 0o700 });
  const aged = (name: string, hours: number) => {
    const at = Date.now() / 1000 - hours * 3600;
    utimesSync(join(cache, name), at, at);
  };
  const young = 'other.js-v20.19.0-x64-1-0123456789abcdef-run-4';
  const old = 'other.js-v20.19.0-x64-1-0123456789abcdef-look-0';
  for (const name of [young, old, 'draft-17-4', 'state.db']) writeFileSync(join(cache, name), '');
  mkdirSync(join(cache, 'folder'));
  writeFileSync(join(cache, 'folder/file'), '');
  aged(young, 23);
  for (const name of [old, 'draft-17-4', 'state.db', 'folder']) aged(name, 25);
  expect(await run('--', 'true')).toBe(0);
  const left = readdirSync(cache, { recursive: true }).filter((name) => !String(name).startsWith('main.js'));
  expect(left.sort()).toEqual(['folder', 'folder/file', young, 'state.db']);
});

test('what somebody has not kept to the end is not taken for kept', async () => {
  const { cache, run, kept } = room();
  expect(await run('--', 'true')).toBe(0);
  const [name] = kept();
  copyFileSync(join(cache, name!), join(cache, name!.replace(/0$/, '17.new')));
  for (let time = 0; time < 5; time++) expect(await run('--', 'true')).toBe(0);
  expect(kept().filter((one) => !one.endsWith('.new'))).toEqual([expect.stringMatching(/-run-4$/)]);
});

test('what others can write to is not run, but kept anew', async () => {
  const { cache, run, kept } = room();
  for (let time = 0; time < 5; time++) expect(await run('--', 'true')).toBe(0);
  chmodSync(join(cache, kept()[0]!), 0o666);
  expect(await run('--', 'true')).toBe(0);
  expect(kept()).toEqual([expect.stringMatching(/-run-0$/)]);
  expect(statSync(join(cache, kept()[0]!)).mode & 0o777).toBe(0o600);
});

test('where it cannot be written nothing of it is left', async () => {
  const { cache, run } = room();
  const limited = ['bash', '-c', 'trap "" XFSZ; ulimit -f 8; exec "$@"', 'limited'];
  expect(await run.under(limited, '--', 'true')).toBe(0);
  expect(readdirSync(cache)).toEqual([]);
});

test.each([
  { name: 'XDG_CACHE_HOME is relative', env: { XDG_CACHE_HOME: 'cache' } },
  { name: 'HOME is empty', env: { XDG_CACHE_HOME: '', HOME: '' } },
])('nothing is kept in the working directory where $name', async ({ env }) => {
  const cwd = scratch();
  const args = ['-b', `file:${scratch()}`, '-n', 'job', '--', 'true'];
  expect((await elect(args, { cwd, env }).ended).code).toBe(0);
  expect(readdirSync(cwd)).toEqual([]);
});

/** Another installation. */
function installed(): string {
  const copy = scratch();
  const checkout = resolve(BIN, '../..');
  for (const part of ['bin', 'dist', 'package.json'])
    cpSync(join(checkout, part), join(copy, part), { recursive: true });
  symlinkSync(join(checkout, 'node_modules'), join(copy, 'node_modules'));
  return copy;
}

test('the status is the command’s, though elect-run has been removed while it ran, and nothing can be kept', async () => {
  const copy = installed();
  const env = { XDG_CACHE_HOME: scratch() };
  const program = [NODE, join(copy, 'bin/elect-run.js')];
  const remove = `rm -r '${copy}'; exit 3`;
  const args = ['-b', `file:${scratch()}`, '-n', 'job', '--', 'sh', '-c', remove];
  expect(await elect(args, { env, program }).ended).toMatchObject({
    code: 3,
    stderr: expect.not.stringMatching(/fault/),
  });
});

test('a file where the cache would be, or a folder that may not be listed, is done without', async () => {
  const { cache, run } = room();
  writeFileSync(cache, '', { mode: 0o600 });
  expect(await run('--', 'true')).toBe(0);
  rmSync(cache);
  mkdirSync(cache, { mode: 0o300 });
  const unprivileged = ['setpriv', '--bounding-set', '-all', '--inh-caps', '-all'];
  expect(await run.under(unprivileged, '--', 'true')).toBe(0);
  expect(readdirSync(cache)).toEqual([]);
});

test('a source of the same time and length is another, where all files are of 1970', async () => {
  const copy = installed();
  const main = join(copy, 'dist/main.js');
  const env = { XDG_CACHE_HOME: scratch(), ELECT_RUN_LOG_FORMAT: 'plain' };
  const dir = scratch();
  const saysWith = async (source: string) => {
    writeFileSync(main, source);
    utimesSync(main, 1, 1);
    const program = [NODE, join(copy, 'bin/elect-run.js')];
    return (await elect(['-b', `file:${dir}`, '-n', 'job', '--', 'true'], { env, program }).ended).stderr;
  };
  const source = readFileSync(main, 'utf8');
  for (let time = 0; time < 3; time++) expect(await saysWith(source)).toContain('lease given back');
  // As a build would: with another mark.
  const other = source.replace('lease given back', 'LEASE GIVEN BACK').replace(/.{16}$/, '0123456789abcdef');
  expect(await saysWith(other)).toContain('LEASE GIVEN BACK');
});

test('each file of a build has a mark of its own', () => {
  const dist = resolve(BIN, '../../dist');
  const files = readdirSync(dist).filter((name) => name.endsWith('.js'));
  const marks = files.map((name) => /\n\/\/([0-9a-f]{16})$/.exec(readFileSync(join(dist, name), 'utf8'))?.[1]);
  expect(marks).not.toContain(undefined);
  expect(new Set(marks).size).toBe(files.length);
});
