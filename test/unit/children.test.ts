import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { Children, childrenOf, childrenOfOurs } from '../../src/proc.ts';
import { countOpen, until } from '../helpers/procs.ts';

function start(program: string, args: string[]): ChildProcess {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'], detached: true });
  onTestFinished(() => {
    try {
      process.kill(-child.pid!, 'SIGKILL');
    } catch {} // it has ended
  });
  return child;
}

const openLists = () => countOpen((target) => target.endsWith('/children'));

test('children are seen as they come and go, at every read', async () => {
  const shell = start('sh', ['-c', 'while read -r word; do sleep 1000 & echo $!; done; wait']);
  const children = new Children(shell.pid!);
  expect(children.read()).toEqual([]);
  for (const count of [1, 2, 3]) {
    shell.stdin!.write('another\n');
    await once(shell.stdout!, 'data');
    expect(children.read()).toHaveLength(count);
  }
  expect(children.read()).toEqual(childrenOf(shell.pid!));
  process.kill(-shell.pid!, 'SIGKILL');
  await once(shell, 'exit');
  expect(children.read()).toEqual([]);
  children.end();
});

test('children of every thread are seen', async () => {
  const program = `
    const { Worker } = require('node:worker_threads');
    new Worker("require('node:child_process').spawn('sleep', ['1000'])", { eval: true });
    console.log('ready');
    setInterval(() => {}, 1000);`;
  const node = start(process.execPath, ['-e', program]);
  const children = new Children(node.pid!);
  onTestFinished(() => children.end());
  const [child] = await until(() => {
    const seen = children.read();
    return seen.length > 0 && seen;
  }, 'the child of its thread');
  // It is there before it has become what it was started as.
  await until(() => readFileSync(`/proc/${child}/cmdline`, 'latin1') === 'sleep\x001000\x00', 'sleep');
});

test('a list that is longer than a page is read to its end', async () => {
  const many = 900;
  const shell = start('sh', ['-c', `for _ in $(seq ${many}); do sleep 1000 & done; echo ready; wait`]);
  await once(shell.stdout!, 'data');
  const children = new Children(shell.pid!);
  onTestFinished(() => children.end());
  expect(children.read()).toHaveLength(many);
});

test('the end leaves no descriptor, however often it is told', () => {
  childrenOfOurs(); // its own stays
  const before = openLists();
  const shell = start('sleep', ['1000']);
  const children = new Children(shell.pid!);
  children.read();
  expect(openLists()).toBe(before + 1);
  children.end();
  children.end();
  expect(openLists()).toBe(before);
});
