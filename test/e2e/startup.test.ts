import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { BIN, elect, endAll, NODE } from '../helpers/elect.ts';
import { scratch, script } from '../helpers/scratch.ts';

afterEach(endAll);

/** Each of them, and what it loads in turn, takes a start 0.5 to 4 ms. */
const EXPENSIVE = ['child_process', 'crypto', 'dns', 'http', 'net', 'perf_hooks', 'readline', 'stream', 'tls', 'tty'];

test('a start loads nothing expensive of Node’s', async () => {
  const dir = scratch();
  const list = join(dir, 'list');
  const preloaded = script(
    dir,
    'preloaded.cjs',
    `process.on('exit', () => require('node:fs').writeFileSync('${list}', process.moduleLoadList.join()));`,
  );
  const loaded = () => readFileSync(list, 'utf8').split(',');
  execFileSync(NODE, ['-r', preloaded, '-e', '']);
  const always = loaded();
  const run = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'true'], { program: [NODE, '-r', preloaded, BIN] });
  expect((await run.ended).code).toBe(0);
  const more = loaded().filter((name) => !always.includes(name));
  expect(more).toContain('NativeModule os');
  expect(more.filter((name) => EXPENSIVE.includes(name.replace('NativeModule ', '')))).toEqual([]);
});
