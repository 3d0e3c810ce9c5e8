import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { elect, endAll } from '../helpers/elect.ts';
import { scratch } from '../helpers/scratch.ts';

afterEach(endAll);

/** Takes a kernel lock without waiting, and says which token it had. */
const job = (dir: string) =>
  `exec 9>>'${dir}/work'; flock --nonblock 9 || { echo overlap >>'${dir}/log'; exit 99; }; echo "$FENCING_TOKEN" >>'${dir}/log'`;

test('eight candidates at once: all run, never two of them, and the tokens grow', async () => {
  const dir = scratch();
  const args = ['-b', `file:${dir}/locks`, '-n', 'job', '--', 'sh', '-c', job(dir)];
  const runs = await Promise.all(Array.from({ length: 8 }, () => elect(args).ended));
  expect(runs.map(({ code }) => code)).toEqual(Array(8).fill(0));
  expect(readFileSync(join(dir, 'log'), 'utf8')).toBe('1\n2\n3\n4\n5\n6\n7\n8\n');
});

test('eight candidates with --no-wait: each runs or gives 75, and never two of them run', async () => {
  const dir = scratch();
  const args = ['-b', `file:${dir}/locks`, '-n', 'job', '--no-wait', '--', 'sh', '-c', `${job(dir)}; sleep 0.3`];
  const codes = (await Promise.all(Array.from({ length: 8 }, () => elect(args).ended))).map(({ code }) => code);
  const ran = codes.filter((code) => code === 0).length;
  expect(ran).toBeGreaterThan(0);
  expect(codes.filter((code) => code !== 0 && code !== 75)).toEqual([]);
  expect(readFileSync(join(dir, 'log'), 'utf8').trim().split('\n')).toHaveLength(ran);
});

test('candidates of different elections do not wait for each other', async () => {
  const dir = scratch();
  const start = (name: string) => elect(['-b', `file:${dir}`, '-n', name, '--', 'sleep', '1000']).event('started');
  await Promise.all(['a', 'b', 'a.lock', 'ä'].map(start));
});

test('flock(1) and elect-run exclude each other while they contend', async () => {
  const dir = scratch();
  writeFileSync(join(dir, 'log'), '');
  const lock = join(dir, 'job.lock');
  const ours = ['-b', `file:${dir}`, '-n', 'job', '--', 'sh', '-c', `${job(dir)}; sleep 0.05`];
  const theirs = ['-b', `file:${dir}`, '--', 'flock', lock, 'sh', '-c', `${job(dir)}; sleep 0.05`];
  const all = [0, 1, 2, 3].flatMap((index) => [elect(ours), elect(['-n', `other-${index}`, ...theirs])]);
  const codes = (await Promise.all(all.map(({ ended }) => ended))).map(({ code }) => code);
  expect(codes).toEqual(Array(8).fill(0));
  expect(readFileSync(join(dir, 'log'), 'utf8')).not.toContain('overlap');
});
