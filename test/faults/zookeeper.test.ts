import { beforeAll, expect, test } from 'vitest';
import { BIN } from '../helpers/elect.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { until } from '../helpers/procs.ts';
import { Link } from '../helpers/proxy.ts';
import { ZooKeeper } from '../helpers/zookeeper.ts';
import { setChildCounter } from '../helpers/zookeeper-snapshot.ts';
import {
  type Entry,
  LOST,
  leaveNothingBehind,
  newElection,
  renewals,
  runsUntouched,
  SHORT,
  stand,
  standInLine,
} from './candidates.ts';

/** With it nothing runs out, is renewed or pinged within a test that does not wait for it. */
const LONG = ['--ttl', '2m', '--renew-every', '40s'];

describeWith(['zookeeper', 'flock'], 'zookeeper: places in the line', () => {
  leaveNothingBehind();
  let zookeeper: ZooKeeper;
  beforeAll(async () => {
    zookeeper = await ZooKeeper.start();
  });

  const entryFor = (oracle: Oracle, flags = SHORT): Entry => ({
    backend: zookeeper.url,
    name: newElection(),
    job: oracle.job(),
    flags,
  });

  test('inside of a command check and status know whose line it is', async () => {
    const elect = `"${process.execPath}" "${BIN}"`;
    const job = ['sh', '-c', `${elect} check && ${elect} status`];
    const oracle = new Oracle();
    const { stdout, code } = await stand({ ...entryFor(oracle), job, flags: [...SHORT, '--zk-flavor', 'kazoo'] }).ended;
    expect(code).toBe(0);
    expect(stdout.toString()).toMatch(/^leader +\S+, token \d+/m);
  });

  // With a look at each renewal for somebody's word an error is among the answers; here are none.
  test.each([[[]], [['--no-remote-resign']]])('each renewal is good for the whole ttl, with %j', async (more) => {
    const leader = stand(entryFor(new Oracle(), [...SHORT, ...more]));
    const { ttlMs } = await leader.event('elected');
    await renewals(leader, 5);
    for (const { event, validForMs } of leader.events)
      if (event === 'renewed') expect(validForMs).toBeGreaterThan((ttlMs as number) - 500);
  });

  /** A candidate whose znode is created while the answer to that is held back. */
  async function entersUnanswered(entry: Entry, alreadyThere: number) {
    const link = await Link.start(zookeeper.endpoints[0]!);
    const created = link.sent('-latch-').then(() => link.hold({ fromServer: true }));
    const candidate = stand({ ...entry, backend: zookeeper.urlThrough(link.endpoint) });
    await created;
    await zookeeper.inLine(entry.name, alreadyThere + 1);
    return { candidate, link };
  }

  test('a candidate whose znode was created, with the answer lost, takes that place and no second one', async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle);
    const [leader] = await standInLine(oracle, entry);
    const { candidate, link } = await entersUnanswered(entry, 1);
    const line = await zookeeper.line(entry.name);
    const { czxid } = await zookeeper.stat(line[1]!);
    link.reset();
    link.heal();
    expect(await candidate.event('standby')).toMatchObject({ position: 2 });
    expect(await zookeeper.line(entry.name)).toEqual(line);
    leader!.kill('SIGTERM');
    expect((await oracle.started(2)).token).toBe(BigInt(czxid));
    candidate.kill('SIGTERM');
    await candidate.ended;
    await zookeeper.inLine(entry.name, 0);
    oracle.verify(2);
  });

  test('a candidate that ends while the answer to its create is lost leaves nothing behind', async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle, LONG);
    await zookeeper.create(`/${entry.name}`);
    const { candidate } = await entersUnanswered(entry, 0);
    candidate.kill('SIGTERM');
    expect((await candidate.ended).code).toBe(128 + 15);
    await zookeeper.inLine(entry.name, 0);
    oracle.verify(0);
  });

  test('a second signal does not wait for a server that does not answer the goodbye', async () => {
    const oracle = new Oracle();
    const link = await Link.start(zookeeper.endpoints[0]!);
    const leader = stand({ ...entryFor(oracle, LONG), backend: zookeeper.urlThrough(link.endpoint) });
    await oracle.started(1);
    link.hold();
    leader.kill('SIGTERM');
    await leader.event('ended');
    leader.kill('SIGTERM');
    expect((await leader.ended).code).toBe(128 + 15);
    oracle.verify(1);
  });

  test("a candidate leads although the election's znode is deleted while it enters", async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle);
    const link = await Link.start(zookeeper.endpoints[0]!);
    const made = link
      .sent('-latch-') // answered: there is no such parent
      .then(() => link.sent(`/${entry.name}`))
      .then(() => link.hold({ fromServer: true }));
    stand({ ...entry, backend: zookeeper.urlThrough(link.endpoint) });
    await made;
    await until(
      () =>
        zookeeper.stat(`/${entry.name}`).then(
          () => true,
          () => false,
        ),
      'the parent',
    );
    await zookeeper.delete(`/${entry.name}`);
    link.heal();
    await oracle.started(1);
    oracle.verify(1);
  });

  test('a standby whose znode is deleted stands in line again, and leads in the end', async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle);
    const [leader, standby] = await standInLine(oracle, entry, entry);
    const [, seat] = await zookeeper.line(entry.name);
    await zookeeper.delete(seat!);
    await until(async () => {
      const [, other] = await zookeeper.line(entry.name);
      return other !== undefined && other !== seat;
    }, 'another znode');
    await runsUntouched(leader!, oracle);
    leader!.kill('SIGTERM');
    await standby!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('tokens grow although the line, its parent and its counter were deleted, and the server started anew', async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle);
    const first = stand(entry);
    await oracle.started(1);
    const [seat] = await zookeeper.line(entry.name);
    await zookeeper.delete(seat!);
    expect((await first.ended).code).toBe(LOST);
    await zookeeper.vanished(`/${entry.name}`); // an empty container
    const second = stand(entry);
    await oracle.started(2);
    second.kill('SIGTERM');
    await second.ended;
    await zookeeper.vanished(`/${entry.name}`);
    const third = stand(entry);
    await oracle.started(3);
    third.kill('SIGTERM');
    await third.ended;
    await zookeeper.members[0]!.kill();
    await zookeeper.heal();
    stand(entry);
    await oracle.started(4);
    oracle.verify(4);
  });

  test('a hand-over wakes the next in line, and nobody else', async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle, LONG);
    const line = await standInLine(oracle, entry, entry, entry, entry, entry);
    const seats = await zookeeper.line(entry.name);
    const sessions = await Promise.all(seats.map(async (seat) => (await zookeeper.stat(seat)).ephemeralOwner));
    for (const seat of seats.slice(0, -1)) await zookeeper.watched(seat, 2); // by its own candidate and by the next
    await zookeeper.watched(seats.at(-1)!, 1);
    const packets = () => Promise.all(sessions.slice(2).map((session) => zookeeper.packetsFrom(session)));
    const before = await packets();
    line[0]!.kill('SIGTERM');
    await line[0]!.ended;
    await oracle.started(2);
    expect(await packets()).toEqual(before);
    oracle.verify(2);
  });

  test("a candidate to whom ZooKeeper cannot give a number of its own is refused, until the election's znode is made anew", async () => {
    const oracle = new Oracle();
    const entry = entryFor(oracle, ['--ttl', '20s']);
    await zookeeper.create(`/${entry.name}`);
    const [server] = zookeeper.members;
    // A server that starts writes a snapshot.
    await server!.kill();
    await zookeeper.heal();
    await server!.kill();
    setChildCounter(zookeeper.dataOf(0), `/${entry.name}`, 2 ** 31 - 2);
    await zookeeper.heal();
    const [last] = await standInLine(oracle, entry);
    const refused = stand(entry);
    expect((await refused.ended).code).toBe(64);
    expect(refused.stderr).toContain(`/${entry.name} cannot number any more candidates; remove it while nobody stands`);
    await zookeeper.inLine(entry.name, 1);
    last!.kill('SIGTERM');
    await last!.ended;
    await zookeeper.delete(`/${entry.name}`);
    stand(entry);
    await oracle.started(2);
    oracle.verify(2);
  });
});

describeWith(['zookeeper', 'flock'], 'zookeeper: a session that goes on with another server', () => {
  leaveNothingBehind();
  let zookeeper: ZooKeeper;
  beforeAll(async () => {
    zookeeper = await ZooKeeper.start({ members: 3 });
  });

  test.each([
    ['is reset', true],
    ['goes silent', false],
  ])('the child runs on with its place and its session when its connection %s', async (_, isReset) => {
    const oracle = new Oracle();
    const link = await Link.start(zookeeper.endpoints[0]!);
    const backend = zookeeper.urlThrough([link.endpoint, ...zookeeper.endpoints.slice(1)].join(','));
    const flags = ['--ttl', '20s', '--renew-every', '2s'];
    const entry = { backend, name: newElection(), job: oracle.job(), flags };
    const [leader, next] = await standInLine(oracle, entry, { ...entry, backend: zookeeper.url });
    const line = async () => {
      const seats = await zookeeper.line(entry.name);
      return Promise.all(seats.map(async (seat) => [seat, (await zookeeper.stat(seat)).ephemeralOwner]));
    };
    const before = await line();
    link.hold();
    if (isReset) link.reset();
    await renewals(leader!, 2);
    link.heal(); // what was on its way arrives late
    await runsUntouched(leader!, oracle);
    expect(await line()).toEqual(before);
    leader!.kill('SIGTERM');
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});

describeWith(['zookeeper', 'flock'], 'zookeeper: sessions that are shortened', () => {
  leaveNothingBehind();

  test('child is gone before the next one starts when its session is shortened by a restart, and cut off at once', async () => {
    const zookeeper = await ZooKeeper.start();
    const oracle = new Oracle();
    const link = await Link.start(zookeeper.endpoints[0]!);
    const entry = { name: newElection(), job: oracle.job() };
    const [leader, next] = await standInLine(
      oracle,
      { ...entry, backend: zookeeper.urlThrough(link.endpoint), flags: ['--ttl', '20s', '--renew-every', '6s'] },
      { ...entry, backend: zookeeper.url, flags: ['--ttl', '5s'] },
    );
    await zookeeper.members[0]!.kill();
    zookeeper.limitSessions(7000);
    const known = link.sent('-latch-').then(() => link.hold());
    await zookeeper.heal();
    await known;
    expect((await leader!.event('deposed')).reason).toContain('shortened from 22.5s to 7s');
    await next!.event('started');
    await oracle.started(2);
    expect((await leader!.ended).code).toBe(LOST);
    oracle.verify(2);
  });
});
