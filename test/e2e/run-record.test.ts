import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { BIN, elect, endAll, NODE } from '../helpers/elect.ts';
import { scratch, script } from '../helpers/scratch.ts';
import { whatIsMissing } from '../helpers/tools.ts';

afterEach(endAll);

const inFolder = (dir: string, ...flags: string[]) => ['-b', `file:${dir}`, '-n', 'job', ...flags];

/** Where the next version of the record is to be written, nothing can be. */
function obstruct(dir: string): void {
  mkdirSync(join(dir, 'job.runs.new', 'x'), { recursive: true });
}

describe('a run record that cannot be written', () => {
  test('a start that cannot be recorded for good: 64, and the job is not run', async () => {
    const dir = scratch();
    obstruct(dir);
    const { code, stdout, stderr } = await elect([...inFolder(dir, '--once-per', 'day'), '--', 'echo', 'ran']).ended;
    expect(code).toBe(64);
    expect(stdout.toString()).toBe('');
    expect(stderr).toMatch(/--backend file: cannot write \S+job\.runs: EISDIR/);
  });

  test('an end that cannot be recorded for good: the status is the job’s, and it is said that it may run again', async () => {
    const dir = scratch();
    const job = `mkdir -p ${dir}/job.runs.new/x; exit 4`;
    const run = elect([...inFolder(dir, '--once-per', 'day'), '--', 'sh', '-c', job]);
    expect((await run.ended).code).toBe(4);
    expect(await run.event('unrecorded')).toMatchObject({ reason: expect.stringMatching(/EISDIR/) });
  });

  test('a full disk before the start is spoken of once, and the job is run when there is room again', async () => {
    const dir = scratch();
    symlinkSync('/dev/full', join(dir, 'job.runs.new'));
    const run = elect([...inFolder(dir, '--once-per', 'day'), '--', 'sh', '-c', 'exit 4']);
    await run.says(/ENOSPC/);
    await new Promise((resolve) => setTimeout(resolve, 700)); // some more attempts
    rmSync(join(dir, 'job.runs.new'));
    expect((await run.ended).code).toBe(4);
    expect(run.events.filter(({ event }) => event === 'record-unavailable')).toHaveLength(1);
  });

  test('a full disk at the end: it is tried again, but a signal is not kept waiting', async () => {
    const dir = scratch();
    const job = `ln -s /dev/full ${dir}/job.runs.new; exit 4`;
    const run = elect([...inFolder(dir, '--schedule', '* * * * * *'), '--', 'sh', '-c', job]);
    await run.event('record-unavailable');
    run.kill('SIGTERM');
    expect((await run.ended).code).toBe(4);
    expect(await run.event('unrecorded')).toMatchObject({ reason: expect.stringMatching(/SIGTERM/) });
  }, 15_000);
});

const noMounts = whatIsMissing(['pidns']);
test.skipIf(noMounts).each(['.', 'folder'])(
  `a disk without room for another file, in %s, is waited for${noMounts ? ` [skipped: ${noMounts}]` : ''}`,
  async (folder) => {
    const dir = scratch();
    const script = `
      mount -t tmpfs -o nr_inodes=2 none '${dir}' && touch '${dir}/last'
      exec 3<&0
      { read line <&3; mount -o remount,nr_inodes=20 none '${dir}'; } &
      exec '${NODE}' '${BIN}' ${inFolder(join(dir, folder)).join(' ')} -- echo ran`;
    const run = elect([], { program: ['unshare', '-m', 'sh', '-c', script], stdin: 'pipe' });
    expect(await run.event('unreachable')).toMatchObject({ reason: expect.stringMatching(/ENOSPC$/) });
    run.process.stdin!.end('more\n');
    expect(await run.ended).toMatchObject({ code: 0, stdout: Buffer.from('ran\n') });
  },
);

const FULL = `
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
fs.fdatasyncSync = () => {
  throw Object.assign(new Error('ENOSPC: no space left on device, fdatasync'), { code: 'ENOSPC' });
};
syncBuiltinESMExports();`;

test.each([
  ['--no-wait', ['--no-wait'], 0],
  ['--wait', ['--wait', '700ms'], 700],
])(
  'a full disk before the first token: %s is over in time with 69, and the lock is free',
  async (_name, wait, leastMs) => {
    const dir = scratch();
    const env = { NODE_OPTIONS: `--import=${script(dir, 'full.mjs', FULL)}` };
    const startedAt = performance.now();
    const { code, stderr } = await elect([...inFolder(dir), ...wait, '--', 'true'], { env }).ended;
    expect([code, stderr]).toEqual([69, expect.stringMatching(/could not be reached in time: ENOSPC/)]);
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(leastMs);
    expect((await elect([...inFolder(dir), '--no-wait', '--', 'sh', '-c', 'exit 4']).ended).code).toBe(4);
  },
);

test('a full disk before the first token is spoken of once', async () => {
  const dir = scratch();
  const env = { NODE_OPTIONS: `--import=${script(dir, 'full.mjs', FULL)}` };
  const run = elect([...inFolder(dir), '--wait', '5s', '--', 'true'], { env });
  await run.event('unreachable');
  await new Promise((resolve) => setTimeout(resolve, 500)); // some more attempts
  run.kill('SIGTERM');
  await run.ended;
  expect(run.events.filter(({ event }) => event === 'unreachable')).toMatchObject([
    { reason: expect.stringMatching(/ENOSPC/) },
  ]);
});
