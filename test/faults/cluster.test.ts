import { afterEach, beforeAll, expect, test } from 'vitest';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { leaveNothingBehind, newElection, runsUntouched, standInLine } from './candidates.ts';

const FLAGS = ['--ttl', '10s'];

describeWith(['etcd', 'etcdctl', 'flock'], 'a cluster of three', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start({ members: 3 });
  });
  afterEach(() => etcd.heal());

  /** A member, and the cluster's URL with that member first, so that elect-run talks to it. */
  async function memberThat(leads: boolean) {
    const leader = await etcd.leader();
    const index = leads ? leader : (leader + 1) % 3;
    const endpoints = [0, 1, 2].map((step) => etcd.endpoints[(index + step) % 3]);
    return { member: etcd.members[index]!, backend: `etcd://${endpoints.join(',')}` };
  }

  test.each([
    ['the leader is killed', true, 'kill'],
    ['the leader hangs', true, 'freeze'],
    ['the follower that elect-run talks to is killed', false, 'kill'],
    ['the follower that elect-run talks to hangs', false, 'freeze'],
  ] as const)('the child runs on when %s, and the line stands', async (_, leads, fault) => {
    const oracle = new Oracle();
    const { member, backend } = await memberThat(leads);
    const entry = { backend, name: newElection(), job: oracle.job(), flags: FLAGS };
    const [leader, next] = await standInLine(oracle, entry, entry);
    await member[fault]();
    await runsUntouched(leader!, oracle);
    leader!.kill('SIGTERM');
    expect((await leader!.ended).code).toBe(128 + 15);
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('child is gone before the next one starts when the cluster loses its quorum, and it starts once that is back', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags: ['--ttl', '5s'] };
    const [leader, next] = await standInLine(oracle, entry, entry);
    await etcd.members[1]!.freeze();
    await etcd.members[2]!.freeze();
    expect((await leader!.ended).code).toBe(79);
    expect(oracle.workers()).toEqual([]);
    await etcd.heal();
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});
