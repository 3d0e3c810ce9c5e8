import { afterEach, beforeAll, expect, test } from 'vitest';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import type { Need } from '../helpers/tools.ts';
import { ZooKeeper } from '../helpers/zookeeper.ts';
import { leaveNothingBehind, newElection, runsUntouched, standInLine } from './candidates.ts';

const CLUSTERS: { name: string; needs: Need[]; start(): Promise<Etcd | ZooKeeper>; flags: string[] }[] = [
  {
    name: 'etcd',
    needs: ['etcd', 'etcdctl'],
    start: () => Etcd.start({ members: 3 }),
    // It elects after 1 to 2 s, and again where no member has got a majority.
    flags: ['--ttl', '20s', '--renew-every', '2s'],
  },
  {
    name: 'zookeeper',
    needs: ['zookeeper'],
    start: () => ZooKeeper.start({ members: 3 }),
    // Its followers miss a leader that hangs only after 10 ticks, here 5 s, and nothing can be written meanwhile.
    flags: ['--ttl', '20s', '--renew-every', '3s'],
  },
];

for (const { name, needs, start, flags } of CLUSTERS) {
  describeWith([...needs, 'flock'], `a cluster of three, of ${name}`, () => {
    leaveNothingBehind();
    let cluster: Etcd | ZooKeeper;
    beforeAll(async () => {
      cluster = await start();
    });
    afterEach(() => cluster?.heal());

    /** A member, and the cluster's URL with that member first, so that elect-run talks to it. */
    async function memberThat(leads: boolean) {
      const leader = await cluster.leader();
      const index = leads ? leader : (leader + 1) % 3;
      const endpoints = [0, 1, 2].map((step) => cluster.endpoints[(index + step) % 3]);
      return { member: cluster.members[index]!, backend: `${name}://${endpoints.join(',')}` };
    }

    test.each([
      ['the leader is killed', true, 'kill'],
      ['the leader hangs', true, 'freeze'],
      ['the follower that elect-run talks to is killed', false, 'kill'],
      ['the follower that elect-run talks to hangs', false, 'freeze'],
    ] as const)('the child runs on when %s, and the line stands', async (_, leads, fault) => {
      const oracle = new Oracle();
      const { member, backend } = await memberThat(leads);
      const entry = { backend, name: newElection(), job: oracle.job(), flags };
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
      const entry = { backend: cluster.url, name: newElection(), job: oracle.job(), flags: ['--ttl', '5s'] };
      const [leader, next] = await standInLine(oracle, entry, entry);
      await cluster.members[1]!.freeze();
      await cluster.members[2]!.freeze();
      expect((await leader!.ended).code).toBe(79);
      expect(oracle.workers()).toEqual([]);
      await cluster.heal();
      await next!.event('started');
      await oracle.started(2);
      oracle.verify(2);
    });
  });
}
