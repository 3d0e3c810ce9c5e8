import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import {
  childrenOf,
  childrenOfOurs,
  hasInEnvironment,
  hasStopped,
  highestPid,
  isAlive,
  isLeader,
  lastPid,
  readProc,
} from '../../src/proc.ts';
import { withoutDescriptors } from '../helpers/descriptors.ts';
import { describeWith } from '../helpers/needs.ts';
import { alive, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { LOSES_ITS_FIRST_THREAD } from '../helpers/threads.ts';

async function start(env: NodeJS.ProcessEnv = {}): Promise<number> {
  const sleeper = spawn('sleep', ['60'], { env: { ...process.env, ...env } });
  onTestFinished(() => void sleeper.kill());
  await once(sleeper, 'spawn');
  return sleeper.pid!;
}

test('an environment is read to its end, however long it is, and what is read after it is read afresh', async () => {
  const long = 'x'.repeat(50_000);
  const pid = await start({ BEFORE: long, LAST: `${long}y` });
  expect(hasInEnvironment(pid, `LAST=${long}y`)).toBe(true);
  expect(hasInEnvironment(pid, `LAST=${long}z`)).toBe(false);
  expect(readProc(pid)).toMatchObject({ pid, parent: process.pid });
});

test('all children are found, ours and those of anybody, however many there are', async () => {
  const pids: number[] = [];
  while (pids.join(' ').length < 4200) pids.push(await start());
  expect(childrenOf(process.pid)).toEqual(expect.arrayContaining(pids));
  expect(childrenOfOurs()).toEqual(expect.arrayContaining(pids));
}, 60_000);

test('who cannot be looked at, since no descriptor is left, passes for nobody’s and for dead in no way', async () => {
  const pid = await start();
  const proc = readProc(pid)!;
  await withoutDescriptors(() => {
    for (const read of [readProc, childrenOf, isLeader, () => hasInEnvironment(pid, 'A=b')])
      expect(() => read(pid)).toThrow('EMFILE');
    expect(isAlive(proc)).toBe(true);
  });
  expect(isAlive({ ...proc, startedAt: '1' })).toBe(false);
});

test('the last pid is the kernel’s, and of nobody who has put another file in its place', async () => {
  const before = lastPid()!;
  /** How many later: at the end they start again. */
  const sinceThen = (pid: number) => (pid - before + highestPid()) % highestPid();
  for (const pid of [await start(), lastPid()!]) {
    expect(sinceThen(pid)).toBeGreaterThan(0);
    expect(sinceThen(pid)).toBeLessThan(highestPid() / 2);
  }
  const shown = join(scratch(), 'loadavg');
  writeFileSync(shown, '0.00 0.00 0.00 1/100 4000000\n');
  expect(lastPid(shown)).toBe(undefined);
});

describeWith(['python3'], 'a process whose first thread has ended, and another one works on,', () => {
  async function startThreads(env: NodeJS.ProcessEnv = {}): Promise<number> {
    const told = join(scratch(), 'told');
    const shell = spawn('sh', ['-c', `exec ${LOSES_ITS_FIRST_THREAD} '${told}'`], { env: { ...process.env, ...env } });
    onTestFinished(() => void shell.kill('SIGKILL'));
    await until(() => existsSync(told), 'the end of its first thread');
    return shell.pid!;
  }

  test('lives, until all of them have ended', async () => {
    const pid = await startThreads();
    const proc = readProc(pid)!;
    expect(proc).toMatchObject({ pid, parent: process.pid });
    expect(isAlive(proc)).toBe(true);
    process.kill(pid, 'SIGKILL');
    await until(() => !alive(pid), 'its end');
    expect(isAlive(proc)).toBe(false);
  });

  test('shows the environment that it was started with', async () => {
    const pid = await startThreads({ MARK: 'its own' });
    expect(hasInEnvironment(pid, 'MARK=its own')).toBe(true);
    expect(hasInEnvironment(pid, 'MARK=another')).toBe(false);
  });

  test('has stopped when all of them have', async () => {
    const pid = await startThreads();
    expect(hasStopped(pid)).toBe(false);
    process.kill(pid, 'SIGSTOP');
    await until(() => hasStopped(pid), 'its stop');
    process.kill(pid, 'SIGCONT');
    await until(() => !hasStopped(pid), 'its going on');
  });
});
