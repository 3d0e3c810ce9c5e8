import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { fileReader } from '../../src/backends/file/spec.ts';

beforeEach(() => void vi.spyOn(process, 'getuid').mockReturnValue(1000));
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

const read = (env: NodeJS.ProcessEnv) => {
  const url = { scheme: 'file', rest: '', credentials: undefined, address: '' };
  return fileReader.read(url, {}, env).dir;
};

test.each([undefined, '', 'state', './state', '~/state'])(
  'the default directory is the same in each working directory: XDG_STATE_HOME=%s is not taken',
  (XDG_STATE_HOME) => {
    vi.stubEnv('HOME', '/home/me');
    expect(read({ XDG_STATE_HOME })).toBe('/home/me/.local/state/elect-run');
  },
);

test('an absolute XDG_STATE_HOME is taken', () => {
  expect(read({ XDG_STATE_HOME: '/srv/state' })).toBe('/srv/state/elect-run');
});

test.each(['', 'home'])('HOME=%s is no place for it', (home) => {
  vi.stubEnv('HOME', home);
  expect(() => read({})).toThrow(/HOME is ".*", no absolute path: write file:DIR/);
});
