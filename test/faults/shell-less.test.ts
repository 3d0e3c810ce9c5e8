import { uptime } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { lookUpCommand } from '../../src/lookup.ts';
import { elect } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { type Conduct, Oracle } from '../helpers/oracle.ts';
import { alive, commandLine, identify, until } from '../helpers/procs.ts';
import { type Root, TOOLS, withoutShell } from '../helpers/root.ts';
import {
  type Entry,
  guardOf,
  LOST,
  leaveNothingBehind,
  newElection,
  renewals,
  runsUntouched,
  SHORT,
  standInLine,
  TTL_MS,
  typesOf,
} from './candidates.ts';

const LONG = ['--ttl', '60s'];
const TAKE_OVER_MS = 1000;

describeWith(['etcd', 'etcdctl', 'flock', 'pidns'], 'where there is no /bin/sh', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  let root: Root;
  beforeAll(async () => {
    etcd = await Etcd.start();
    root = withoutShell();
  });
  afterAll(() => root.remove());

  const enter = (flags: string[], conduct: Conduct = 'plain'): { oracle: Oracle; entry: Entry } => {
    const oracle = new Oracle(TOOLS);
    const job = oracle.job(conduct);
    return { oracle, entry: { backend: etcd.url, name: newElection(), job, flags, prefix: root.prefix() } };
  };

  test('the command runs, guarded by a Node', async () => {
    const { oracle, entry } = enter(LONG);
    const [leader] = await standInLine(oracle, entry);
    expect(commandLine(await guardOf(leader!))[0]).toBe(process.execPath);
    leader!.kill('SIGTERM');
    expect((await leader!.ended).code).toBe(128 + 15);
    expect(typesOf(leader!)).toContain('resigned');
    oracle.verify(1);
  });

  test('there is a shell, but no sleep(1) in PATH: it is a Node as well, and says nothing', async () => {
    const args = ['-b', etcd.url, '-n', newElection(), '--ttl', '3s', '--', lookUpCommand('sleep'), '1000'];
    const leader = elect(args, { env: { PATH: '' } });
    await leader.event('started');
    expect(commandLine(await guardOf(leader))[0]).toBe(process.execPath);
    leader.kill('SIGTERM');
    expect((await leader.ended).stderr).not.toContain('not found');
  });

  test('as long as the lease is renewed nothing is killed', async () => {
    const { oracle, entry } = enter(['--ttl', '3s', '--renew-every', '300ms', '--grace', '500ms']);
    const [leader] = await standInLine(oracle, entry);
    await renewals(leader!, 15);
    await runsUntouched(leader!, oracle);
  });

  test.each(['plain', 'ignores-term', 'escapes'] as const)(
    'after kill -9 of elect-run the next child starts within 1 s, with a ttl of 60 s: %s',
    async (conduct) => {
      const { oracle, entry } = enter(LONG, conduct);
      const [leader] = await standInLine(oracle, entry, entry);
      if (conduct === 'escapes') await oracle.escaped(1);
      const killedAt = uptime() * 1000;
      leader!.kill('SIGKILL');
      expect((await oracle.started(2)).at - killedAt).toBeLessThan(TAKE_OVER_MS);
      oracle.verify(2);
    },
  );

  test.each(['plain', 'escapes'] as const)(
    'SIGSTOP of elect-run for three ttls: its child (%s) is gone before the next one starts, and after SIGCONT it ends with 79',
    async (conduct) => {
      const { oracle, entry } = enter(SHORT, conduct);
      const [leader, next] = await standInLine(oracle, entry, { ...entry, job: oracle.job() });
      if (conduct === 'escapes') await oracle.escaped(1);
      const stopped = sleep(3 * TTL_MS);
      leader!.kill('SIGSTOP');
      await next!.event('started');
      await oracle.started(2);
      await stopped;
      leader!.kill('SIGCONT');
      expect((await leader!.ended).code).toBe(LOST);
      oracle.verify(2);
    },
  );

  test('what a service manager sends to all processes of a unit does not end the guard', async () => {
    const { oracle, entry } = enter(LONG);
    const [leader] = await standInLine(oracle, entry, entry);
    const guard = await guardOf(leader!);
    for (const signal of ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'] as const) process.kill(guard, signal);
    leader!.kill('SIGKILL');
    await oracle.started(2);
    expect(typesOf(leader!)).not.toContain('guard-replaced');
    oracle.verify(2);
  });

  test('kill -9 of the guard brings a new guard, and kill -9 of elect-run then still leaves nobody', async () => {
    const { oracle, entry } = enter(LONG);
    const [leader] = await standInLine(oracle, entry, entry);
    const first = await guardOf(leader!);
    process.kill(first, 'SIGKILL');
    await leader!.event('guard-replaced');
    await guardOf(leader!, first);
    expect(alive(oracle.starts()[0]!.pid)).toBe(true);
    const killedAt = uptime() * 1000;
    leader!.kill('SIGKILL');
    expect((await oracle.started(2)).at - killedAt).toBeLessThan(TAKE_OVER_MS);
    oracle.verify(2);
  });

  test('a guard that is frozen is replaced, and kill -9 of elect-run then still leaves nobody', async () => {
    const { oracle, entry } = enter(['--ttl', '3s', '--renew-every', '500ms', '--grace', '500ms']);
    const [leader] = await standInLine(oracle, entry, entry);
    const frozen = identify(await guardOf(leader!));
    process.kill(frozen.pid, 'SIGSTOP');
    await leader!.event('guard-replaced');
    await guardOf(leader!, frozen.pid);
    await until(() => !alive(frozen), 'the end of the frozen guard');
    leader!.kill('SIGKILL');
    await oracle.started(2);
    oracle.verify(2);
  });
});
