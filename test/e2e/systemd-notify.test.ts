import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { elect, endAll } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { NotifySocket } from '../helpers/notify.ts';
import { alive, isStopped, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';
import { whatIsMissing } from '../helpers/tools.ts';

afterEach(endAll);
afterAll(stopServers);

const SLEEP = ['sleep', '1000'];

/** A leader and, on the same election, whoever else wants it. */
const election = () => ['-b', `file:${scratch()}`, '-n', 'job'];

async function led(): Promise<string[]> {
  const args = election();
  await elect([...args, '--id', 'holder', '--', ...SLEEP]).event('started');
  return args;
}

const python = (code: string) => ['python3', '-c', code];
/** Says these to its own NOTIFY_SOCKET, as sd_notify(3) does, then goes on with `then`. */
const saying = (messages: string[], then = 'time.sleep(1000)') =>
  python(`
import os, signal, socket, time
def say(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect(os.environ['NOTIFY_SOCKET'].replace('@', '\\0', 1))
    s.send(text.encode())
for text in ${JSON.stringify(messages)}: say(text)
${then}
`);

describeWith(['python3'], 'READY=1', () => {
  test('is sent once by a leader when its command runs', async () => {
    const socket = await NotifySocket.open();
    const run = elect([...election(), '--', 'sh', '-c', 'read end'], { env: socket.env, stdin: 'pipe' });
    await run.event('started');
    expect((await socket.hears('READY=1')).pid).toBe(run.pid);
    run.process.stdin!.end('\n');
    await run.ended;
    await socket.hears('STATUS=lease given back');
    expect(socket.count('READY=1')).toBe(1);
  });

  test('is sent by a standby, and not once more when it leads', async () => {
    const socket = await NotifySocket.open();
    const args = election();
    const holder = elect([...args, '--', ...SLEEP]);
    await holder.event('started');
    const run = elect([...args, '--', ...SLEEP], { env: socket.env });
    await socket.hears('READY=1');
    await run.event('standby');
    expect(run.events.map(({ event }) => event)).not.toContain('elected');
    holder.kill('SIGTERM');
    await run.event('started');
    run.kill('SIGTERM');
    await socket.hears('STATUS=lease given back');
    expect(socket.count('READY=1')).toBe(1);
  });

  test.each([
    { flags: ['--ready-on', 'leader'], env: {} },
    { flags: [], env: { ELECT_RUN_READY_ON: 'leader' } },
  ])('waits for leadership with $flags $env', async ({ flags, env }) => {
    const socket = await NotifySocket.open();
    const args = election();
    const holder = elect([...args, '--', ...SLEEP]);
    await holder.event('started');
    elect([...args, ...flags, '--', ...SLEEP], { env: { ...socket.env, ...env } });
    await socket.hears(/^STATUS=standing by/);
    holder.kill('SIGTERM');
    await socket.hears('READY=1');
    expect(socket.lines.findIndex((line) => line.startsWith('STATUS=leading'))).toBeLessThan(
      socket.lines.indexOf('READY=1'),
    );
  });

  test('is not sent by one that does not wait for its turn', async () => {
    const socket = await NotifySocket.open();
    expect((await elect([...(await led()), '--no-wait', '--', 'true'], { env: socket.env }).ended).code).toBe(75);
    await socket.hears(/^STATUS=not elected: /);
    expect(socket.count('READY=1')).toBe(0);
  });

  test('does not wait for the first slot of a schedule', async () => {
    const socket = await NotifySocket.open();
    elect([...election(), '--schedule', '0 0 1 1 *', '--', 'true'], { env: socket.env });
    await socket.hears('READY=1');
    await socket.hears(/^STATUS=leading with token 1 since \S+; the next slot is \d{4}-/);
  });

  test('comes from one that finds nothing to do', async () => {
    const socket = await NotifySocket.open();
    const args = [...election(), '--once-per', '0 0 1 1 *', '--', 'true'];
    expect((await elect(args).ended).code).toBe(0);
    expect((await elect(args, { env: socket.env }).ended).code).toBe(0);
    await socket.hears('READY=1');
    await socket.hears(/^STATUS=nothing to do/);
  });

  test('reaches an abstract socket', async () => {
    const socket = await NotifySocket.open(`@elect-run-test-${randomBytes(8).toString('hex')}`);
    elect([...election(), '--', ...SLEEP], { env: socket.env });
    await socket.hears('READY=1');
  });

  test('reaches a manager that was too busy for a while', async () => {
    const socket = await NotifySocket.open();
    await socket.freeze();
    const filler = python(`
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
try:
    while True: s.sendto(b'FULL=1', sys.argv[1])
except BlockingIOError: pass
`);
    expect((await elect([...election(), '--', ...filler, socket.path]).ended).code).toBe(0);
    const run = elect([...election(), '--', ...SLEEP], { env: socket.env });
    await run.event('started');
    socket.thaw();
    await socket.hears('READY=1');
  });
});

describeWith(['python3'], 'a service manager that is gone', () => {
  test('changes nothing', async () => {
    const socket = await NotifySocket.open();
    const env = { ...socket.env, WATCHDOG_USEC: '500000' };
    const args = ['--ttl', '2s', '--renew-every', '200ms', '-v', '--', 'sh', '-c', 'read end; exit 5'];
    const run = elect([...election(), ...args], { env, stdin: 'pipe' });
    await socket.hears('READY=1');
    await socket.close();
    await run.event('renewed', { after: await run.event('renewed') });
    run.process.stdin!.end('\n');
    expect((await run.ended).code).toBe(5);
  });

  test.each(['/no/such/socket', 'relative', '@', `/${'x'.repeat(200)}`, 'vsock:2:1234', '/dev/null'])(
    'NOTIFY_SOCKET=%s changes nothing',
    async (path) => {
      const run = elect([...election(), '--', 'sh', '-c', 'exit 5'], { env: { NOTIFY_SOCKET: path } });
      expect(await run.ended).toMatchObject({ code: 5, stderr: expect.not.stringContaining('fault') });
    },
  );
});

describeWith(['python3'], 'STATUS', () => {
  test('follows each transition in words', async () => {
    const socket = await NotifySocket.open();
    const args = election();
    const holder = elect([...args, '--id', 'holder', '--', ...SLEEP]);
    await holder.event('started');
    const run = elect([...args, '--', ...SLEEP], { env: socket.env });
    await socket.hears(/^STATUS=campaigning for job on file:/);
    await socket.hears(/^STATUS=standing by: holder-\S+ leads since /);
    holder.kill('SIGTERM');
    await socket.hears(/^STATUS=leading with token 2 since \d{4}-/);
    run.kill('SIGTERM');
    await socket.hears('STATUS=SIGTERM passed on to the child');
    await socket.hears('STATUS=the child died of SIGTERM');
  });

  test('cannot be used by another candidate to say something in our name', async () => {
    const socket = await NotifySocket.open();
    const dir = scratch();
    await elect(['-b', `file:${dir}`, '-n', 'job', '--id', 'evil', '--', ...SLEEP]).event('started');
    const token = join(dir, 'job.token');
    writeFileSync(token, readFileSync(token, 'utf8').replace('"evil-', '"\\nMAINPID=1\\n\\u001b-').slice(0, 512));
    elect(['-b', `file:${dir}`, '-n', 'job', '--', ...SLEEP], { env: socket.env });
    const { lines } = await socket.hears(/^STATUS=standing by: \?MAINPID=1\?\?-/);
    expect(lines.some((line) => line.startsWith('MAINPID'))).toBe(false);
  });

  test('tells of a leadership in doubt, of its return and of stepping down', async () => {
    expect(whatIsMissing(['etcd', 'etcdctl'])).toBe(undefined);
    const socket = await NotifySocket.open();
    const etcd = await Etcd.start();
    const [member] = etcd.members;
    const args = ['-b', etcd.url, '-n', 'jobs/x', '--ttl', '7s', '--renew-every', '500ms', '--', ...SLEEP];
    const run = elect(args, { env: socket.env });
    await run.event('started');
    await member!.freeze();
    await socket.hears(/^STATUS=leadership in doubt: .* stepping down in/);
    member!.thaw();
    await run.event('resumed');
    await until(() => /^STATUS=leading with token/.test(socket.lines.at(-1)!), 'leading again');
    await member!.freeze();
    await socket.hears(/^STATUS=stepping down: /);
    await socket.hears('STOPPING=1');
    await socket.hears(/^STATUS=leadership lost/);
    member!.thaw();
    expect((await run.ended).code).toBe(79);
  });
});

describeWith(['python3'], 'WATCHDOG=1', () => {
  const timing = ['--ttl', '3s', '--renew-every', '300ms', '-v'];
  const watched = (socket: NotifySocket, ms = 2000) => ({ ...socket.env, WATCHDOG_USEC: String(ms * 1000) });

  test('comes with each renewal of a leader that was confirmed', async () => {
    const socket = await NotifySocket.open();
    const run = elect([...election(), ...timing, '--', ...SLEEP], { env: watched(socket) });
    await until(() => run.events.filter(({ event }) => event === 'renewed').length >= 4, 'four renewals');
    await until(() => socket.count('WATCHDOG=1') >= 5, 'a ping for winning and for each renewal');
    expect(socket.count('WATCHDOG=1')).toBeLessThanOrEqual(
      run.events.filter(({ event }) => event === 'renewed').length + 2,
    );
  });

  test.each([
    ['there is no WATCHDOG_USEC', {}],
    ['WATCHDOG_PID is another process', { WATCHDOG_USEC: '2000000', WATCHDOG_PID: '1' }],
    ['WATCHDOG_USEC is no number', { WATCHDOG_USEC: 'soon' }],
    ['WATCHDOG_USEC is 0', { WATCHDOG_USEC: '0' }],
  ])('is not sent where %s', async (_why, env) => {
    const socket = await NotifySocket.open();
    const run = elect([...election(), ...timing, '--', ...SLEEP], { env: { ...socket.env, ...env } });
    await run.event('renewed', { after: await run.event('renewed') });
    run.kill('SIGTERM');
    await run.ended;
    await socket.hears(/^STATUS=lease given back/);
    expect(socket.count('WATCHDOG=1')).toBe(0);
  });

  test('comes from a standby that holds nothing in the store, as long as its event loop lives', async () => {
    const socket = await NotifySocket.open();
    const run = elect([...(await led()), '--', ...SLEEP], { env: watched(socket, 400) });
    await until(() => socket.count('WATCHDOG=1') >= 3, 'three pings');
    run.kill('SIGSTOP');
    await until(() => isStopped(run.pid), 'stopped');
    await socket.hearsAll();
    const before = socket.count('WATCHDOG=1');
    await sleep(1000);
    expect(socket.count('WATCHDOG=1')).toBe(before);
  });

  test.each([
    [500, 'is shorter than two renewals (--renew-every 300ms)'],
    [3000, 'is not below --ttl 3s'],
    [60_000, 'is not below --ttl 3s'],
  ])('of a WatchdogSec of %i ms that makes no sense is warned of in one line', async (ms, text) => {
    const socket = await NotifySocket.open();
    const run = elect(['-b', 'etcd://127.0.0.1:1', '-n', 'jobs/x', ...timing, '--no-wait', '--', 'true'], {
      env: watched(socket, ms),
    });
    await run.ended;
    const warnings = run.events.filter(({ event }) => event === 'warning');
    expect(warnings.map(({ message }) => message)).toEqual([expect.stringContaining(text)]);
  });

  test('of a WatchdogSec that makes sense is not warned of, nor of a long one where nothing runs out', async () => {
    const socket = await NotifySocket.open();
    const etcd = ['-b', 'etcd://127.0.0.1:1', '-n', 'jobs/x', ...timing, '--no-wait', '--', 'true'];
    for (const [args, ms] of [
      [etcd, 2000],
      [[...election(), ...timing, '--', 'true'], 60_000],
    ] as const) {
      const run = elect([...args], { env: watched(socket, ms) });
      await run.ended;
      expect(run.events.map(({ event }) => event)).not.toContain('warning');
    }
  });
});

describeWith(['python3', 'etcd', 'etcdctl'], 'WATCHDOG=1 with a store that is gone', () => {
  const args = (etcd: Etcd) => ['-b', etcd.url, '-n', 'jobs/x', '--ttl', '4s', '--renew-every', '500ms', '-v', '--'];

  test('does not come from a leader whose renewals are not confirmed, until its command is dead', async () => {
    const socket = await NotifySocket.open();
    const etcd = await Etcd.start();
    const env = { ...socket.env, WATCHDOG_USEC: '200000' };
    const run = elect([...args(etcd), ...SLEEP], { env });
    const { pid } = await run.event('started');
    await etcd.members[0]!.freeze();
    await run.event('deposed');
    expect(alive(Number(pid))).toBe(false);
    await socket.hears(/^STATUS=leadership lost/);
    const [doubt, lost] = ['in doubt', 'lost'].map((what) =>
      socket.lines.findIndex((line) => line.startsWith(`STATUS=leadership ${what}`)),
    );
    expect(doubt).toBeGreaterThan(0);
    expect(socket.lines.slice(doubt, lost)).not.toContain('WATCHDOG=1');
    etcd.members[0]!.thaw();
  });

  test('comes from a standby that has lost its place in line by it', async () => {
    const socket = await NotifySocket.open();
    const etcd = await Etcd.start();
    await elect([...args(etcd), ...SLEEP]).event('started');
    const run = elect([...args(etcd), ...SLEEP], { env: { ...socket.env, WATCHDOG_USEC: '2000000' } });
    await run.event('place-renewed', { after: await run.event('standby') });
    await etcd.members[0]!.freeze();
    const lost = await run.event('place-lost');
    await until(() => socket.received.filter(({ readAt }) => readAt > lost.readAt).length >= 3, 'pings go on');
    const pings = socket.received.filter(({ lines }) => lines.includes('WATCHDOG=1')).map(({ readAt }) => readAt);
    const longestGap = Math.max(...pings.slice(1).map((at, index) => at - pings[index]!));
    expect(longestGap).toBeLessThan(2000);
    etcd.members[0]!.thaw();
  });
});

describeWith(['python3'], 'STOPPING=1', () => {
  test('comes with a SIGTERM that is passed on, before the child has ended', async () => {
    const socket = await NotifySocket.open();
    const job = ['sh', '-c', 'trap "read end; exit 3" TERM; echo ready; while :; do sleep 0.05; done'];
    const run = elect([...election(), '--', ...job], { env: socket.env, stdin: 'pipe' });
    await run.prints('ready');
    run.kill('SIGTERM');
    await socket.hears('STOPPING=1');
    expect(alive(Number((await run.event('started')).pid))).toBe(true);
    run.process.stdin!.end('\n');
    expect((await run.ended).code).toBe(3);
  });

  test('does not come with a signal after which the command goes on', async () => {
    const socket = await NotifySocket.open();
    const job = ['sh', '-c', 'trap "echo got" USR1 HUP; echo ready; while :; do sleep 0.05; done'];
    const run = elect([...election(), '--', ...job], { env: socket.env });
    await run.prints('ready');
    run.kill('SIGUSR1');
    run.kill('SIGHUP');
    await run.prints(/got\ngot/);
    await socket.hears('RELOADING=1');
    expect(socket.count('STOPPING=1')).toBe(0);
  });

  test('comes from a standby that a signal ends', async () => {
    const socket = await NotifySocket.open();
    const run = elect([...(await led()), '--', ...SLEEP], { env: socket.env });
    await socket.hears('READY=1');
    run.kill('SIGINT');
    expect((await run.ended).code).toBe(130);
    await socket.hears('STOPPING=1');
  });

  test('does not come with the end of a command after which the leadership is kept', async () => {
    const socket = await NotifySocket.open();
    const run = elect([...election(), '--hold', '1h', '--', 'true'], { env: socket.env });
    await socket.hears(/^STATUS=keeping the leadership/);
    expect(socket.count('STOPPING=1')).toBe(0);
    run.kill('SIGTERM');
    await socket.hears('STOPPING=1');
  });

  test('does not come from one that stands again after a loss', async () => {
    const socket = await NotifySocket.open();
    const dir = scratch();
    const job = `[ "$FENCING_TOKEN" = 1 ] || { echo again; sleep 1000; }; rm '${dir}/job.lock'; sleep 1000`;
    const flags = ['-b', `file:${dir}`, '-n', 'job', '--on-lost', 'rejoin', '--'];
    const run = elect([...flags, 'sh', '-c', job], { env: socket.env });
    await run.prints('again');
    await socket.hears(/^STATUS=leading with token 2/);
    expect(socket.count('STOPPING=1')).toBe(0);
    expect(socket.count('READY=1')).toBe(1);
  });
});

describeWith(['python3'], 'EXTEND_TIMEOUT_USEC', () => {
  const ignoring = ['sh', '-c', 'trap "" TERM; echo ready; while :; do sleep 0.05; done'];

  test('is asked for as long as --stop-timeout gives the child', async () => {
    const socket = await NotifySocket.open();
    const run = elect([...election(), '--stop-timeout', '8s', '--', ...ignoring], { env: socket.env });
    await run.prints('ready');
    run.kill('SIGTERM');
    await until(() => socket.count('EXTEND_TIMEOUT_USEC=10000000') >= 2, 'asked twice');
    expect(run.events.map(({ event }) => event)).not.toContain('ended');
    expect((await run.ended).code).toBe(143);
  });

  test('is not asked for where the child has no limit of ours: the service manager has one', async () => {
    const socket = await NotifySocket.open();
    const run = elect([...election(), '--', ...ignoring], { env: socket.env });
    await run.prints('ready');
    run.kill('SIGTERM');
    await socket.hears('STATUS=SIGTERM passed on to the child');
    expect(socket.lines.filter((line) => line.startsWith('EXTEND'))).toEqual([]);
  });
});

describeWith(['python3'], 'SIGHUP', () => {
  test('is RELOADING=1 with the time, and then READY=1', async () => {
    const socket = await NotifySocket.open();
    const job = ['sh', '-c', 'trap "echo reloaded" HUP; echo ready; while :; do sleep 0.05; done'];
    const run = elect([...election(), '--', ...job], { env: socket.env });
    await run.prints('ready');
    await socket.hears('READY=1');
    const from = process.hrtime.bigint() / 1000n;
    run.kill('SIGHUP');
    const { lines } = await socket.hears('RELOADING=1');
    await run.prints('reloaded');
    await until(() => socket.count('READY=1') === 2, 'ready again');
    const at = BigInt(lines.find((line) => line.startsWith('MONOTONIC_USEC='))!.split('=')[1]!);
    expect(at).toBeGreaterThanOrEqual(from);
    expect(at).toBeLessThanOrEqual(process.hrtime.bigint() / 1000n);
    expect(socket.lines.lastIndexOf('READY=1')).toBeGreaterThan(socket.lines.indexOf('RELOADING=1'));
  });

  test('is left to a child that speaks for itself', async () => {
    const socket = await NotifySocket.open();
    const reload = `signal.signal(signal.SIGHUP, lambda *_: say('RELOADING=1\\nMONOTONIC_USEC=7\\nREADY=1'))
say('READY=1')
while True: time.sleep(1000)`;
    const run = elect([...election(), '--notify-child', '--', ...saying([], reload)], { env: socket.env });
    await until(() => socket.count('READY=1') === 2, 'ready, in our words and its own');
    run.kill('SIGHUP');
    await socket.hears('MONOTONIC_USEC=7');
    expect(socket.count('RELOADING=1')).toBe(1);
  });
});

describeWith(['python3'], '--notify-child', () => {
  test.each([
    { flags: ['--notify-child'], env: {} },
    { flags: [], env: { ELECT_RUN_NOTIFY_CHILD: '1' } },
  ])('passes on what the child says, as ours: $flags $env', async ({ flags, env }) => {
    const socket = await NotifySocket.open();
    const words = ['STATUS=warming up', 'EXTEND_TIMEOUT_USEC=3000000', 'ERRNO=5', 'STOPPING=1'];
    const run = elect([...election(), ...flags, '--', ...saying(words)], { env: { ...socket.env, ...env } });
    for (const word of words.slice(1)) expect((await socket.hears(word)).pid).toBe(run.pid);
    await socket.hears(/^STATUS=leading with token 1 since \S+: warming up$/);
  });

  test('passes on nothing that is ours to say, or that would change the service', async () => {
    const socket = await NotifySocket.open();
    const words = ['WATCHDOG=1', 'WATCHDOG=trigger', 'WATCHDOG_USEC=1', 'MAINPID=1', 'FDSTORE=1', 'X_OWN=1', 'READY=0'];
    const messages = [...words, words.join('\n'), 'STATUS=\u001b[2Jred', 'ERRNO=1'];
    elect([...election(), '--notify-child', '--', ...saying(messages)], { env: socket.env });
    await socket.hears('ERRNO=1');
    for (const word of words) expect(socket.lines).not.toContain(word);
    await socket.hears(/: \?\[2Jred$/);
  });

  test('with --ready-on leader lets the child say when it is ready', async () => {
    const socket = await NotifySocket.open();
    const job = saying(['STATUS=warming up'], 'input(); say("READY=1"); time.sleep(1000)');
    const run = elect([...election(), '--notify-child', '--ready-on', 'leader', '--', ...job], {
      env: socket.env,
      stdin: 'pipe',
    });
    await socket.hears(/: warming up$/);
    expect(socket.count('READY=1')).toBe(0);
    run.process.stdin!.end('\n');
    await socket.hears('READY=1');
    expect(socket.count('READY=1')).toBe(1);
  });

  test('does not let a child that is stopped for a loss end a service that stands again', async () => {
    const socket = await NotifySocket.open();
    const dir = scratch();
    const job = saying(
      [],
      `import sys
if os.environ['FENCING_TOKEN'] != '1': say('ERRNO=2'); time.sleep(1000)
signal.signal(signal.SIGTERM, lambda *_: (say('STOPPING=1'), say('ERRNO=1'), sys.exit()))
os.unlink('${dir}/job.lock')
while True: time.sleep(1000)`,
    );
    const flags = ['-b', `file:${dir}`, '-n', 'job', '--on-lost', 'rejoin', '--notify-child', '--'];
    elect([...flags, ...job], { env: socket.env });
    await socket.hears('ERRNO=2');
    expect(socket.count('STOPPING=1')).toBe(0);
  });

  test('does not let the end of one run stop a service that waits for the next slot', async () => {
    const socket = await NotifySocket.open();
    const flags = ['--schedule', '* * * * * *', '--notify-child', '--'];
    const job = saying(['READY=1', 'STOPPING=1', 'ERRNO=1'], '');
    elect([...election(), ...flags, ...job], { env: socket.env });
    await until(() => socket.count('ERRNO=1') >= 2, 'the end of two runs');
    expect(socket.count('STOPPING=1')).toBe(0);
  });

  test('does not let a child that has ended stop a service that holds its leadership', async () => {
    const socket = await NotifySocket.open();
    const flags = ['--hold', '1h', '--notify-child', '--'];
    const run = elect([...election(), ...flags, ...saying(['STOPPING=1', 'ERRNO=1'], '')], { env: socket.env });
    await run.event('holding');
    await socket.hears('ERRNO=1');
    expect(socket.count('STOPPING=1')).toBe(0);
  });

  test('with --schedule and --hold the child’s last words are passed on once elect-run is asked to end', async () => {
    const socket = await NotifySocket.open();
    const flags = ['--schedule', '* * * * * *', '--hold', '1h', '--notify-child', '--'];
    const handler = `signal.signal(signal.SIGTERM, lambda *_: (say('STOPPING=1\\nERRNO=1'), os._exit(0)))
say('ERRNO=2')
time.sleep(1000)`;
    const run = elect([...election(), ...flags, ...saying([], handler)], { env: socket.env });
    await socket.hears('ERRNO=2');
    run.kill('SIGTERM');
    expect((await socket.hears('ERRNO=1')).lines).toContain('STOPPING=1');
  });

  test('withholds the watchdog from the child, and gives it a socket that is not the manager’s', async () => {
    const socket = await NotifySocket.open();
    const env = { ...socket.env, WATCHDOG_USEC: '10000000', WATCHDOG_PID: '1' };
    const run = elect([...election(), '--notify-child', '--', 'sh', '-c', 'env'], { env });
    const shown = (await run.ended).stdout.toString();
    expect(shown).toMatch(/^NOTIFY_SOCKET=@\S+$/m);
    expect(shown).not.toContain(socket.path);
    expect(shown).not.toContain('WATCHDOG');
  });

  test('does nothing where there is no service manager', async () => {
    const run = elect([...election(), '--notify-child', '--', 'sh', '-c', 'env; exit 3'], {
      env: { NOTIFY_SOCKET: undefined },
    });
    const { code, stdout } = await run.ended;
    expect(code).toBe(3);
    expect(stdout.toString()).not.toContain('NOTIFY_SOCKET');
  });

  test.skipIf(process.getuid!() !== 0)('hears nobody but the child’s tree, ourselves and root', async () => {
    const socket = await NotifySocket.open();
    const stranger = (address: string) =>
      python(`
import os, socket
os.setuid(65534)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'ERRNO=666', '${address}'.replace('@', '\\0', 1))
`);
    const asNobody = `import subprocess
print(os.environ['NOTIFY_SOCKET'], flush=True)
input()
pid = os.fork()
if pid == 0:
    os.setuid(65534); say('ERRNO=7'); time.sleep(1000)
time.sleep(1000)`;
    const run = elect([...election(), '--notify-child', '--', ...saying([], asNobody)], {
      env: socket.env,
      stdin: 'pipe',
    });
    const address = (await run.prints(/@\S+\n/)).trim();
    const other = elect([...election(), '--', ...stranger(address)]);
    expect((await other.ended).code).toBe(0);
    run.process.stdin!.end('\n');
    await socket.hears('ERRNO=7');
    expect(socket.lines).not.toContain('ERRNO=666');
  });
});

describe('bad input', () => {
  test.each([[['--ready-on', 'maybe'], '--ready-on "maybe" is not one of standby, leader']])(
    '%s is refused',
    async (flags, text) => {
      const run = elect([...election(), ...flags, '--', 'true']);
      expect((await run.ended).code).toBe(64);
      expect(await run.event('failed')).toMatchObject({ message: expect.stringContaining(text) });
    },
  );
});
