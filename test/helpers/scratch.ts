import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { newFolder } from './folders.ts';

/** A directory that is gone when the test is over. */
export function scratch(): string {
  const dir = newFolder('test');
  onTestFinished(() => rmSync(dir, { recursive: true, force: true, maxRetries: 5 }));
  return dir;
}

/** Writes a program into `dir` and returns its path. */
export function script(dir: string, name: string, text: string, mode = 0o755): string {
  const file = join(dir, name);
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

/** All of them, so many at a time. */
export async function inBatches<T>(items: T[], size: number, act: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items];
  await Promise.all(
    Array.from({ length: size }, async () => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) await act(item);
    }),
  );
}
