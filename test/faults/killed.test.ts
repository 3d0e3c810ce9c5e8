import { cpSync, rmSync, symlinkSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CHECKOUT, NODE } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { alive, identify, until } from '../helpers/procs.ts';
import { scratch } from '../helpers/scratch.ts';
import {
  alarmOf,
  type Entry,
  guardOf,
  leaveNothingBehind,
  newElection,
  SHORT,
  stand,
  standInLine,
  typesOf,
} from './candidates.ts';

const LONG = ['--ttl', '60s'];
const TAKE_OVER_MS = 1000;
/** One nap of the alarm with a ttl of 60 s, and what a busy machine takes for the rest. */
const TAKEN_OVER_MS = 5000;

/** kill -9 of each leader in turn. */
async function killInTurn(oracle: Oracle, entry: Entry, leaders: number): Promise<void> {
  const line = await standInLine(oracle, ...Array.from({ length: leaders }, () => entry));
  for (let fallen = 1; fallen < leaders; fallen++) {
    const leader = await until(
      () => line.find((one) => one.process.exitCode === null && typesOf(one).includes('started')),
      'a leader',
    );
    const killedAt = uptime() * 1000;
    leader.kill('SIGKILL');
    const next = await oracle.started(fallen + 1);
    expect(next.at - killedAt, 'from kill -9 to the next start').toBeLessThan(TAKE_OVER_MS);
    await leader.ended;
    const gone = line.splice(line.indexOf(leader), 1);
    expect(gone).toEqual([leader]);
  }
  oracle.verify(leaders);
}

describeWith(['etcd', 'etcdctl', 'flock'], 'etcd: elect-run or its guard is killed', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  test('after kill -9 of elect-run the next child starts within 1 s, with a ttl of 60 s', async () => {
    const oracle = new Oracle();
    await killInTurn(oracle, { backend: etcd.url, name: newElection(), job: oracle.job(), flags: LONG }, 4);
  });

  test('after kill -9 of elect-run the next child starts within 1 s, with users and passwords', async () => {
    const guarded = await Etcd.start({ auth: true });
    const oracle = new Oracle();
    const env = { ETCDCTL_USER: 'app', ETCDCTL_PASSWORD: 'apppw' };
    const name = `/jobs/${newElection()}`;
    await killInTurn(oracle, { backend: guarded.url, name, job: oracle.job(), flags: LONG, env }, 2);
  });

  test('after kill -9 of elect-run the next child starts within 1 s, with client certificates', async () => {
    const secure = await Etcd.start({ tls: true });
    const oracle = new Oracle();
    const { ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY } = secure.clientEnv;
    const env = { ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY };
    await killInTurn(oracle, { backend: secure.url, name: newElection(), job: oracle.job(), flags: LONG, env }, 2);
  });

  test('kill -9 of a standby frees its place in line', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags: LONG };
    const [leader, standby, last] = await standInLine(oracle, entry, entry, entry);
    standby!.kill('SIGKILL');
    await etcd.inLine(entry.name, 2);
    leader!.kill('SIGTERM');
    await last!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('kill -9 of the guard brings a new guard, and kill -9 of elect-run then still leaves nobody', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags: LONG };
    const [leader, next] = await standInLine(oracle, entry, entry);
    const first = await guardOf(leader!);
    process.kill(first, 'SIGKILL');
    await leader!.event('guard-replaced');
    const second = await guardOf(leader!, first);
    expect(second).not.toBe(first);
    expect(alive(oracle.starts()[0]!.pid)).toBe(true);
    leader!.kill('SIGKILL');
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('kill -9 of elect-run and of its guard at once: nobody is at work when the next child starts', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job('escapes'), flags: SHORT };
    const [leader] = await standInLine(oracle, entry, entry);
    await oracle.escaped(1);
    const guard = await guardOf(leader!);
    leader!.kill('SIGSTOP'); // so that it cannot notice
    process.kill(guard, 'SIGKILL');
    leader!.kill('SIGKILL');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('kill -9 of elect-run and of its guard at once: who hides only then, from a member of the job’s group, is not at work when the next child starts', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job('leaves-once-orphaned'), flags: SHORT };
    const [leader] = await standInLine(oracle, entry, entry);
    const guard = await guardOf(leader!);
    const alarm = await alarmOf(guard);
    leader!.kill('SIGSTOP');
    process.kill(alarm, 'SIGSTOP'); // so that it does not come before
    process.kill(guard, 'SIGKILL');
    leader!.kill('SIGKILL');
    await oracle.escaped(1);
    process.kill(alarm, 'SIGCONT');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('kill -9 of elect-run and of its guard at once: the tree is gone long before the lease runs out', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job('leaves-once-orphaned'), flags: LONG };
    const [leader] = await standInLine(oracle, entry);
    const guard = await guardOf(leader!);
    leader!.kill('SIGSTOP');
    process.kill(guard, 'SIGKILL');
    leader!.kill('SIGKILL');
    await until(() => oracle.workers().length === 0, 'the end of the tree', TAKEN_OVER_MS);
  });

  test('kill -9 of elect-run whose program is gone, so that nothing can be cleaned up: nobody is at work when the next child starts', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags: SHORT };
    const folder = scratch();
    for (const part of ['bin', 'dist', 'package.json'])
      cpSync(join(CHECKOUT, part), join(folder, part), { recursive: true });
    symlinkSync(join(CHECKOUT, 'node_modules'), join(folder, 'node_modules'));
    const program = [NODE, join(folder, 'bin/elect-run.js')];
    const leader = stand({ ...entry, job: oracle.job('leaves-without-environment'), program });
    await oracle.escaped(1);
    await leader.event('strayed');
    const next = stand(entry);
    await next.event('standby');
    rmSync(join(folder, 'dist'), { recursive: true });
    leader.kill('SIGKILL');
    await next.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('kill -9 of the guard, and of elect-run while it is being replaced: nobody is at work when the next child starts', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job('escapes'), flags: SHORT };
    const [leader] = await standInLine(oracle, entry, entry);
    await oracle.escaped(1);
    process.kill(await guardOf(leader!), 'SIGKILL');
    await leader!.event('guard-replaced');
    leader!.kill('SIGKILL');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('a guard that is frozen is replaced, and kill -9 of elect-run then still leaves nobody', async () => {
    const oracle = new Oracle();
    const flags = ['--ttl', '3s', '--renew-every', '500ms', '--grace', '500ms'];
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags };
    const [leader, next] = await standInLine(oracle, entry, entry);
    const frozen = identify(await guardOf(leader!));
    process.kill(frozen.pid, 'SIGSTOP');
    await leader!.event('guard-replaced');
    await guardOf(leader!, frozen.pid);
    await until(() => !alive(frozen), 'the end of the frozen guard');
    expect(alive(oracle.starts()[0]!.pid)).toBe(true);
    leader!.kill('SIGKILL');
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});

describeWith(['flock'], 'file: elect-run or its guard is killed', () => {
  leaveNothingBehind();
  const folder = newFolder('file');
  const backend = `file:${folder}`;
  afterAll(() => rmSync(folder, { recursive: true }));

  test('after kill -9 of elect-run the next child starts within 1 s', async () => {
    const oracle = new Oracle();
    await killInTurn(oracle, { backend, name: newElection(), job: oracle.job(), flags: LONG }, 4);
  });

  test('kill -9 of the guard brings a new guard, and kill -9 of elect-run then still leaves nobody', async () => {
    const oracle = new Oracle();
    const entry = { backend, name: newElection(), job: oracle.job('escapes'), flags: LONG };
    const [leader] = await standInLine(oracle, entry, entry);
    await oracle.escaped(1);
    const first = await guardOf(leader!);
    process.kill(first, 'SIGKILL');
    await leader!.event('guard-replaced');
    await guardOf(leader!, first);
    leader!.kill('SIGKILL');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('kill -9 of elect-run and of its guard at once: the lock stays taken while anybody of the tree lives', async () => {
    const oracle = new Oracle();
    const entry = { backend, name: newElection(), job: oracle.job('escapes'), flags: LONG };
    const [leader] = await standInLine(oracle, entry, entry);
    const escaped = await oracle.escaped(1);
    const guard = await guardOf(leader!);
    leader!.kill('SIGSTOP');
    process.kill(guard, 'SIGKILL');
    leader!.kill('SIGKILL');
    await until(() => oracle.workers().length === 1, 'only the escaped one is left');
    oracle.verify(1);
    process.kill(escaped, 'SIGKILL');
    await oracle.started(2);
    oracle.verify(2);
  });
});
