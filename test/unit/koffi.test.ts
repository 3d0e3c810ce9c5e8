import { cpSync, mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { findBinary, KNOWN_VERSION, loadKoffi } from '../../src/koffi.ts';
import { scratch, script } from '../helpers/scratch.ts';

const require = createRequire(import.meta.url);
const installed = dirname(require.resolve('koffi'));

/** A folder with `koffi` and its binary beside each other in `modules`. */
function install(modules: string, contents = 'a binary'): string {
  const { arch } = process;
  const folder = join(modules, `@koromix/koffi-linux-${arch}/linux_${arch}`);
  mkdirSync(join(modules, 'koffi'), { recursive: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'koffi.node'), contents);
  return join(folder, 'koffi.node');
}

test('the version whose loader we do without is the one that is installed', () => {
  expect(JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')).version).toBe(KNOWN_VERSION);
});

test('the binary is loaded, and no loader', () => {
  const libc = loadKoffi().load(null);
  expect(libc.func('int getpid()')()).toBe(process.pid);
  expect(Object.keys(require.cache).filter((file) => file.includes('/koffi/'))).toEqual([]);
});

describe('the binary is found', () => {
  test('beside the package', () => {
    const dir = realpathSync(scratch());
    const binary = install(join(dir, 'node_modules'));
    expect(findBinary(join(dir, 'node_modules/elect-run/dist'))).toBe(binary);
  });

  test('in the package', () => {
    const dir = realpathSync(scratch());
    const binary = install(join(dir, 'elect-run/node_modules'));
    expect(findBinary(join(dir, 'elect-run/dist'))).toBe(binary);
  });

  test('where pnpm keeps it', () => {
    const dir = realpathSync(scratch());
    const binary = install(join(dir, '.pnpm/koffi@3/node_modules'));
    const ours = join(dir, '.pnpm/elect-run@1/node_modules');
    mkdirSync(join(ours, 'elect-run/dist'), { recursive: true });
    symlinkSync('../../koffi@3/node_modules/koffi', join(ours, 'koffi'));
    expect(findBinary(join(ours, 'elect-run/dist'))).toBe(binary);
  });
});

describe('the loader has to find it', () => {
  test('where there is none', () => {
    const dir = scratch();
    mkdirSync(join(dir, 'node_modules/koffi'), { recursive: true });
    expect(findBinary(dir)).toBeUndefined();
  });

  test('for a Node that is not linked to glibc', () => {
    const dir = scratch();
    install(join(dir, 'node_modules'));
    expect(findBinary(dir, script(dir, 'node', '\u007fELF … /lib/ld-musl-x86_64.so.1'))).toBeUndefined();
  });

  test('where it cannot be loaded', () => {
    const dir = scratch();
    install(join(dir, 'node_modules'), 'no binary');
    expect(loadKoffi(dir).load(null).func('int getpid()')()).toBe(process.pid);
  });

  test('where it is of another version', () => {
    const dir = scratch();
    const binary = install(join(dir, 'node_modules'));
    cpSync(findBinary(import.meta.dirname)!, binary);
    const bytes = readFileSync(binary);
    for (let at = bytes.indexOf(`${KNOWN_VERSION}\0`); at >= 0; at = bytes.indexOf(`${KNOWN_VERSION}\0`, at + 1))
      bytes.write('0.0.0', at);
    expect(bytes.includes('0.0.0\0')).toBe(true);
    writeFileSync(binary, bytes);
    const koffi = loadKoffi(dir);
    expect(koffi.version).toBe(KNOWN_VERSION);
    expect(koffi.load(null).func('int getpid()')()).toBe(process.pid);
  });
});
