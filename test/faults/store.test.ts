import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { Etcd } from '../helpers/etcd.ts';
import { newFolder } from '../helpers/folders.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import {
  LOST,
  leaveNothingBehind,
  newElection,
  ROOMY,
  renewals,
  runsUntouched,
  SHORT,
  standInLine,
} from './candidates.ts';

const AT_ONCE_MS = 100;

describeWith(['etcd', 'etcdctl', 'flock'], 'etcd takes the leadership away', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  // Retried because another process may have the processor for these 100 ms.
  test.each(['plain', 'ignores-term', 'escapes', 'escapes-without-environment'] as const)(
    'the whole tree of a job that %s is gone within 100 ms of the lease being revoked, with --grace 0',
    { retry: 2 },
    async (conduct) => {
      const oracle = new Oracle();
      const name = newElection();
      const flags = ['--profile', 'aggressive', '--grace', '0s'];
      const [leader] = await standInLine(oracle, { backend: etcd.url, name, job: oracle.job(conduct), flags });
      if (conduct.startsWith('escapes')) await oracle.escaped(1);
      const [seat] = await etcd.line(name);
      const free = oracle.whenFree();
      await etcd.etcdctl('lease', 'revoke', seat!.lease);
      const revokedAt = performance.now();
      expect((await free) - revokedAt).toBeLessThan(AT_ONCE_MS);
      expect((await leader!.ended).code).toBe(LOST);
      oracle.verify(1);
    },
  );

  test.each(['plain', 'ignores-term', 'escapes'] as const)(
    'child (%s) is gone before the next one starts when the lease is revoked',
    async (conduct) => {
      const oracle = new Oracle();
      const entry = { backend: etcd.url, name: newElection(), job: oracle.job(conduct) };
      const [leader, next] = await standInLine(oracle, entry, { ...entry, job: oracle.job() });
      const [seat] = await etcd.line(entry.name);
      await etcd.etcdctl('lease', 'revoke', seat!.lease);
      await leader!.event('deposed');
      expect((await leader!.ended).code).toBe(LOST);
      await next!.event('started');
      await oracle.started(2);
      oracle.verify(2);
    },
  );

  test('child is gone before the next one starts when the key is deleted', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job() };
    const [leader, next] = await standInLine(oracle, entry, entry);
    const [seat] = await etcd.line(entry.name);
    await etcd.etcdctl('del', seat!.key);
    expect((await leader!.ended).code).toBe(LOST);
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('a standby whose key is deleted stands in line again', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job() };
    const [leader, standby] = await standInLine(oracle, entry, entry);
    await etcd.etcdctl('del', (await etcd.line(entry.name))[1]!.key);
    await etcd.inLine(entry.name, 2);
    leader!.kill('SIGTERM');
    await standby!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});

describeWith(['etcd', 'etcdctl', 'flock'], 'etcd stands still or is away', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });
  afterEach(() => etcd.heal());

  test.each(['plain', 'escapes'] as const)(
    'child (%s) is gone when etcd is frozen past the ttl, and after thawing the next one starts',
    async (conduct) => {
      const oracle = new Oracle();
      const entry = { backend: etcd.url, name: newElection(), job: oracle.job(conduct) };
      const [leader, next] = await standInLine(oracle, entry, { ...entry, job: oracle.job() });
      await etcd.members[0]!.freeze();
      expect((await leader!.ended).code).toBe(LOST);
      expect(oracle.workers()).toEqual([]);
      etcd.members[0]!.thaw();
      await next!.event('started');
      await oracle.started(2);
      oracle.verify(2);
    },
  );

  test('with --grace 0 it is a loss (79), not an end of the child by KILL (137), whoever kills first', async () => {
    const flags = ['--profile', 'aggressive', '--grace', '0s'];
    const standing = Array.from({ length: 4 }, async () => {
      const oracle = new Oracle();
      const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags };
      return (await standInLine(oracle, entry))[0]!;
    });
    const leaders = await Promise.all(standing);
    await etcd.members[0]!.freeze();
    const ends = await Promise.all(leaders.map(({ ended }) => ended));
    expect(ends.map(({ code }) => code)).toEqual([LOST, LOST, LOST, LOST]);
  });

  test('a freeze shorter than the budget stops nothing', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags: ROOMY };
    const [leader] = await standInLine(oracle, entry, entry);
    await etcd.members[0]!.freeze();
    await leader!.event('suspended');
    etcd.members[0]!.thaw();
    await leader!.event('resumed');
    await runsUntouched(leader!, oracle);
  });

  test('while etcd is away nothing but our own lines is on stderr', async () => {
    const oracle = new Oracle();
    const entry = {
      backend: etcd.url,
      name: newElection(),
      job: oracle.job(),
      flags: ['--ttl', '30s', '--renew-every', '5s'],
    };
    const [leader] = await standInLine(oracle, entry, entry);
    await etcd.members[0]!.kill();
    await leader!.event('suspended');
    await sleep(6000); // requests that fail at once, again and again
    await etcd.heal();
    await leader!.event('resumed');
    for (const line of leader!.stderr.trim().split('\n')) expect(line).toMatch(/^\{"time"/);
  });

  test('a quick restart of etcd stops nothing', async () => {
    const oracle = new Oracle();
    const flags = ['--ttl', '20s', '--renew-every', '2s'];
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags };
    const [leader, next] = await standInLine(oracle, entry, entry);
    await etcd.members[0]!.kill();
    await etcd.heal();
    await runsUntouched(leader!, oracle);
    await etcd.inLine(entry.name, 2);
    leader!.kill('SIGTERM');
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('child is gone when etcd stays away, and once it is back the next one starts', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags: SHORT };
    const [leader, next] = await standInLine(oracle, entry, entry);
    await etcd.members[0]!.kill();
    expect((await leader!.ended).code).toBe(LOST);
    expect(oracle.workers()).toEqual([]);
    await etcd.heal();
    await next!.event('started');
    await oracle.started(2);
    await renewals(next!, 1);
    oracle.verify(2);
  });
});

describeWith(['flock'], 'the lock file is taken away', () => {
  leaveNothingBehind();
  const folder = newFolder('file');
  afterAll(() => rmSync(folder, { recursive: true }));

  test('child is gone before the next one starts when the lock file is deleted', async () => {
    const oracle = new Oracle();
    const entry = { backend: `file:${folder}`, name: newElection(), job: oracle.job('escapes'), flags: SHORT };
    const [leader, next] = await standInLine(oracle, entry, { ...entry, job: oracle.job() });
    await oracle.escaped(1);
    rmSync(join(folder, `${entry.name}.lock`));
    expect((await leader!.ended).code).toBe(LOST);
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});
