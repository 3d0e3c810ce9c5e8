import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { constants, uptime } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { type Entry, guardOf, leaveNothingBehind, newElection, SHORT, stand, typesOf } from '../faults/candidates.ts';
import { AS_PID_1, pidOneOf } from '../helpers/container.ts';
import { counter, counterReady, REALTIME, STANDARD, sendEach } from '../helpers/counter.ts';
import { BIN, type Elect, elect, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { type Conduct, Oracle } from '../helpers/oracle.ts';
import { alive, childrenOf, identify, sessionOf, until, zombiesOf } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';

/** Of the job nobody lives but the command, and there is no zombie. */
async function commandIsAlone(pid1: number): Promise<void> {
  const guard = await guardOf(pid1);
  const job = () => childrenOf(pid1).filter((pid) => sessionOf(pid) !== guard);
  await until(() => job().length === 1 && zombiesOf(pid1).length === 0, 'all orphans have been reaped');
}

/** One elect-run, as pid 1 of a pid namespace of its own, as in a container. */
const box = (...job: string[]): Elect =>
  elect(['-v', '-b', `file:${scratch()}`, '-n', 'job', '--', ...job], { prefix: AS_PID_1 });

describeWith(['pidns'], 'as pid 1', () => {
  leaveNothingBehind();

  test.each([0, 1, 42, 126, 255])('the exit status is the command’s: %d', async (status) => {
    expect((await box('sh', '-c', `exit ${status}`).ended).code).toBe(status);
  });

  test.each(['SIGHUP', 'SIGTERM', 'SIGKILL', 'SIGSEGV'] as const)(
    'the exit status of a command that dies of %s is 128+n',
    async (signal) => {
      const number = constants.signals[signal];
      expect((await box('sh', '-c', `kill -${number} $$`).ended).code).toBe(128 + number);
    },
  );

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'] as const)(
    '%s while elect-run is being loaded is kept for it: the kernel drops what pid 1 does not handle yet',
    async (signal) => {
      const dir = scratch();
      cpSync(dirname(BIN), join(dir, 'bin'), { recursive: true });
      mkdirSync(join(dir, 'dist'));
      const slow = `require('node:fs').writeSync(1, 'loading');
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
        process.on('${signal}', () => process.exit(42));
        setTimeout(() => process.exit(1), 5000);
        exports.start = () => {};`;
      writeFileSync(join(dir, 'dist/main.js'), slow);
      const run = elect([], { prefix: AS_PID_1, program: [NODE, join(dir, 'bin', basename(BIN))] });
      await run.prints('loading');
      process.kill(await pidOneOf(run), signal);
      expect((await run.ended).code).toBe(42);
    },
  );

  test('orphans are reaped while the command runs: of 300 double forks no zombie stays', async () => {
    const orphan = "(setsid sh -c 'exit 0' &)";
    const run = box('sh', '-c', `for _ in $(seq 300); do ${orphan}; done; echo made; exec sleep infinity`);
    await run.prints('made');
    const pid1 = await pidOneOf(run);
    await commandIsAlone(pid1);
    process.kill(pid1, 'SIGTERM');
    expect((await run.ended).code).toBe(143);
    expect(typesOf(run)).not.toContain('leftovers');
  });

  test('orphans that die later, and by KILL, are reaped, too', async () => {
    const orphan = "(setsid sh -c 'sleep 0.$1; kill -9 $$' sh $i &)";
    const run = box('sh', '-c', `for i in $(seq 1 50); do ${orphan}; done; sleep 1; echo made; exec sleep infinity`);
    await run.prints('made');
    await commandIsAlone(await pidOneOf(run));
  });
});

describeWith(['pidns', 'perl'], 'as pid 1, signals', () => {
  leaveNothingBehind();

  test('every signal that can be caught reaches each process of the command’s group exactly once', async () => {
    const run = box(...counter);
    await counterReady(run);
    await sendEach(run, [...STANDARD, ...REALTIME], await pidOneOf(run));
  });
});

describeWith(['pidns', 'etcd', 'etcdctl', 'flock'], 'a rolling update', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  /** The old container leads and works, the new one stands by. */
  async function oldAndNew(flags: string[], conduct: Conduct = 'plain') {
    const oracle = new Oracle();
    const entry: Entry = { backend: etcd.url, name: newElection(), job: oracle.job(conduct), flags, prefix: AS_PID_1 };
    const old = stand(entry);
    await old.event('started');
    await oracle.started(1);
    const next = stand({ ...entry, job: oracle.job() });
    await next.event('standby');
    return { oracle, name: entry.name, old, next };
  }

  const HAND_OVER_MS = 1000;

  test('SIGTERM ends the old job, and the new one starts within 1 s, with a ttl of 60 s; no key is left', async () => {
    const { oracle, name, old, next } = await oldAndNew(['--ttl', '60s']);
    const pid1 = await pidOneOf(old);
    const stoppedAt = uptime() * 1000;
    process.kill(pid1, 'SIGTERM');
    const { at } = await oracle.started(2);
    expect(at - stoppedAt).toBeLessThan(HAND_OVER_MS);
    expect((await old.ended).code).toBe(143);
    expect(typesOf(old)).toContain('resigned');
    process.kill(await pidOneOf(next), 'SIGTERM');
    expect((await next.ended).code).toBe(143);
    expect(await etcd.line(name)).toEqual([]);
    oracle.verify(2);
  });

  test('a job that ignores SIGTERM is killed after --stop-timeout, and its lease is given back', async () => {
    const STOP_TIMEOUT_MS = 700;
    const { oracle, name, old, next } = await oldAndNew(['--ttl', '60s', '--stop-timeout', '700ms'], 'ignores-term');
    const pid1 = await pidOneOf(old);
    const stoppedAt = uptime() * 1000;
    process.kill(pid1, 'SIGTERM');
    const { at } = await oracle.started(2);
    expect(at - stoppedAt).toBeGreaterThan(STOP_TIMEOUT_MS - 10);
    expect(at - stoppedAt).toBeLessThan(STOP_TIMEOUT_MS + HAND_OVER_MS);
    expect((await old.ended).code).toBe(143);
    process.kill(await pidOneOf(next), 'SIGTERM');
    await next.ended;
    expect(await etcd.line(name)).toEqual([]);
    oracle.verify(2);
  });

  test('the new container may be stopped before it led: its place in line is given back', async () => {
    const { oracle, name, next } = await oldAndNew(['--ttl', '60s']);
    process.kill(await pidOneOf(next), 'SIGTERM');
    expect((await next.ended).code).toBe(143);
    expect(await etcd.line(name)).toHaveLength(1);
    oracle.verify(1);
  });

  test('kill -9 of pid 1 ends everybody in its namespace at once, the guard included: the lease runs out', async () => {
    const { oracle, name, old } = await oldAndNew(SHORT, 'escapes');
    await oracle.escaped(1);
    const pid1 = identify(await pidOneOf(old));
    const guard = identify(await guardOf(pid1.pid));
    process.kill(pid1.pid, 'SIGKILL');
    await old.ended;
    expect([pid1, guard].filter(alive)).toEqual([]);
    expect(oracle.workers()).toEqual([]);
    expect(await etcd.line(name)).toHaveLength(2); // nobody was left to give it back
    await oracle.started(2);
    oracle.verify(2);
  });
});
