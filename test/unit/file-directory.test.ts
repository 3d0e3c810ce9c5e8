import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { expect, onTestFinished, test } from 'vitest';
import { FileBackend } from '../../src/backends/file.ts';
import { scratch } from '../helpers/scratch.ts';

const ROUNDS = 3000;
const CANDIDATE = { election: 'job', id: 'me', ttlMs: 15_000, requestMs: 3_000 };

/** Makes `DIR/ROUND/a/b`, a folder at a time, at the moment that the round begins. */
const MAKER = `
const { mkdirSync } = require('node:fs');
const { parentPort, workerData: { dir, rounds, round } } = require('node:worker_threads');
parentPort.postMessage('ready');
for (let next = 1; next <= rounds; next += 1) {
  while (Atomics.load(round, 0) < next);
  for (const folder of ['', '/a', '/a/b'])
    try { mkdirSync(dir + '/' + next + folder); } catch (error) { if (error.code !== 'EEXIST') throw error; }
}`;

test('a directory that somebody else makes at the same moment serves both', async () => {
  const dir = scratch();
  const round = new Int32Array(new SharedArrayBuffer(4));
  const maker = new Worker(MAKER, { eval: true, workerData: { dir, rounds: ROUNDS, round } });
  onTestFinished(async () => void (await maker.terminate()));
  await once(maker, 'message');

  const { signal } = new AbortController();
  for (let next = 1; next <= ROUNDS; next += 1) {
    Atomics.store(round, 0, next);
    const backend = new FileBackend({ kind: 'file', dir: join(dir, String(next), 'a', 'b') }, CANDIDATE);
    const place = backend.newPlace();
    expect(await backend.acquire(place, signal)).toEqual({ leads: true });
    await backend.release(place, signal);
  }
});

test('where nothing can be made, the one line says so', async () => {
  const backend = new FileBackend({ kind: 'file', dir: '/proc/elect-run/locks' }, CANDIDATE);
  expect(existsSync('/proc/elect-run')).toBe(false);
  await expect(backend.acquire(backend.newPlace(), new AbortController().signal)).rejects.toThrow(
    '--backend file: cannot write /proc/elect-run/locks/job.lock: ENOENT; name a directory that you can write (file:DIR)',
  );
});
