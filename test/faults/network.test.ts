import { afterAll, beforeAll, expect, test } from 'vitest';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { Network } from '../helpers/netns.ts';
import { Oracle } from '../helpers/oracle.ts';
import { alive } from '../helpers/procs.ts';
import { Link } from '../helpers/proxy.ts';
import {
  LOST,
  leaveNothingBehind,
  newElection,
  ROOMY,
  renewals,
  runsUntouched,
  SHORT,
  stand,
  standInLine,
  typesOf,
} from './candidates.ts';

const CUTS = [
  ['requests are dropped', { toServer: true }],
  ['replies are dropped', { fromServer: true }],
  ['all packets are dropped', { toServer: true, fromServer: true }],
] as const;

describeWith(['etcd', 'etcdctl', 'flock'], 'the link between elect-run and etcd', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  test.each(CUTS)('child is gone before the lease expires when %s, and healing revives nothing', async (_, cut) => {
    const oracle = new Oracle();
    const link = await Link.start(etcd.endpoints[0]!);
    const name = newElection();
    const [leader, next] = await standInLine(
      oracle,
      { backend: `etcd://${link.endpoint}`, name, job: oracle.job() },
      { backend: etcd.url, name, job: oracle.job() },
    );
    await renewals(leader!, 1);
    const before = typesOf(leader!).length;
    link.hold(cut);
    await next!.event('started');
    await oracle.started(2);
    link.heal();
    expect((await leader!.ended).code).toBe(LOST);
    const told = typesOf(leader!).slice(before);
    expect(told.filter((type) => ['suspended', 'stepping-down', 'deposed'].includes(type))).toEqual([
      'suspended',
      'stepping-down',
      'deposed',
    ]);
    await renewals(next!, 2);
    oracle.verify(2);
  });

  test.each(CUTS)('a blip shorter than the budget stops nothing when %s', async (_, cut) => {
    const oracle = new Oracle();
    const link = await Link.start(etcd.endpoints[0]!);
    const name = newElection();
    const [leader] = await standInLine(
      oracle,
      { backend: `etcd://${link.endpoint}`, name, job: oracle.job(), flags: ROOMY },
      { backend: etcd.url, name, job: oracle.job(), flags: ROOMY },
    );
    link.hold(cut);
    await leader!.event('suspended');
    link.heal();
    await leader!.event('resumed');
    await runsUntouched(leader!, oracle);
  });

  test('connections that are reset stop nothing', async () => {
    const oracle = new Oracle();
    const link = await Link.start(etcd.endpoints[0]!);
    const entry = { backend: `etcd://${link.endpoint}`, name: newElection(), job: oracle.job() };
    const [leader, next] = await standInLine(oracle, entry, entry);
    for (let times = 0; times < 3; times++) {
      link.reset();
      await renewals(leader!, 1);
    }
    await runsUntouched(leader!, oracle);
    leader!.kill('SIGTERM');
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('with --on-lost rejoin the one that was cut off stands again, and leads with a larger token', async () => {
    const oracle = new Oracle();
    const link = await Link.start(etcd.endpoints[0]!);
    const name = newElection();
    const flags = [...SHORT, '--on-lost', 'rejoin'];
    const [leader, next] = await standInLine(
      oracle,
      { backend: `etcd://${link.endpoint}`, name, job: oracle.job(), flags },
      { backend: etcd.url, name, job: oracle.job() },
    );
    link.hold();
    const deposed = await leader!.event('deposed');
    await oracle.started(2);
    link.heal();
    await leader!.event('standby', { after: deposed });
    next!.kill('SIGTERM');
    await leader!.event('started', { after: deposed });
    await oracle.started(3);
    oracle.verify(3);
  });

  test('a server that accepts connections and never answers: --no-wait gives up with 69', async () => {
    const oracle = new Oracle();
    const link = await Link.start(etcd.endpoints[0]!);
    link.hold();
    const backend = `etcd://${link.endpoint}`;
    const candidate = stand({ backend, name: newElection(), job: oracle.job(), flags: ['--no-wait'] });
    expect((await candidate.ended).code).toBe(69);
    oracle.verify(0);
  });

  test('a standby that is cut off for longer than its place lasts stands in line again after healing', async () => {
    const oracle = new Oracle();
    const link = await Link.start(etcd.endpoints[0]!);
    const name = newElection();
    const [leader, standby] = await standInLine(
      oracle,
      { backend: etcd.url, name, job: oracle.job() },
      { backend: `etcd://${link.endpoint}`, name, job: oracle.job() },
    );
    link.hold();
    await etcd.inLine(name, 1);
    link.heal();
    await etcd.inLine(name, 2);
    leader!.kill('SIGTERM');
    await standby!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});

describeWith(['etcd', 'etcdctl', 'flock', 'netns'], 'hosts on a network', () => {
  const [server, first, second] = [1, 2, 3];
  let network: Network;
  let etcd: Etcd;
  leaveNothingBehind();
  beforeAll(async () => {
    network = Network.create(3);
    etcd = await Etcd.start({ hosts: [network.host(server)] });
  });
  afterAll(async () => {
    await etcd?.stop();
    network?.remove();
  });

  test('child is gone before the lease expires when its host is cut off, and healing revives nothing', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job() };
    const [leader, next] = await standInLine(
      oracle,
      { ...entry, prefix: network.prefix(first) },
      { ...entry, prefix: network.prefix(second) },
    );
    network.cut(first);
    await next!.event('started');
    await oracle.started(2);
    network.heal();
    expect((await leader!.ended).code).toBe(LOST);
    await renewals(next!, 2);
    oracle.verify(2);
  });

  test('a cut shorter than the budget stops nothing', async () => {
    const oracle = new Oracle();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job(), flags: ROOMY };
    const [leader] = await standInLine(
      oracle,
      { ...entry, prefix: network.prefix(first) },
      { ...entry, prefix: network.prefix(second) },
    );
    network.cut(first);
    await leader!.event('suspended');
    network.heal();
    await leader!.event('resumed');
    expect(alive(oracle.starts()[0]!.pid)).toBe(true);
    await runsUntouched(leader!, oracle);
  });
});
