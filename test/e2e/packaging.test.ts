import { execFile, execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { pathWithoutCompilers } from '../helpers/compilers.ts';
import { NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { describeWith } from '../helpers/needs.ts';
import { processesWith } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

const home = newFolder('package');
const prefix = join(home, 'prefix');
const withoutCompiler = join(home, 'tools');
const installed = join(prefix, 'lib/node_modules/elect-run');
let files: string[] = [];

/** Nothing of this checkout can be found from there, and `node` is the one that the tests run on. */
const env = {
  ...process.env,
  NODE_PATH: undefined,
  NODE_OPTIONS: undefined,
  PATH: `${dirname(NODE)}:${process.env.PATH}`,
};

beforeAll(async () => {
  // The build is there already; to build again would pull it from under other tests.
  const packed = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', home], {
    cwd: ROOT,
    env,
  });
  const [{ filename, files: list }] = JSON.parse(packed.stdout);
  files = list.map(({ path }: { path: string }) => path);
  mkdirSync(withoutCompiler);
  const install = ['install', '-g', '--prefix', prefix, '--prefer-offline', '--no-audit', '--no-fund'];
  const path = pathWithoutCompilers(withoutCompiler, env.PATH);
  await run('npm', [...install, join(home, filename)], { cwd: home, env: { ...env, PATH: path } });
}, 180_000);

afterAll(() => rmSync(home, { recursive: true, force: true }));
afterEach(stopServers);

const electRun = (args: string[], cwd: string) => run(join(prefix, 'bin/elect-run'), args, { cwd, env });

test('the package that npm installs elsewhere has an elect-run that works', async () => {
  const dir = scratch();
  const { stdout, stderr } = await electRun(['-b', `file:${dir}`, '--', 'printenv', 'FENCING_TOKEN'], dir);
  expect(stdout).toBe('1\n');
  expect(stderr).toContain('elected leader of printenv with token 1');
});

test('its exit code is the command’s', async () => {
  const dir = scratch();
  await expect(electRun(['-b', `file:${dir}`, '-n', 'job', '--', 'sh', '-c', 'exit 42'], dir)).rejects.toMatchObject({
    code: 42,
  });
});

test('it is the version of package.json', async () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  expect((await electRun(['--version'], '/')).stdout).toBe(`${version}\n`);
});

test('it ends the whole tree after kill -9, by the guard that is in the package', async () => {
  const dir = scratch();
  const job = 'setsid sleep 1000 & kill -9 $PPID; sleep 1000';
  const marked = { ...env, TEST_MARK: dir };
  await run(join(prefix, 'bin/elect-run'), ['-b', `file:${dir}`, '-n', 'job', '--', 'sh', '-c', job], {
    env: marked,
  }).catch(() => {});
  const next = await electRun(
    ['-b', `file:${dir}`, '-n', 'job', '--wait', '20s', '--', 'printenv', 'FENCING_TOKEN'],
    dir,
  );
  expect(next.stdout).toBe('2\n');
  await expect.poll(() => processesWith(`TEST_MARK=${dir}`), { timeout: 10_000 }).toEqual([]);
});

test('it has what it needs and no more: no sources, no tests, no packages for development', () => {
  expect(files).toContain('bin/elect-run.js');
  expect(files).toContain('dist/main.js');
  expect(files).toContain('dist/guard.sh');
  for (const name of ['cleanup', 'guard', 'witness']) expect(files).toContain(`dist/${name}-process.js`);
  expect(files).toContain('README.md');
  expect(files).toContain('LICENSE');
  expect(files.filter((path) => /^(src|test|scripts|node_modules|\.ci)\/|\.ts$|\.map$/.test(path))).toEqual([]);
  const { dependencies } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
  const own = join(installed, 'node_modules');
  const there = existsSync(own) ? readdirSync(own).filter((name) => !/^[.@]/.test(name)) : [];
  expect(there.filter((name) => !(name in dependencies))).toEqual([]);
});

test('where the addon for ZooKeeper cannot be compiled everything else is installed, and --backend zookeeper says what is missing: 69', async () => {
  expect(existsSync(join(installed, 'node_modules/zookeeper'))).toBe(false);
  const asked = electRun(['-q', '-b', 'zookeeper', '-n', 'x', '--no-wait', '--', 'true'], '/');
  await expect(asked).rejects.toMatchObject({
    code: 69,
    stderr: expect.stringMatching(/^elect-run: [^\n]*npm install [^\n]*zookeeper[^\n]*\n$/),
  });
});

test('every file that package.json names is in it', () => {
  const { bin, man } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8'));
  for (const path of [...Object.values<string>(bin), ...[man].flat()]) expect(files).toContain(path);
  expect(statSync(realpathSync(join(prefix, 'bin/elect-run'))).mode & 0o111).not.toBe(0);
  for (const name of ['guard.sh', 'witness.sh'].filter((one) => files.includes(`dist/${one}`)))
    execFileSync('sh', ['-n', join(installed, 'dist', name)]);
});

test.each([
  ['bash', 'elect-run.bash'],
  ['zsh', '_elect-run'],
  ['fish', 'elect-run.fish'],
])('it has the completion of %s, as a file and to print', async (shell, file) => {
  expect(files).toContain(`dist/completions/${file}`);
  const { stdout } = await electRun(['completion', shell], '/');
  expect(readFileSync(join(installed, 'dist/completions', file), 'utf8')).toBe(stdout);
});

test('the manual page can be read', () => {
  const page = join(prefix, 'share/man/man1/elect-run.1');
  expect(readFileSync(page, 'utf8')).toMatch(/^\.TH "?ELECT\\?-RUN/im);
});

describeWith(['etcd', 'etcdctl'], 'the installed package', () => {
  test('has the library of the etcd backend in it', async () => {
    const etcd = await Etcd.start();
    const { stdout } = await electRun(['-b', etcd.url, '-n', 'jobs/x', '--', 'printenv', 'ELECT_RUN_BACKEND'], '/');
    expect(stdout).toBe(`${etcd.url}\n`);
  });
});
