import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { elect, endAll } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { alive, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

afterEach(endAll);
afterAll(stopServers);

async function led(): Promise<string[]> {
  const args = ['-b', `file:${scratch()}`, '-n', 'job'];
  await elect([...args, '--', 'sleep', '1000']).event('started');
  return args;
}

describe('while somebody else leads', () => {
  test('--no-wait gives 75 and says who leads', async () => {
    const run = elect([...(await led()), '--no-wait', '--', 'true']);
    expect((await run.ended).code).toBe(75);
    expect(await run.event('failed')).toMatchObject({ message: expect.stringMatching(/^not elected: \S+ leads job$/) });
  });

  test('--exit-code-standby gives another code', async () => {
    const args = [...(await led()), '--no-wait', '--exit-code-standby'];
    expect((await elect([...args, '3', '--', 'true']).ended).code).toBe(3);
    expect((await elect([...args, '0', '--', 'true']).ended).code).toBe(0);
  });

  test('--wait gives 75 when it has run out, not before', async () => {
    const args = await led();
    const startedAt = performance.now();
    const run = elect([...args, '--wait', '2s', '--', 'true']);
    await run.event('standby');
    expect((await run.ended).code).toBe(75);
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(2000);
  });

  test('--wait is long enough when the leader ends within it', async () => {
    const dir = scratch();
    const args = ['-b', `file:${dir}`, '-n', 'job'];
    const holder = elect([...args, '--', 'sleep', '1000']);
    await holder.event('started');
    const run = elect([...args, '--wait', '30s', '--', 'sh', '-c', 'exit 4']);
    await run.event('standby');
    holder.kill('SIGTERM');
    expect((await run.ended).code).toBe(4);
  });

  test.each(['25d', '1000h', '365d'])('--wait %s is not over at once', async (wait) => {
    const dir = scratch();
    const args = ['-b', `file:${dir}`, '-n', 'job'];
    const holder = elect([...args, '--', 'sleep', '1000']);
    await holder.event('started');
    const run = elect([...args, '--wait', wait, '--', 'sh', '-c', 'exit 4']);
    await run.event('standby');
    holder.kill('SIGTERM');
    expect(await run.ended).toMatchObject({ code: 4, stderr: expect.not.stringContaining('Warning') });
  });

  test('flock(1) is somebody else, too', async () => {
    const dir = scratch();
    const code = `echo held; exec sleep 1000`;
    const holder = elect(['-b', `file:${dir}`, '-n', 'other', '--', 'flock', join(dir, 'job.lock'), 'sh', '-c', code]);
    await holder.prints('held');
    const run = elect(['-b', `file:${dir}`, '-n', 'job', '--no-wait', '--', 'true']);
    expect((await run.ended).code).toBe(75);
  });
});

describe('while nobody leads', () => {
  test.each([[['--no-wait']], [['--wait', '1ms']], [['--wait', '5s']]])('%s runs the command', async (flags) => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', ...flags, '--', 'sh', '-c', 'exit 4']);
    expect((await run.ended).code).toBe(4);
  });
});

describe('--stop-timeout', () => {
  const ignoring = ['sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 0.05; done'];

  test('kills a child that ignores TERM, and gives 143, not 137', async () => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--stop-timeout', '300ms', '--', ...ignoring]);
    await run.prints('ready');
    run.kill('SIGTERM');
    expect((await run.ended).code).toBe(143);
    expect(await run.event('warning')).toMatchObject({ message: expect.stringContaining('--stop-timeout') });
  });

  test('does not hurry a child that ends in time', async () => {
    const job = ['sh', '-c', 'trap "exit 12" TERM; echo ready; while :; do sleep 0.05; done'];
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--stop-timeout', '20s', '--', ...job]);
    await run.prints('ready');
    run.kill('SIGTERM');
    expect((await run.ended).code).toBe(12);
  });

  test('of a month does not kill at once', async () => {
    const job = ['sh', '-c', 'trap "sleep 0.3; exit 12" TERM; echo ready; while :; do sleep 0.05; done'];
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--stop-timeout', '30d', '--', ...job]);
    await run.prints('ready');
    run.kill('SIGTERM');
    expect((await run.ended).code).toBe(12);
  });

  test('without it a child that ignores TERM runs on', async () => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '-v', '--', ...ignoring]);
    await run.prints('ready');
    run.kill('SIGTERM');
    await run.event('signalled');
    expect(alive(Number((await run.event('started')).pid))).toBe(true);
    run.kill('SIGINT');
    expect((await run.ended).code).toBe(130);
  });
});

describe('when the lock file is deleted', () => {
  const losing = (flags: string[], then = 'sleep 1000') => {
    const dir = scratch();
    const file = join(dir, 'job.lock');
    return elect(['-b', `file:${dir}`, '-n', 'job', ...flags, '--', 'sh', '-c', `rm '${file}'; ${then}`]);
  };

  test('the child is ended and the exit code is 79', async () => {
    const run = losing([]);
    expect((await run.ended).code).toBe(79);
    expect(await run.event('deposed')).toMatchObject({ reason: expect.stringContaining('was deleted') });
    expect(alive(Number((await run.event('started')).pid))).toBe(false);
  });

  test('--exit-code-lost gives another code', async () => {
    expect((await losing(['--exit-code-lost', '5']).ended).code).toBe(5);
  });

  test('--on-lost rejoin stands again and runs the command again, with a larger token', async () => {
    const dir = scratch();
    const job = `echo "$FENCING_TOKEN"; [ "$FENCING_TOKEN" = 1 ] || exit 8; rm '${dir}/job.lock'; sleep 1000`;
    const run = elect(['-b', `file:${dir}`, '-n', 'job', '--on-lost', 'rejoin', '--', 'sh', '-c', job]);
    expect(await run.ended).toMatchObject({ code: 8, stdout: Buffer.from('1\n2\n') });
    expect(await run.event('deposed')).toBeDefined();
  });
});

describe('a lease of months', () => {
  test('--ttl 60d works without a word from Node', async () => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--ttl', '60d', '--', 'sh', '-c', 'exit 4']);
    const { code, stderr } = await run.ended;
    expect(stderr).not.toContain('Warning');
    expect(code).toBe(4);
  });
});

describe('variables', () => {
  test('are options: ELECT_RUN_ and the name in capitals', async () => {
    const dir = scratch();
    const env = {
      ELECT_RUN_BACKEND: `file:${dir}`,
      ELECT_RUN_NAME: 'by-variable',
      ELECT_RUN_TTL: '9s',
      ELECT_RUN_ID: 'me',
    };
    const run = elect(['--', 'true'], { env });
    expect((await run.ended).code).toBe(0);
    expect(await run.event('elected')).toMatchObject({
      election: 'by-variable',
      ttlMs: 9000,
      id: expect.stringMatching(/^me-/),
    });
  });

  test('yield to flags', async () => {
    const env = { ELECT_RUN_BACKEND: 'nonsense', ELECT_RUN_NAME: 'a', ELECT_RUN_TTL: 'nonsense' };
    const run = elect(['-b', `file:${scratch()}`, '-n', 'b', '--ttl', '7s', '--', 'true'], { env });
    expect((await run.ended).code).toBe(0);
    expect(await run.event('elected')).toMatchObject({ election: 'b', ttlMs: 7000 });
  });

  test('that are empty count as unset', async () => {
    const env = { ELECT_RUN_TTL: '', ELECT_RUN_NAME: '', ELECT_RUN_NO_WAIT: '', ELECT_RUN_WAIT: '' };
    const run = elect(['-b', `file:${scratch()}`, '--', 'true'], { env });
    expect((await run.ended).code).toBe(0);
    expect(await run.event('elected')).toMatchObject({ election: 'true', ttlMs: 15_000 });
  });

  test.each([
    ['ELECT_RUN_NO_WAIT', '1', 75],
    ['ELECT_RUN_WAIT', '200ms', 75],
  ])('%s=%s bounds the wait', async (name, value, code) => {
    const run = elect([...(await led()), '--', 'true'], { env: { [name]: value } });
    expect((await run.ended).code).toBe(code);
  });

  test.each([
    [['--no-wait'], { ELECT_RUN_WAIT: '1h' }],
    [['--wait', '200ms'], { ELECT_RUN_NO_WAIT: '1' }],
    [['--wait', '200ms'], { ELECT_RUN_WAIT: '1h' }],
  ])('%s wins over %o', async (flags, env) => {
    expect((await elect([...(await led()), ...flags, '--', 'true'], { env }).ended).code).toBe(75);
  });

  test('ELECT_RUN_NO_WAIT=0 does not', async () => {
    const run = elect([...(await led()), '--', 'true'], { env: { ELECT_RUN_NO_WAIT: '0' } });
    await run.event('standby');
    run.kill('SIGTERM');
    expect((await run.ended).code).toBe(143);
  });

  test('with a wrong value are refused by the name of the option', async () => {
    const { code, stderr } = await elect(['-b', `file:${scratch()}`, '--', 'true'], { env: { ELECT_RUN_GRACE: '5' } })
      .ended;
    expect(code).toBe(64);
    expect(stderr).toContain('--grace');
  });
});

describe('--profile', () => {
  test.each([
    ['aggressive', 3000],
    ['balanced', 15_000],
    ['conservative', 45_000],
  ])('%s has a ttl of %i ms', async (profile, ttlMs) => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--profile', profile, '--', 'true']);
    await run.ended;
    expect(await run.event('elected')).toMatchObject({ ttlMs });
  });
});

describe('help', () => {
  const version = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version;

  test.each(['--version', '-V'])('%s prints the version alone', async (flag) => {
    expect(await elect([flag]).ended).toMatchObject({ code: 0, stdout: Buffer.from(`${version}\n`), stderr: '' });
  });

  test.each(['--help', '-h'])('%s prints the usage, every option and the exit codes to stdout', async (flag) => {
    const { code, stdout, stderr } = await elect([flag]).ended;
    expect(code).toBe(0);
    expect(stderr).toBe('');
    const text = stdout.toString();
    expect(text).toContain('elect-run [options] -- COMMAND');
    for (const option of ['--backend', '--name', '--ttl', '--wait', '--no-wait', '--grace', '--stop-timeout', '--user'])
      expect(text).toContain(option);
    for (const exit of [64, 69, 75, 77, 79, 126, 127]) expect(text).toContain(String(exit));
  });

  test('a reader of the help that is gone early is no fault', () => {
    const binary = elect(['--version']).process.spawnargs.slice(0, 2).join(' ');
    expect(execFileSync('sh', ['-c', `${binary} --help 2>&1 | head -n 1`]).toString()).toContain('elect-run');
  });

  test('no arguments at all give 64 and one line that shows how it is done', async () => {
    const { code, stderr, stdout } = await elect([], { env: { ELECT_RUN_LOG_FORMAT: undefined } }).ended;
    expect(code).toBe(64);
    expect(stdout).toHaveLength(0);
    expect(stderr).toMatch(/^elect-run: no command; write: elect-run \[options\] -- COMMAND.*--help\n$/);
  });
});

describeWith(['etcd', 'etcdctl'], 'a store that cannot be reached', () => {
  test('--wait bounds connecting and campaigning together: 69', async () => {
    const run = elect(['-b', 'etcd://127.0.0.1:1', '-n', 'jobs/x', '--wait', '1500ms', '--', 'true']);
    await run.event('unreachable');
    expect((await run.ended).code).toBe(69);
  });

  test('is waited for when --wait allows it', async () => {
    const etcd = await Etcd.start();
    const [member] = etcd.members;
    await member!.kill();
    const run = elect(['-b', etcd.url, '-n', 'jobs/x', '--', 'sh', '-c', 'exit 4']);
    await run.event('unreachable');
    await etcd.heal();
    expect((await run.ended).code).toBe(4);
  });

  test('a place in line is given back when --wait has run out', async () => {
    const etcd = await Etcd.start();
    const args = ['-b', etcd.url, '-n', 'jobs/x'];
    await elect([...args, '--', 'sleep', '1000']).event('started');
    const run = elect([...args, '--wait', '3s', '--', 'true']);
    await run.event('standby');
    expect((await run.ended).code).toBe(75);
    await until(async () => (await etcd.line('jobs/x')).length === 1, 'only the leader');
  });
});
