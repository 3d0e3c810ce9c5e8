import { closeSync, existsSync, openSync, readSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type koffi from 'koffi';

export type Koffi = typeof koffi;

/** What its own loader adds to the binary of this version are deprecated names. Of another one that has to be looked up first. */
export const KNOWN_VERSION = '3.3.4';

/** Node's `arch` where it says all that there is to say about the binary interface. */
const PLAIN_ARCHITECTURES = ['x64', 'arm64'];

/** koffi, by way of its binary where we know it, which takes 1 ms, or else by its own loader, which takes 4 ms more to come to the same. */
export function loadKoffi(folder = import.meta.dirname): Koffi {
  const file = findBinary(folder);
  const binary = file === undefined ? undefined : open(file);
  if (binary?.version === KNOWN_VERSION) return binary;
  return process.getBuiltinModule('node:module').createRequire(import.meta.filename)('koffi');
}

/** Where npm and pnpm put the binary for this Node, as seen from a folder of ours. Undefined: it is not there, or none of which we can tell. */
export function findBinary(folder: string, node = process.execPath): string | undefined {
  const { arch } = process;
  if (!PLAIN_ARCHITECTURES.includes(arch) || !isGlibc(node)) return undefined;
  for (let dir = folder; dir !== dirname(dir); dir = dirname(dir)) {
    const loader = join(dir, 'node_modules/koffi');
    if (!existsSync(loader)) continue;
    const file = join(realpathSync(loader), `../@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`);
    return existsSync(file) ? file : undefined;
  }
  return undefined;
}

function open(file: string): Koffi | undefined {
  try {
    const module = { exports: {} };
    process.dlopen(module, file);
    return module.exports as Koffi;
  } catch {
    return undefined;
  }
}

/** Linkers put the name of a program's interpreter behind the headers (elf(5), PT_INTERP). */
const HEADERS_BYTES = 2048;

function isGlibc(program: string): boolean {
  const fd = openSync(program, 'r');
  try {
    const start = Buffer.alloc(HEADERS_BYTES);
    readSync(fd, start);
    return start.includes('/ld-linux-');
  } finally {
    closeSync(fd);
  }
}
