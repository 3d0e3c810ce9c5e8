import { once } from 'node:events';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { AS_PID_1, pidOneOf } from '../helpers/container.ts';
import { BIN, type Elect, elect, endAll, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { describeWith } from '../helpers/needs.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

const TERMINAL_ESCAPE = '\u001b[31m';

async function run(...args: string[]) {
  const { code, stdout, stderr } = await elect(args, { env: { ELECT_RUN_LOG_FORMAT: 'plain' } }).ended;
  return { code, stdout: stdout.toString(), stderr };
}

describeWith(['flock'], 'status and --dry-run, with a file', () => {
  afterEach(endAll);
  const backend = `file:${newFolder('status')}`;

  test('nobody leads: 75', async () => {
    const { code, stdout } = await run('status', '-b', backend, '-n', 'idle');
    expect(code).toBe(75);
    expect(stdout).toMatch(/^leader +nobody$/m);
  });

  test('watch through head(1), or into a socket that is closed, ends at once, though nothing changes any more', async () => {
    const watch = ['watch', '-b', backend, '-n', 'unchanged'];
    const pipeline = elect(watch, { prefix: ['timeout', '20', 'sh', '-c', '"$@" | head -n 1', 'sh'] }).ended;
    const into = elect(watch); // what Node calls a pipe is a socket
    await into.prints('nobody');
    into.process.stdout!.destroy();
    expect((await into.ended).code).toBe(0);
    const { code, stdout } = await pipeline;
    expect(code).toBe(0);
    expect(stdout.toString()).toMatch(/^\S+ {2}nobody\n$/);
  });

  test('somebody leads: 0, with its name, token and since when; as JSON, too', async () => {
    const leader = elect(['-b', backend, '-n', 'led', '--id', 'host-a', '--', 'sleep', '60']);
    const { token, id } = await leader.event('elected');
    const { code, stdout } = await run('status', '-b', backend, '-n', 'led');
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`^leader +${id}, token ${token}, since \\d{4}-`, 'm'));
    expect(JSON.parse((await run('status', '-b', backend, '-n', 'led', '--json')).stdout)).toMatchObject({
      election: 'led',
      backend,
      leader: { id, token },
      waiting: null,
      runs: [],
    });
  });

  test('whoever may only read the files is told, too', async () => {
    const leader = elect(['-b', backend, '-n', 'read-only', '--', 'sleep', '60']);
    const { token, id } = await leader.event('elected');
    const tokenFile = join(backend.slice('file:'.length), 'read-only.token');
    chmodSync(tokenFile, 0o444);
    chmodSync(backend.slice('file:'.length), 0o755);
    const args = ['status', '-b', backend, '-n', 'read-only'];
    const prefix = process.getuid!() === 0 ? ['setpriv', '--reuid', '65534', '--clear-groups'] : [];
    const { code, stdout, stderr } = await elect(args, { prefix }).ended;
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout.toString()).toContain(`${id}, token ${token}`);
  });

  test('inside of the command it needs no options', async () => {
    const status = `"${process.execPath}" "${join(import.meta.dirname, '../../bin/elect-run.js')}" status`;
    const { code, stdout } = await run('-q', '-b', backend, '-n', 'inner', '--', 'sh', '-c', status);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^election +inner on file:/m);
  });

  test('check asks for the election that it runs in, not for that of an ELECT_RUN_NAME from further out', async () => {
    const args = ['-q', '-b', backend, '-n', 'flagged', '--', process.execPath, BIN, 'check'];
    const { code, stderr } = await elect(args, { env: { ELECT_RUN_NAME: 'from-outside' } }).ended;
    expect(code, stderr).toBe(0);
  });

  test('what was run for each slot, by whom, with which token and status', async () => {
    await run('-q', '-b', backend, '-n', 'slots', '--once-per', 'day', '--', 'sh', '-c', 'exit 3');
    const { code, stdout } = await run('status', '-b', backend, '-n', 'slots');
    expect(code).toBe(75);
    expect(stdout).toMatch(/^runs +\d{4}-\d\d-\d\dT\S+Z +status 3 after [\d.]+m?s, started .* by .*, token 1$/m);
  });

  test('a damaged run record is named, with 64', async () => {
    mkdirSync(backend.slice('file:'.length), { recursive: true });
    writeFileSync(join(backend.slice('file:'.length), 'damaged.runs'), 'x');
    const { code, stderr } = await run('status', '-b', backend, '-n', 'damaged');
    expect(code).toBe(64);
    expect(stderr).toMatch(/the run record of this election in the store is damaged/);
  });

  test('--dry-run runs nothing and says what would be', async () => {
    const { code, stdout } = await run(
      '-b',
      backend,
      '-n',
      'dry',
      '--once-per',
      'day',
      '--dry-run',
      '--',
      'false',
      'x',
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/^would run +false x$/m);
    expect(stdout).toMatch(/^schedule +slot \S+Z, if nobody has run it$/m);
    expect((await run('status', '-b', backend, '-n', 'dry', '--json')).stdout).toContain('"runs":[]');
  });

  test('--dry-run shows the command as it would be typed, and how long it would wait', async () => {
    const job = ['--dry-run', '-b', backend, '-n', 'typed', '--', 'printf', "it's", 'a b', '', '$x', 'plain-1.0/x=y'];
    expect((await run(...job)).stdout).toMatch(/^would run +printf 'it'\\''s' 'a b' '' '\$x' plain-1\.0\/x=y$/m);
    expect((await run(...job)).stdout).toMatch(/^wait +for ever$/m);
    expect((await run('--wait', '30s', ...job)).stdout).toMatch(/^wait +at most 30s$/m);
    expect((await run('--no-wait', ...job)).stdout).toMatch(/^wait +not at all: one attempt$/m);
  });

  test.each([
    ['1', /^would run/],
    ['0', /^ran\n$/],
    ['', /^ran\n$/],
  ])('ELECT_RUN_DRY_RUN=%s is --dry-run, or is not', async (value, shows) => {
    const { stdout } = await elect(['-b', backend, '-n', 'by-variable', '--', 'echo', 'ran'], {
      env: { ELECT_RUN_DRY_RUN: value },
    }).ended;
    expect(stdout.toString()).toMatch(shows);
  });

  test.each([
    [['status'], /-n, --name is needed: which election\?/],
    [['status', '-n', 'a', 'b'], /too many arguments/],
    [['status', '-n', 'a', '--ttl', '1s'], /unknown option '--ttl'/],
    [['status', '-n', 'a/b'], /--name "a\/b": with --backend file/],
  ])('%s is refused with 64', async (args, says) => {
    const { code, stderr } = await run(...args);
    expect(code).toBe(64);
    expect(stderr).toMatch(says);
  });
});

const CHECK = `'${NODE}' '${BIN}' check; echo "check $?"; exec sleep 60`;

/** One who leads, in a container of its own, whose flock(1) has waited for somebody else's to end: it has taken the lock and is gone. */
async function leaderThatWaited(args: string[]): Promise<Elect> {
  const before = elect([...args, '--', 'sleep', '60']);
  await before.event('started');
  const leader = elect([...args, '--', 'sh', '-c', CHECK], { prefix: AS_PID_1 });
  await leader.event('standby');
  before.kill('SIGTERM');
  await leader.event('started');
  return leader;
}

describeWith(['flock', 'pidns'], 'with a file, a leader in a container', () => {
  afterEach(endAll);

  test('knows by check that it leads, though it had to wait', async () => {
    const leader = await leaderThatWaited(['-b', `file:${scratch()}`, '-n', 'job']);
    await leader.prints('check 0');
  });

  test.each([
    { where: 'from outside', prefix: [] },
    { where: 'from another container', prefix: AS_PID_1 },
  ])('is seen by name $where', async ({ prefix }) => {
    const args = ['-b', `file:${scratch()}`, '-n', 'job'];
    const leader = await leaderThatWaited(args);
    const { id, token } = await leader.event('elected');
    const { code, stdout } = await elect(['status', ...args], { prefix }).ended;
    expect(stdout.toString()).toContain(`${id}, token ${token}`);
    expect(code).toBe(0);
    process.kill(await pidOneOf(leader), 'SIGTERM');
    await leader.ended;
    expect((await elect(['status', ...args], { prefix }).ended).code).toBe(75);
  });
});

describeWith(['flock', 'pidns'], 'with a file on an overlayfs whose layers are on different file systems', () => {
  afterEach(endAll);

  /** There stat(2) tells another device than /proc/locks, as on btrfs. */
  const onOverlay = async (script: string): Promise<string[]> => {
    const layers = `mount -t tmpfs none . && cd "$PWD" && mkdir low top all && mount -t tmpfs none top && mkdir top/up top/work &&
      mount -t overlay none -o lowerdir=low,upperdir=top/up,workdir=top/work all`;
    const program = ['unshare', '-m', 'sh', '-c', `cd '${scratch()}' && ${layers} && ${script}`];
    const { stdout } = await elect([], { program, env: { ELECT_RUN_LOG_FORMAT: 'plain' } }).ended;
    return stdout.toString().split('\n');
  };
  const options = '-b "file:$PWD/all" -n job';

  test('a leader knows by check that it leads', async () => {
    const lines = await onOverlay(`'${NODE}' '${BIN}' ${options} -- sh -c '"${NODE}" "${BIN}" check; echo "check $?"'`);
    expect(lines).toContain('check 0');
  });

  test('another program that has the lock is seen', async () => {
    const lines = await onOverlay(`flock all/job.lock '${NODE}' '${BIN}' status ${options}`);
    expect(lines).toContainEqual(expect.stringMatching(/^leader +somebody whose name the store does not tell$/));
  });
});

describe('a store that accepts and does not answer', () => {
  afterEach(endAll);

  test.each([
    ['status', []],
    ['--dry-run', ['--', 'true']],
  ])('%s: a signal is not kept waiting', async (what, rest) => {
    const silent = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void silent.close());
    await once(silent, 'listening');
    const connected = once(silent, 'connection');
    const { port } = silent.address() as AddressInfo;
    const run = elect([what, '-b', `redis://127.0.0.1:${port}`, '-n', 'a', ...rest]);
    const [socket] = await connected;
    socket.on('error', () => {});
    const askedAt = performance.now();
    run.kill('SIGINT');
    expect((await run.ended).code).toBe(130);
    expect(performance.now() - askedAt).toBeLessThan(1000);
  });
});

describeWith(['etcd', 'etcdctl'], 'status, watch and check, with etcd', () => {
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });
  afterEach(endAll);
  afterAll(stopServers);

  test('who stands by is shown in its order, and how long the lease lasts', async () => {
    const names = ['first', 'second', 'third'];
    const dryRun = () => run('-b', etcd.url, '-n', 'line', '--dry-run', '--', 'true');
    for (const [index, name] of names.entries()) {
      await elect(['-b', etcd.url, '-n', 'line', '--ttl', '45s', '--id', name, '--', 'sleep', '60']).event(
        index === 0 ? 'started' : 'standby',
      );
      if (index === 0) expect((await dryRun()).stdout).toMatch(/^leader +first-.*; this one would be next$/m);
    }
    const { code, stdout } = await run('status', '-b', etcd.url, '-n', 'line');
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^leader +first-\S+, token \d+, since \S+, lease runs out in [34]\ds unless it is renewed$/m,
    );
    expect(stdout).toMatch(/^standing by +second-\S+\n +third-\S+$/m);
    expect((await dryRun()).stdout).toMatch(/^leader +first-.*; second-\S+, third-\S+ would be next$/m);
    expect(await etcd.line('line')).toHaveLength(3);
  });

  test('control characters of another program’s identity do not reach the terminal', async () => {
    await etcd.etcdctl('put', 'evil/1', `${TERMINAL_ESCAPE}evil`);
    const { stdout } = await run('status', '-b', etcd.url, '-n', 'evil');
    expect(stdout).toMatch(/^leader +\?\[31mevil/m);
  });

  test('a store that cannot be reached: 69, both', async () => {
    for (const args of [['status'], ['--dry-run']]) {
      const rest = args[0] === '--dry-run' ? ['--', 'true'] : [];
      const { code, stderr } = await run(...args, '-b', 'etcd://127.0.0.1:1', '-n', 'a', ...rest);
      expect(code).toBe(69);
      expect(stderr).toMatch(/could not be reached in time: .*connection refused/);
    }
  });

  test('watch tells each change as it comes, with its token; as JSON lines, too', async () => {
    const watches = [
      elect(['watch', '-b', etcd.url, '-n', 'watched']),
      elect(['watch', '--json', '-b', etcd.url, '-n', 'watched']),
    ];
    const bothPrint = (text: RegExp, json: RegExp) => Promise.all([watches[0]!.prints(text), watches[1]!.prints(json)]);
    await bothPrint(/ {2}nobody\n/, /"leader":null/);
    const first = elect(['-b', etcd.url, '-n', 'watched', '--id', 'first', '--', 'sleep', '60']);
    const { token } = await first.event('started');
    await bothPrint(new RegExp(` {2}first-\\S+, token ${token}, since`), /"leader":\{"id":"first-/);
    const second = elect(['-b', etcd.url, '-n', 'watched', '--id', 'second', '--', 'sleep', '60']);
    await second.event('standby');
    first.kill('SIGTERM');
    await bothPrint(/ {2}second-/, /"leader":\{"id":"second-/);
    for (const watch of watches) watch.kill('SIGINT');
    const ends = await Promise.all(watches.map((watch) => watch.ended));
    expect(ends.map(({ code }) => code)).toEqual([128 + 2, 128 + 2]);
    const lines = ends[1]!.stdout.toString().trim().split('\n');
    expect(
      lines
        .map((line) => JSON.parse(line).leader?.id?.replace(/-.*/, '') ?? null)
        .filter((id, index, ids) => id !== ids[index - 1]),
    ).toEqual(expect.arrayContaining([null, 'first', 'second']));
  });

  test('watch goes on when the store is away for a while', async () => {
    const watch = elect(['watch', '-b', etcd.url, '-n', 'away'], { env: { ELECT_RUN_LOG_FORMAT: 'plain' } });
    await watch.prints('nobody');
    await etcd.members[0]!.kill();
    await watch.says(/could not be reached in time/);
    await etcd.heal();
    const leader = elect(['-b', etcd.url, '-n', 'away', '--id', 'back', '--', 'sleep', '60']);
    await leader.event('started');
    await watch.prints(/ {2}back-/);
  });

  test('check: 0 while this token leads, inside of the command without any option; 79 for an earlier one, and once the leadership is gone', async () => {
    const inside = `"${process.execPath}" "${join(import.meta.dirname, '../../bin/elect-run.js')}" check; echo "inside $?"`;
    const leader = elect(['-b', etcd.url, '-n', 'checked', '--', 'sh', '-c', `${inside}; sleep 60`]);
    await leader.prints('inside 0');
    const { id, token } = await leader.event('elected');
    const check = async (ofToken: bigint) => {
      const env = { ELECT_RUN_BACKEND: etcd.url, ELECT_RUN_ELECTION: 'checked', ELECT_RUN_ID: String(id) };
      return (await elect(['check'], { env: { ...env, FENCING_TOKEN: String(ofToken) } }).ended).code;
    };
    expect(await check(BigInt(String(token)))).toBe(0);
    expect(await check(BigInt(String(token)) - 1n)).toBe(79);
    leader.kill('SIGTERM');
    await leader.ended;
    expect(await check(BigInt(String(token)))).toBe(79);
  });

  test('check outside of a command: 64; where the store does not answer: 69', async () => {
    expect((await run('check', '-b', etcd.url, '-n', 'x')).stderr).toMatch(
      /ELECT_RUN_ID and FENCING_TOKEN are not set/,
    );
    const env = {
      ELECT_RUN_ID: 'x',
      FENCING_TOKEN: '1',
      ELECT_RUN_ELECTION: 'x',
      ELECT_RUN_BACKEND: 'etcd://127.0.0.1:1',
    };
    expect((await elect(['check'], { env }).ended).code).toBe(69);
  });
});
