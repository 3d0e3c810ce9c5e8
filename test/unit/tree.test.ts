import { spawn } from 'node:child_process';
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { now } from '../../src/clock.ts';
import { killTree, seemsDead } from '../../src/tree.ts';
import { withoutDescriptors } from '../helpers/descriptors.ts';
import { newFolder } from '../helpers/folders.ts';
import { alive, childrenOf, identify, processesWith, signal, until } from '../helpers/procs.ts';

const ROUNDS = 60;
/** Of one generation. */
const LENGTH_MS = 35;
/** One generation of many: a session of its own, and gone before the next one has forked. */
const CHAIN = `#!/bin/sh
sleep 0.03
[ "$1" -eq 0 ] || setsid "$0" $(($1 - 1)) &
exit 0
`;

const NOTHING_KNOWN = {
  root: undefined,
  ownGroup: true,
  reaper: undefined,
  session: 0,
  bystanders: [],
  known: [],
  helperSessions: [],
  helpers: [],
};

test('a tree that cannot be looked at, since no descriptor is left, is not shown to be dead', async () => {
  const id = `${process.pid}-unseen`;
  const { pid } = spawn('sleep', ['60'], { env: { ...process.env, ELECT_RUN_ID: id }, stdio: 'ignore' });
  const marks = { ...NOTHING_KNOWN, mark: `ELECT_RUN_ID=${id}` };
  await until(() => processesWith(marks.mark).length > 0, 'a process of the tree');
  await withoutDescriptors(async () => {
    expect(seemsDead(marks)).toBe(false);
    expect(await killTree(marks, now() + 100)).toBe(false);
  });
  expect(alive(pid!)).toBe(true);
  expect(await killTree(marks, now() + 5000)).toBe(true);
  expect(alive(pid!)).toBe(false);
  expect(seemsDead(marks)).toBe(true);
});

test('children of somebody who has been given elect-run’s pid are nobody’s', async () => {
  const parent = spawn('sh', ['-c', 'setsid sleep 60 & wait'], { stdio: 'ignore' });
  const child = await until(() => childrenOf(parent.pid!)[0], 'its child');
  onTestFinished(() => [child, parent.pid!].forEach((pid) => void signal(pid, 'SIGKILL')));
  const { pid, startedAt } = identify(parent.pid!);
  const marks = { ...NOTHING_KNOWN, mark: 'ELECT_RUN_ID=nobody' };
  expect(seemsDead({ ...marks, reaper: { pid, startedAt } })).toBe(false);
  expect(seemsDead({ ...marks, reaper: { pid, startedAt: '1' } })).toBe(true);
});

// Nobody adopts what these leave, as after a kill -9 of elect-run: whoever looks from one process to the next may find none of them alive while they live on.
test('nobody of a tree that forks without end gets past killTree', async () => {
  const folder = newFolder('tree');
  const chain = join(folder, 'chain.sh');
  writeFileSync(chain, CHAIN);
  chmodSync(chain, 0o755);
  onTestFinished(async () => {
    await until(() => {
      const left = processesWith(`ELECT_RUN_TREE_TEST=${process.pid}`);
      for (const pid of left) signal(pid, 'SIGSTOP');
      for (const pid of left) signal(pid, 'SIGKILL');
      return left.length === 0;
    }, 'the end of all chains');
    rmSync(folder, { recursive: true });
  });
  for (let round = 0; round < ROUNDS; round++) {
    const mark = `ELECT_RUN_ID=${process.pid}-${round}`;
    for (let line = 0; line < 3; line++) {
      const env = {
        PATH: process.env.PATH,
        ELECT_RUN_ID: `${process.pid}-${round}`,
        ELECT_RUN_TREE_TEST: `${process.pid}`,
      };
      spawn(chain, ['300'], { env, stdio: 'ignore', detached: true });
    }
    await until(() => processesWith(mark).length >= 3, 'three chains');
    await sleep(LENGTH_MS + (LENGTH_MS * round) / ROUNDS); // at another moment of a generation's life each time
    const marks = { ...NOTHING_KNOWN, mark };
    expect(await killTree(marks, now() + 5000)).toBe(true);
    expect(processesWith(mark)).toEqual([]);
  }
});
