import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A PATH as on a machine on which no addon can be compiled: `folder`, which is an empty one, comes first. */
export function pathWithoutCompilers(folder: string, path = process.env.PATH): string {
  for (const tool of ['make', 'gcc', 'g++', 'cc', 'c++', 'cmake', 'clang', 'clang++'])
    writeFileSync(join(folder, tool), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  return `${folder}:${path}`;
}
