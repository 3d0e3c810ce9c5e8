import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { BIN, elect, endAll, NODE } from '../helpers/elect.ts';
import { clearOracles, Oracle } from '../helpers/oracle.ts';
import { commandLine, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { whatIsMissing } from '../helpers/tools.ts';

const SECRET = 'hunter2';
const USAGE = 64;
const BUSY = 75;
const STALE = 76;
const LOST = 79;

afterEach(async () => {
  await endAll();
  await clearOracles();
});

const newTarget = () => join(scratch(), 'data.fence');

/** As people see it. */
const run = (args: string[], env: NodeJS.ProcessEnv = {}) =>
  elect(['fence', ...args], { env: { ELECT_RUN_LOG_FORMAT: undefined, FENCING_TOKEN: undefined, ...env } }).ended;

const act = (target: string, token: string | number, ...command: string[]) =>
  run([target, '--token', String(token), '--', ...(command.length > 0 ? command : ['true'])]);

async function shown(target: string) {
  return JSON.parse((await run([target, '--show', '--json'])).stdout.toString());
}

describe('elect-run fence with a file', () => {
  test('the command has its status, its output and its input, and nothing else is said', async () => {
    const job = elect(
      ['fence', newTarget(), '--token', '1', '--', 'sh', '-c', 'read line; echo "got $line"; exit 42'],
      {
        env: { ELECT_RUN_LOG_FORMAT: undefined },
        stdin: 'pipe',
      },
    );
    job.process.stdin!.end('a line\n');
    expect(await job.ended).toMatchObject({ code: 42, stdout: Buffer.from('got a line\n'), stderr: '' });
  });

  test('a stale token is spoken of in one line, which names the target, the token and the highest', async () => {
    const target = newTarget();
    await act(target, 42);
    const { code, stderr } = await act(target, 41);
    expect(code).toBe(STALE);
    expect(stderr).toMatch(
      new RegExp(`^elect-run: stale token 41: ${target} has seen 42, by \\S+; the command is not run\n$`),
    );
    const { stdout } = await run([target, '--show']);
    expect(stdout.toString()).toMatch(/^highest token +42, by \S+\nrefused +1, the last one 41 at \S+Z by \S+$/m);
  });

  test('tokens are compared as integers of any size', async () => {
    const target = newTarget();
    const large = `1${'0'.repeat(400)}`;
    expect((await act(target, '9')).code).toBe(0);
    expect((await act(target, '0010')).code).toBe(0);
    expect((await act(target, large)).code).toBe(0);
    expect((await act(target, '9'.repeat(400))).code).toBe(STALE);
    expect((await act(target, large)).code).toBe(0);
    expect(await shown(target)).toMatchObject({ highest: large, refused: 1 });
  });

  test('inside of a command it takes that one’s token, and the command of the command is told all that it was told', async () => {
    const dir = scratch();
    const inner = `'${NODE}' '${BIN}' fence '${dir}/data.fence' --`;
    const show = "env | grep -E '^(FENCING_TOKEN|ELECT_RUN_(ELECTION|ID|BACKEND|TTL_MS)=)' | sort";
    const job = `${show}; echo ---; ${inner} sh -c "${show}"; ${inner} '${NODE}' '${BIN}' check; echo "check $?"`;
    const { stdout } = await elect(['-b', `file:${dir}`, '-n', 'outer', '--', 'sh', '-c', job]).ended;
    const [outer, ...rest] = stdout.toString().split('---\n');
    expect(outer).toContain('FENCING_TOKEN=1\n');
    expect(rest).toEqual([`${outer}check 0\n`]);
  });

  test('while its command runs the file is locked, for flock(1) as well, and --no-wait ends with 75', async () => {
    const target = newTarget();
    const first = elect(['fence', target, '--token', '1', '-v', '--', 'sh', '-c', 'echo runs; exec sleep 60']);
    await first.prints('runs');
    expect(spawnSync('flock', ['--nonblock', target, 'true']).status).toBe(1);
    expect((await run([target, '--token', '2', '--no-wait', '--', 'true'])).code).toBe(BUSY);
    expect((await run([target, '--token', '2', '--wait', '200ms', '--', 'true'])).code).toBe(BUSY);
    first.kill('SIGTERM');
    expect((await first.ended).code).toBe(128 + 15);
    expect((await act(target, 2)).code).toBe(0);
  });

  test('what the command leaves running is ended before the next one acts', async () => {
    const oracle = new Oracle();
    const target = newTarget();
    const [script] = oracle.job();
    await act(
      target,
      1,
      'sh',
      '-c',
      `setsid '${script}' ignores-term & until [ -s '${oracle.folder}/history' ]; do sleep 0.01; done`,
    );
    expect(await act(target, 2, ...oracle.job('ends'))).toMatchObject({ code: 0 });
    oracle.verify(2);
  });

  test('a file that is deleted while the command runs is a lock on nothing: the command is stopped, 79', async () => {
    const oracle = new Oracle();
    const target = newTarget();
    const first = elect(['fence', target, '--token', '1', '--', ...oracle.job('ignores-term')]);
    await oracle.started(1);
    rmSync(target);
    expect((await first.ended).code).toBe(LOST);
    expect(oracle.workers()).toEqual([]);
  });

  test.each([
    ['text', '42\n'],
    ['a record that was cut off', '{"refused":0,"highest":"4'],
    ['zeroes', '\0'.repeat(4096)],
    ['a highest token that is none', '{"refused":0,"highest":"-1","by":"x"}'],
    ['a number of refusals that is none', '{"refused":"no","highest":"1","by":"x"}'],
    ['a highest token that is no text', '{"refused":0,"highest":1,"by":"x"}'],
    ['JSON of somebody else', '[1]'],
    ['a long file of somebody else', 'a line of text\n'.repeat(1000)],
    ['null', 'null'],
  ])('%s is refused with 64, and left as it is', async (_, text) => {
    const target = newTarget();
    writeFileSync(target, text);
    const { code, stderr, stdout } = await act(target, 50, 'echo', 'acted');
    expect({ code, stdout: stdout.toString() }).toEqual({ code: USAGE, stdout: '' });
    expect(stderr).toMatch(/^elect-run: \S*data\.fence is damaged, or is not elect-run's: [^\n]*\n$/);
    expect((await run([target, '--show'])).code).toBe(USAGE);
    expect(readFileSync(target, 'utf8')).toBe(text);
  });

  test('where there is a store a path is a file still, and a word is a key', async () => {
    const dir = scratch();
    const env = { ELECT_RUN_LOG_FORMAT: undefined, ELECT_RUN_BACKEND: 'etcd://127.0.0.1:1' };
    const actAt = async (target: string) =>
      (await elect(['fence', target, '--token', '1', '--no-wait', '--', 'true'], { cwd: dir, env }).ended).code;
    for (const target of ['file:a', 'file:./b', './c', `../${basename(dir)}/d`, `${dir}/e`, `file://${dir}/f`])
      expect(await actAt(target), target).toBe(0);
    expect(readdirSync(dir)).toEqual(['a', 'b', 'c', 'd', 'e', 'f']);
    expect(await actAt('a')).toBe(69);
    expect(await actAt('a/b')).toBe(69);
  });

  test('an empty file has seen nothing', async () => {
    const target = newTarget();
    writeFileSync(target, '');
    expect(await shown(target)).toMatchObject({ highest: null, refused: 0 });
    expect((await act(target, 1)).code).toBe(0);
  });

  const noMounts = whatIsMissing(['pidns']);
  test.skipIf(noMounts)(
    `on a full disk a record that is there is kept up, and none is begun until there is room${noMounts ? ` [skipped: ${noMounts}]` : ''}`,
    async () => {
      const dir = scratch();
      const said = join(scratch(), 'said');
      const fence = (target: string, token: number) =>
        `'${NODE}' '${BIN}' fence ${target} --token ${token} -- echo acted ${token}; echo "status $?"`;
      const script = `
      mount -t tmpfs -o size=64k none '${dir}' && cd '${dir}'
      ${fence('old', 5)}
      dd if=/dev/zero of=filler bs=4096 2>/dev/null
      ${fence('old', 4)}
      ${fence('old', 6)}
      { ${fence('new', 1)}; } 2>'${said}' &
      until grep -qs 'record-unavailable.*ENOSPC' '${said}'; do sleep 0.05; done
      wc -c <new
      rm filler
      wait
      ${fence('old', 5)}`;
      const { stdout } = await elect([], { program: ['unshare', '-m', 'sh', '-c', script] }).ended;
      expect(stdout.toString().trim().split('\n')).toEqual([
        ...['acted 5', 'status 0', 'status 76', 'acted 6', 'status 0', '0'],
        ...['acted 1', 'status 0', 'status 76'],
      ]);
    },
  );

  test('a record that could be written in part only is not left behind', async () => {
    const target = newTarget();
    const large = '9'.repeat(600); // more than one of the blocks of 512 bytes in which sh(1) counts
    const limited = ['sh', '-c', 'ulimit -f 1; exec "$@"', 'sh'];
    const { code, stderr } = await elect(['fence', target, '--token', large, '--', 'echo', 'acted'], {
      prefix: limited,
    }).ended;
    expect(code, stderr).toBe(USAGE);
    expect(readFileSync(target, 'utf8')).toBe('');
    expect((await act(target, 1)).code).toBe(0);
  });

  test('with --show there is neither a command nor a token, and nothing comes into being', async () => {
    const target = newTarget();
    expect((await run([target, '--show'])).code).toBe(0);
    expect(existsSync(target)).toBe(false);
  });
});

describe('what fence cannot do is said in one line', () => {
  const CASES: [args: string[], says: RegExp, code?: number][] = [
    [[], /missing required argument 'TARGET'/],
    [['a', 'b', '--token', '1', '--', 'true'], /too many arguments/],
    [['./a', '--token', '1'], /no command; write: elect-run fence TARGET/],
    [['./a', '--', 'true'], /no token: FENCING_TOKEN is not set/],
    [['./a', '--token', '', '--', 'true'], /--token "" is not a decimal integer/],
    [['./a', '--token=-1', '--', 'true'], /--token "-1" is not a decimal integer/],
    [['./a', '--token', '0x10', '--', 'true'], /--token "0x10" is not/],
    [['./a', '--token', '9'.repeat(1001), '--', 'true'], /--token "9{40}" is not a decimal integer of at most 1000/],
    [['./a', '--token', '1', '--wait', '5', '--', 'true'], /--wait "5" has no unit/],
    [['./a', '--token', '1', '--wait', '5s', '--no-wait', '--', 'true'], /exclude each other/],
    [['file:', '--token', '1', '--', 'true'], /TARGET is empty/],
    [['', '--token', '1', '--', 'true'], /TARGET is empty/],
    [['/', '--token', '1', '--', 'true'], /^elect-run: \/ cannot be written: EISDIR/],
    [['/dev/null', '--token', '1', '--', 'true'], /\/dev\/null is not a file/],
    [['./a\nb/c', '--token', '1', '--', 'true'], /a\?b\/c cannot be written: there is no folder \S*a\?b/],
    [['./none/a', '--token', '1', '--', 'true'], /none\/a cannot be written: there is no folder/],
    [['/a', '-b', 'etcd', '--token', '1', '--', 'true'], /TARGET "\/a" is a file, and --backend has no meaning/],
    [['-b', 'etcd', 'a/', '--token', '1', '--', 'true'], /TARGET "a\/" must not end with "\/"/],
    [['-b', 'zk', 'a//b', '--token', '1', '--', 'true'], /TARGET "a\/\/b" has an empty part/],
    [
      [`redis://u:${SECRET}@h/a`, '--token', '1', '--', 'true'],
      /TARGET "redis:\/\/h\/a" is a URL; write: elect-run fence KEY --b/,
    ],
    [
      ['-b', `redis://u:${SECRET}@127.0.0.1:1`, 'a', '--no-wait', '--token', '1', '--', 'true'],
      /connection refused/,
      69,
    ],
    [['-b', 'etcd://127.0.0.1:1', 'a', '--show'], /could not be reached in time/, 69],
    [['./a', '--token', '1', '--', './none'], /cannot run \.\/none: no such file/, 127],
    [['./a', '--token', '1', '--', '/etc/passwd'], /cannot run \/etc\/passwd: permission denied/, 126],
  ];
  test.each(CASES)('%j', async (args, says, code = USAGE) => {
    const dir = scratch();
    const ended = await elect(['fence', ...args], { cwd: dir, env: { ELECT_RUN_LOG_FORMAT: undefined } }).ended;
    expect(ended.stderr).toMatch(/^elect-run: [^\n]+\n$/);
    expect(ended.stderr).toMatch(says);
    expect(ended.stderr).not.toContain(SECRET);
    expect(ended.code).toBe(code);
    expect(execFileSync('ls', ['-A', dir], { encoding: 'utf8' })).toBe('');
  });

  test('what is no number in FENCING_TOKEN is named so', async () => {
    const { code, stderr } = await run(['./a', '--', 'true'], { FENCING_TOKEN: '12 monkeys' });
    expect(code).toBe(USAGE);
    expect(stderr).toMatch(/FENCING_TOKEN "12 monkeys" is not a decimal integer/);
  });

  test('no password is seen in ps(1) while the store is waited for', async () => {
    const args = ['-b', `redis://u:${SECRET}@127.0.0.1:1`, 'a', '--token', '1', '--', 'true'];
    const waiting = elect(['fence', ...args]);
    await waiting.event('unreachable');
    await until(() => !commandLine(waiting.pid).join(' ').includes(SECRET), 'the password is hidden', 2000);
    waiting.kill('SIGTERM');
    const { code, stderr } = await waiting.ended;
    expect(code).toBe(128 + 15);
    expect(stderr).not.toContain(SECRET);
  });
});
