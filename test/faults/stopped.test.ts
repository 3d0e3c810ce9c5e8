import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { alive, identify } from '../helpers/procs.ts';
import { guardOf, LOST, leaveNothingBehind, newElection, standInLine, TTL_MS, typesOf } from './candidates.ts';

describeWith(['etcd', 'etcdctl', 'flock'], 'etcd: elect-run stands still', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  test.each(['plain', 'escapes'] as const)(
    'SIGSTOP of elect-run for three ttls: its child (%s) is gone before the next one starts, and after SIGCONT it ends with 79',
    async (conduct) => {
      const oracle = new Oracle();
      const entry = { backend: etcd.url, name: newElection(), job: oracle.job(conduct) };
      const [leader, next] = await standInLine(oracle, entry, { ...entry, job: oracle.job() });
      if (conduct === 'escapes') await oracle.escaped(1);
      const stopped = sleep(3 * TTL_MS);
      leader!.kill('SIGSTOP');
      await next!.event('started');
      await oracle.started(2);
      await stopped;
      leader!.kill('SIGCONT');
      const { code } = await leader!.ended;
      expect(code).toBe(LOST);
      expect(typesOf(leader!)).not.toContain('resumed');
      expect(next!.process.exitCode).toBeNull();
      oracle.verify(2);
    },
  );

  test('SIGSTOP of elect-run and its guard together: the child is gone before the next one starts', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job() };
    const [leader, next] = await standInLine(oracle, entry, entry);
    const guard = await guardOf(leader!);
    process.kill(guard, 'SIGSTOP');
    leader!.kill('SIGSTOP');
    await next!.event('started');
    await oracle.started(2);
    process.kill(guard, 'SIGCONT');
    leader!.kill('SIGCONT');
    expect((await leader!.ended).code).toBe(LOST);
    oracle.verify(2);
  });

  test('SIGSTOP of elect-run for less than the budget stops nothing', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job() };
    const [leader] = await standInLine(oracle, entry);
    const child = identify(oracle.starts()[0]!.pid);
    const renewed = await leader!.event('renewed');
    leader!.kill('SIGSTOP');
    await sleep(TTL_MS / 3);
    leader!.kill('SIGCONT');
    const after = await leader!.event('renewed', { after: renewed });
    await leader!.event('renewed', { after });
    expect(alive(child)).toBe(true);
    expect(typesOf(leader!)).not.toContain('stepping-down');
    oracle.verify(1);
  });

  test('a standby that stood still past the time to stop, but not past that of its place, leads when it is its turn', async () => {
    const oracle = new Oracle();
    const flags = ['--ttl', '6s', '--grace', '2s']; // TERM would be due after 3.4 s, the place runs out after 5.4 s
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags };
    const [leader, next, last] = await standInLine(oracle, entry, entry, entry);
    await next!.event('place-renewed', { after: next!.events.at(-1)! });
    next!.kill('SIGSTOP');
    await sleep(3700);
    const before = next!.events.at(-1)!;
    next!.kill('SIGCONT');
    await next!.event('place-renewed', { after: before });
    leader!.kill('SIGTERM');
    await next!.event('started');
    await oracle.started(2);
    expect(typesOf(next!)).not.toContain('place-lost');
    expect(typesOf(last!)).not.toContain('elected');
    oracle.verify(2);
  });

  test('a standby that stood still for longer than its place in line enters again, and leads when it is its turn', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job() };
    const [leader, standby] = await standInLine(oracle, entry, entry);
    standby!.kill('SIGSTOP');
    await etcd.inLine(entry.name, 1);
    standby!.kill('SIGCONT');
    await etcd.inLine(entry.name, 2);
    leader!.kill('SIGTERM');
    await standby!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});

describeWith(['flock'], 'file: elect-run stands still', () => {
  leaveNothingBehind();
  const folder = newFolder('file');
  afterAll(() => rmSync(folder, { recursive: true }));

  test('SIGSTOP of elect-run for longer than a ttl stops nothing, since the lock does not run out', async () => {
    const oracle = new Oracle();
    const entry = { backend: `file:${folder}`, name: newElection(), job: oracle.job() };
    const [leader, next] = await standInLine(oracle, entry, entry);
    leader!.kill('SIGSTOP');
    await sleep(1.5 * TTL_MS);
    oracle.verify(1);
    leader!.kill('SIGCONT');
    await sleep(100);
    expect(alive(oracle.starts()[0]!.pid)).toBe(true);
    leader!.kill('SIGTERM');
    expect((await leader!.ended).code).toBe(128 + 15);
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});
