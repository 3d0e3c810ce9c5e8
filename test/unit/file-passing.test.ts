import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Unusable } from '../../src/backend.ts';
import { FenceFile } from '../../src/backends/file/fence.ts';
import { FileBackend } from '../../src/backends/file.ts';
import { withoutDescriptors } from '../helpers/descriptors.ts';
import { scratch } from '../helpers/scratch.ts';

const CANDIDATE = { election: 'job', id: 'me', ttlMs: 15_000, requestMs: 3_000 };
const { signal } = new AbortController();

/** An error after which it is tried again. */
async function passes(act: () => Promise<unknown>): Promise<void> {
  const error = await act().then(
    () => undefined,
    (thrown: Error) => thrown,
  );
  expect(error?.message).toMatch('EMFILE');
  expect(error).not.toBeInstanceOf(Unusable);
}

test('no descriptor to be had is no reason to give up: not for the lock, the token, the record or the word', async () => {
  const dir = scratch();
  const backend = new FileBackend({ kind: 'file', dir }, CANDIDATE);
  const [place, other] = [backend.newPlace(), backend.newPlace()];
  await backend.acquire(place, signal);
  await backend.confirm(place, signal);
  writeFileSync(join(dir, 'job.runs'), '{}');
  await withoutDescriptors(async () => {
    await passes(() => backend.acquire(other, signal));
    await passes(() => backend.confirm(place, signal));
    await passes(() => backend.observe(signal));
    await passes(() => backend.readBook(signal));
    await passes(() => backend.writeBook(place, '{}', undefined, signal));
    await passes(() => backend.leaveWord('word', signal));
  });
  await backend.release(place, signal);
});

test('nor for a fence', async () => {
  const fence = new FenceFile(join(scratch(), 'fence'));
  await withoutDescriptors(async () => {
    await passes(() => fence.acquire(fence.newPlace(), signal));
    await passes(() => fence.readBook(signal));
  });
});
