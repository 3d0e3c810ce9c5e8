import { readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { Helper } from '../../src/helper.ts';
import { endOf } from '../../src/outcome.ts';
import { countOpen, until } from '../helpers/procs.ts';
import { scratch, script } from '../helpers/scratch.ts';

/** Runs a shell script as a helper. */
function start(text: string) {
  const lines: string[] = [];
  const program = script(scratch(), 'helper', `#!/bin/sh\n${text}`);
  const helper = new Helper([program], { ownSession: true, stderr: 2, heard: (line) => lines.push(line) });
  onTestFinished(() => {
    helper.end();
    try {
      process.kill(-helper.pid, 'SIGKILL');
    } catch {} // it has ended
  });
  return { helper, lines };
}

const openSockets = () => countOpen((target) => target.startsWith('socket:'));

test('hears whole lines, however they come', async () => {
  const { helper, lines } = start("printf 'on'; read -r _; printf 'e\\ntwo\\nthr'; read -r _; echo ee; read -r _");
  helper.tell('go on');
  await until(() => lines.length === 2, 'two lines');
  helper.tell('go on');
  await until(() => lines.length === 3, 'the third');
  expect(lines).toEqual(['one', 'two', 'three']);
});

test('tells one that does not read without waiting, and nothing is lost when it does', async () => {
  const { helper, lines } = start('echo ready; while read -r line; do expr length "$line"; done');
  await until(() => lines.length === 1, 'its first word');
  process.kill(helper.pid, 'SIGSTOP');
  for (let told = 0; told < 5; told++) helper.tell('x'.repeat(100_000)); // more than a socket holds
  helper.tell('short');
  process.kill(helper.pid, 'SIGCONT');
  await until(() => lines.length === 7, 'all of them');
  expect(lines.slice(1)).toEqual([...Array(5).fill('100000'), '5']);
});

test('what it has said is heard at once by whoever asks, also when nobody has come to read it', async () => {
  const { helper, lines } = start('echo said; read -r _');
  const startedAt = performance.now();
  while (lines.length === 0 && performance.now() - startedAt < 10_000) helper.hear();
  expect(lines).toEqual(['said']);
});

test('its end is told with its status, after its last words', async () => {
  const { helper, lines } = start('echo last; exit 7');
  expect(endOf(await helper.ended)).toEqual({ status: 7, signal: undefined });
  expect(lines).toEqual(['last']);
  helper.tell('nobody is there');
});

test('it hears the end, and no descriptor is left', async () => {
  const before = openSockets();
  const { helper } = start('read -r _ || exit 5');
  expect(openSockets()).toBe(before + 2);
  helper.end();
  expect(endOf(await helper.ended).status).toBe(5);
  expect(openSockets()).toBe(before);
});

test('what it has of ours is its stdin, stdout and stderr, and its folder is the root', async () => {
  const { helper, lines } = start('echo ready; read -r _');
  await until(() => lines.length === 1, 'its first word');
  expect(readlinkSync(`/proc/${helper.pid}/cwd`)).toBe('/');
  const descriptors = readdirSync(`/proc/${helper.pid}/fd`);
  expect(descriptors.filter((fd) => Number(fd) < 10)).toEqual(['0', '1', '2']); // beyond is its script
});

test('one that cannot be started is told by an exception, and no descriptor is left', () => {
  const before = openSockets();
  const missing = `${realpathSync(scratch())}/missing`;
  expect(() => new Helper([missing], { ownSession: true, stderr: 2, heard: () => {} })).toThrow(/no such file/);
  expect(openSockets()).toBe(before);
});
