import { join } from 'node:path';
import { afterAll, afterEach, expect, test } from 'vitest';
import { counted, counter, counterReady, number, REALTIME, STANDARD, sendEach } from '../helpers/counter.ts';
import { BIN, type Elect, elect, endAll, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { holdersOf, until } from '../helpers/procs.ts';
import { inBatches, scratch, script } from '../helpers/scratch.ts';
import { stopServers } from '../helpers/servers.ts';

afterEach(endAll);
afterAll(stopServers);

const STOPS = ['SIGTSTP', 'SIGTTIN', 'SIGTTOU'].map(number);
const HARMLESS = ['SIGWINCH', 'SIGCONT', 'SIGURG'].map(number);

async function startCounter(args: string[] = []): Promise<Elect> {
  const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '-v', ...args, '--', ...counter]);
  await counterReady(run);
  return run;
}

describeWith(['perl'], 'while the child runs', () => {
  test('every signal that can be caught reaches each process of the child’s group exactly once', async () => {
    const run = await startCounter();
    await sendEach(run, STANDARD);
    const told = () => run.events.filter(({ event }) => event === 'signalled').length;
    await until(() => told() >= STANDARD.length, 'an event for each');
    expect(told()).toBe(STANDARD.length);
  });

  test('every real-time signal reaches each process of the child’s group exactly once', async () => {
    await sendEach(await startCounter(), REALTIME);
  });

  test('the same signal sent three times arrives three times', async () => {
    const run = await startCounter();
    for (const times of [1, 2, 3]) {
      run.kill('SIGINT');
      await until(() => counted(run).parent![2] === times && counted(run).child![2] === times, `${times} times INT`);
    }
    run.kill('SIGUSR1');
    await run.prints('parent 10');
    expect(counted(run).parent).toEqual({ 2: 3, 10: 1 });
  });

  test('signals sent without a pause all arrive', async () => {
    const run = await startCounter();
    const burst = ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH'].map(number);
    for (const signal of burst) run.kill(signal);
    const once = Object.fromEntries(burst.map((signal) => [signal, 1]));
    await until(() => Object.keys(counted(run).parent!).length === burst.length, 'all of them');
    run.kill('SIGQUIT');
    await run.prints('parent 3');
    expect(counted(run).parent).toEqual({ ...once, 3: 1 });
  });

  test.each(['SIGPIPE', 'SIGCHLD'] as const)('%s, which speaks of elect-run itself, is not passed on', async (name) => {
    const run = await startCounter();
    run.kill(name);
    run.kill('SIGUSR1');
    await run.prints('parent 10');
    await run.prints('child 10');
    expect(counted(run)).toEqual({ parent: { 10: 1 }, child: { 10: 1 } });
  });
});

test.each(['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGUSR1'] as const)(
  'a child that dies of a forwarded %s gives 128+n',
  async (name) => {
    const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--', 'sleep', '1000']);
    await run.event('started');
    run.kill(name);
    expect((await run.ended).code).toBe(128 + number(name));
    expect(run.events.map(({ event }) => event)).toContain('resigned');
  },
);

test('a child that handles TERM and ends with a code of its own gives that code', async () => {
  const job = 'trap "exit 42" TERM; echo ready; while :; do sleep 0.05; done';
  const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--', 'sh', '-c', job]);
  await run.prints('ready');
  run.kill('SIGTERM');
  expect((await run.ended).code).toBe(42);
});

test('a stopped child is continued by a forwarded CONT', async () => {
  const run = elect(['-b', `file:${scratch()}`, '-n', 'job', '--', 'sh', '-c', 'echo ready; kill -STOP $$; exit 5']);
  await run.prints('ready');
  await until(() => run.events.some(({ event }) => event === 'started'), 'the start');
  // Sent again until it hits: nobody tells us of the moment at which the job stops.
  await until(() => {
    if (run.process.exitCode === null) run.kill('SIGCONT');
    return run.process.exitCode !== null;
  }, 'its end');
  expect((await run.ended).code).toBe(5);
});

/** Who leads, so that others stand by. */
async function leader(dir: string): Promise<Elect> {
  const holder = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'sleep', '1000']);
  await holder.event('started');
  return holder;
}

test('every signal that ends a process ends a standby with 128+n and leaves nothing of it behind', async () => {
  const dir = scratch();
  const holder = await leader(dir);
  const ends = [...STANDARD, 34, 64].filter((signal) => !HARMLESS.includes(signal) && !STOPS.includes(signal));
  const codes: Record<number, number | null> = {};
  await inBatches(ends, 5, async (signal) => {
    const standby = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'touch', join(dir, 'ran')]);
    await standby.event('standby');
    standby.kill(signal);
    codes[signal] = (await standby.ended).code;
    expect(standby.events.map(({ event }) => event)).not.toContain('elected');
  });
  expect(codes).toEqual(Object.fromEntries(ends.map((signal) => [signal, 128 + signal])));
  const leading = [holder.pid, Number((await holder.event('started')).pid)];
  expect(holdersOf(join(dir, 'job.lock')).filter((pid) => !leading.includes(pid))).toEqual([]);
});

test('WINCH, CONT and URG do not end a standby', async () => {
  const dir = scratch();
  const holder = await leader(dir);
  const standby = elect(['-b', `file:${dir}`, '-n', 'job', '-v', '--', 'sh', '-c', 'exit 7']);
  await standby.event('standby');
  for (const signal of HARMLESS) standby.kill(signal);
  holder.kill('SIGTERM');
  expect((await standby.ended).code).toBe(7);
});

test('a stopped and continued standby still stands by', async () => {
  const dir = scratch();
  const holder = await leader(dir);
  const standby = elect(['-b', `file:${dir}`, '-n', 'job', '--', 'sh', '-c', 'exit 7']);
  await standby.event('standby');
  standby.kill('SIGSTOP');
  standby.kill('SIGCONT');
  holder.kill('SIGTERM');
  expect((await standby.ended).code).toBe(7);
});

test('a signal that comes as early as possible ends elect-run with 128+n or by that signal, and no child is left', async () => {
  const dir = scratch();
  await inBatches([0, 10, 20, 30, 40, 50, 60, 70, 80, 100], 2, async (afterMs) => {
    const run = elect(['-b', `file:${dir}`, '-n', `job-${afterMs}`, '--', 'sleep', '1000']);
    await new Promise((resolve) => setTimeout(resolve, afterMs)); // the moments of a start, not a wait for an event
    run.kill('SIGTERM');
    const { code, signal } = await run.ended;
    expect(signal ?? code).toBe(signal === null ? 143 : 'SIGTERM');
  });
});

/** A TERM comes while the address of --listen is looked up, and has been caught before there is an answer. */
const TERM_MEANWHILE = `
const dns = require('node:dns');
const { lookup } = dns;
dns.lookup = (...args) => {
  process.once('SIGTERM', () => setImmediate(lookup, ...args));
  process.kill(process.pid, 'SIGTERM');
};`;

test('a signal that comes before the campaign ends elect-run with 128+n, and nothing is run', async () => {
  const dir = scratch();
  const program = [NODE, '-r', script(dir, 'preloaded.cjs', TERM_MEANWHILE), BIN];
  const args = ['-v', '-b', `file:${dir}`, '-n', 'job', '--listen', 'localhost:0', '--', 'echo', 'ran'];
  const { code, stdout, stderr } = await elect(args, { program }).ended;
  expect(stderr).toContain('"signalled","signal":"SIGTERM"');
  expect([code, stdout.toString()]).toEqual([143, '']);
});

describeWith(['etcd', 'etcdctl'], 'in the line of a store', () => {
  test('a signal frees the place in line before elect-run ends', async () => {
    const etcd = await Etcd.start();
    const args = (command: string[]) => ['-b', etcd.url, '-n', 'jobs/x', '--ttl', '10s', '--', ...command];
    const holder = elect(args(['sleep', '1000']));
    await holder.event('started');
    const standby = elect(args(['true']));
    await standby.event('standby');
    expect(await etcd.line('jobs/x')).toHaveLength(2);
    standby.kill('SIGINT');
    expect((await standby.ended).code).toBe(130);
    expect(await etcd.line('jobs/x')).toHaveLength(1);
    holder.kill('SIGTERM');
    expect((await holder.ended).code).toBe(143);
    expect(await etcd.line('jobs/x')).toHaveLength(0);
  });
});

describeWith(['etcd', 'etcdctl', 'perl'], 'while stepping down', () => {
  test('a signal still reaches the child, once, and the exit code is that of a loss', async () => {
    const etcd = await Etcd.start();
    const timing = ['--ttl', '6s', '--renew-every', '1s', '--grace', '3s'];
    const run = elect(['-b', etcd.url, '-n', 'jobs/x', ...timing, '--', ...counter]);
    await counterReady(run);
    await etcd.members[0]!.freeze();
    await run.event('stepping-down');
    await run.prints('parent 15');
    run.kill('SIGUSR1');
    await run.prints('parent 10');
    await run.prints('child 10');
    run.kill('SIGINT');
    await run.prints('parent 2');
    etcd.members[0]!.thaw();
    const { code } = await run.ended;
    const { 18: _continued, ...parent } = counted(run).parent!;
    expect(parent).toEqual({ 15: 1, 10: 1, 2: 1 });
    expect(code).toBe(79);
  });
});
