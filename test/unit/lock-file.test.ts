import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, renameSync, rmSync, symlinkSync, watch, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { Gone } from '../../src/backend.ts';
import { LockFile } from '../../src/backends/file/lock.ts';
import { scratch } from '../helpers/scratch.ts';

test('a lock file that cannot be looked at for a moment is not gone', async () => {
  const home = scratch();
  const [dir, away] = [join(home, 'dir'), join(home, 'away')];
  const file = join(dir, 'lock');
  mkdirSync(dir);
  const lock = new LockFile(file, () => openSync(file, 'w+'));
  const place = lock.newPlace();
  expect(lock.tryLock(place)).toBe(true);
  const over = new AbortController();
  const watcher = watch(dir);
  onTestFinished(() => {
    over.abort();
    watcher.close();
    if (place.inheritFd !== undefined) closeSync(place.inheritFd);
  });
  const gone = lock.gone(place, over.signal);
  await setImmediate(); // it looks from now on

  renameSync(dir, away);
  symlinkSync(dir, dir); // ELOOP, also for root
  writeFileSync(join(away, 'other'), '');
  await once(watcher, 'change');
  await setImmediate(); // it has looked
  rmSync(dir);
  renameSync(away, dir);

  rmSync(file);
  expect(await gone).toBeInstanceOf(Gone);
});
