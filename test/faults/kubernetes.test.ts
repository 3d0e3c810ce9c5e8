import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, expect, onTestFinished, test } from 'vitest';
import { Front } from '../helpers/front.ts';
import { Kubernetes, type User } from '../helpers/kubernetes.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { signal, until } from '../helpers/procs.ts';
import { Link } from '../helpers/proxy.ts';
import {
  type Entry,
  LOST,
  leaveNothingBehind,
  newElection,
  ROOMY,
  renewals,
  runsUntouched,
  SHORT,
  stand,
  standInLine,
} from './candidates.ts';

const NEEDS = ['kubeApiserver', 'etcd', 'etcdctl', 'openssl', 'flock'] as const;
const LONG = ['--ttl', '60s'];
const CANDIDATE = fileURLToPath(new URL('../natives/client-go-candidate.mjs', import.meta.url));

async function frontOf(kubernetes: Kubernetes): Promise<Front> {
  const front = await Front.start(kubernetes);
  onTestFinished(() => front.stop());
  return front;
}

function inElection(kubernetes: Kubernetes, oracle: Oracle, user: User = 'app') {
  const env = { KUBECONFIG: kubernetes.kubeconfig(user) };
  return { backend: kubernetes.url, name: newElection(), job: oracle.job(), env } satisfies Entry;
}

describeWith([...NEEDS], 'an operator and the Lease', () => {
  leaveNothingBehind();
  let kubernetes: Kubernetes;
  beforeAll(async () => {
    kubernetes = await Kubernetes.start();
  });

  test('a standby that watches the Lease ends with 128+n when it is signalled', async () => {
    const oracle = new Oracle();
    const flags = ['--ttl', '15s', '--renew-every', '300ms'];
    const [leader, ...standbys] = await standInLine(
      oracle,
      ...Array.from({ length: 4 }, () => ({ ...inElection(kubernetes, oracle), name: 'watched', flags })),
    );
    await renewals(leader!, 3); // by then each has its watch
    for (const standby of standbys) {
      standby.kill('SIGTERM');
      expect(await standby.ended).toMatchObject({ code: 128 + 15 });
    }
  });

  const EDITS: [string, (name: string) => Promise<unknown>][] = [
    ['is deleted', (name) => kubernetes.delete(name)],
    ['loses its holder', (name) => kubernetes.edit(name, { spec: { holderIdentity: null } })],
    ['is given an empty holder', (name) => kubernetes.edit(name, { spec: { holderIdentity: '' } })],
  ];

  test.each(
    EDITS.flatMap(([what, edit]) =>
      (['plain', 'ignores-term', 'escapes', 'escapes-without-environment'] as const).map(
        (conduct) => [conduct, what, edit] as const,
      ),
    ),
  )('child (%s) is gone before the next one starts when the Lease %s', async (conduct, _, edit) => {
    const oracle = new Oracle();
    const entry = inElection(kubernetes, oracle);
    const [leader, next] = await standInLine(oracle, { ...entry, job: oracle.job(conduct) }, entry);
    if (conduct.startsWith('escapes')) await oracle.escaped(1);
    await edit(entry.name);
    expect((await leader!.ended).code).toBe(LOST);
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('child is gone at once when the Lease is given to somebody else, and nobody starts before that one has run out', async () => {
    const oracle = new Oracle();
    const entry = inElection(kubernetes, oracle);
    const [leader, next] = await standInLine(oracle, entry, entry);
    const askedAt = performance.now(); // the next one may see it before we are answered
    await kubernetes.edit(entry.name, { spec: { holderIdentity: 'somebody', leaseDurationSeconds: 3 } });
    const editedAt = performance.now();
    const { code } = await leader!.ended;
    expect(code).toBe(LOST);
    expect(performance.now() - editedAt).toBeLessThan(1000);
    const { readAt } = await next!.event('started');
    expect(readAt - askedAt).toBeGreaterThan(2900);
    expect(readAt - editedAt).toBeLessThan(5000);
    await oracle.started(2);
    oracle.verify(2);
    const lease = await kubernetes.lease(entry.name);
    expect(lease!.spec.leaseTransitions).toBe(1);
  });

  test('child is gone when the lease is made shorter than it believes', async () => {
    const oracle = new Oracle();
    const entry = inElection(kubernetes, oracle);
    const [leader, next] = await standInLine(oracle, entry, entry);
    await kubernetes.edit(entry.name, { spec: { leaseDurationSeconds: 1 } });
    expect((await leader!.ended).code).toBe(LOST);
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('an operator who knows that the job is dead can give the Lease back, and the next one starts at once', async () => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle), flags: LONG };
    const past = '2001-01-01T00:00:00.000000Z';
    const spec = { holderIdentity: 'dead', leaseDurationSeconds: 3600, acquireTime: past, renewTime: past };
    await kubernetes.create(entry.name, spec);
    const next = stand(entry);
    await next.event('standby');
    await kubernetes.edit(entry.name, { spec: { holderIdentity: '', leaseDurationSeconds: 1 } });
    const editedAt = performance.now();
    expect((await next.event('started')).readAt - editedAt).toBeLessThan(1000);
  });

  test('what is not ours in the Lease stays, and editing it stops nothing', async () => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle), flags: SHORT };
    await kubernetes.create(entry.name, { leaseTransitions: 7 });
    await kubernetes.edit(entry.name, { metadata: { labels: { team: 'a' }, annotations: { note: 'before' } } });
    const [leader] = await standInLine(oracle, entry);
    await kubernetes.edit(entry.name, { metadata: { annotations: { note: 'after', another: '1' } } });
    await renewals(leader!, 3);
    await runsUntouched(leader!, oracle);
    leader!.kill('SIGTERM');
    await leader!.ended;
    const lease = await kubernetes.lease(entry.name);
    expect(lease).toMatchObject({
      metadata: { labels: { team: 'a' }, annotations: { note: 'after', another: '1' } },
      spec: { holderIdentity: '', leaseDurationSeconds: 1, leaseTransitions: 8 },
    });
  });

  test('renewTime moves by a second at least with each renewal, with six decimals', async () => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle), flags: ['--ttl', '3s', '--renew-every', '200ms'] };
    const [leader] = await standInLine(oracle, entry);
    const secondsOf = async () => {
      const { renewTime } = (await kubernetes.lease(entry.name))!.spec;
      expect(renewTime).toMatch(/\.\d{6}Z$/);
      return Math.floor(Date.parse(renewTime!) / 1000);
    };
    const before = await secondsOf();
    await renewals(leader!, 6); // of one we may be told only now that was in it before
    expect(await secondsOf()).toBeGreaterThanOrEqual(before + 5);
  });

  test('tokens grow across a deleted Lease, whose leaseTransitions start again', async () => {
    const oracle = new Oracle();
    const entry = inElection(kubernetes, oracle);
    for (let starts = 1; starts <= 3; starts++) {
      const leader = stand(entry);
      await oracle.started(starts);
      leader.kill('SIGTERM');
      await leader.ended;
      await kubernetes.delete(entry.name);
    }
    oracle.verify(3);
  });
});

describeWith([...NEEDS], 'a hand-over by way of a Lease', () => {
  leaveNothingBehind();
  let kubernetes: Kubernetes;
  beforeAll(async () => {
    kubernetes = await Kubernetes.start();
  });

  test.each(['app', 'unwatching'] as const)('the next one starts when the leader leaves, as user %s', async (user) => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle, user), flags: LONG };
    const [leader, next] = await standInLine(oracle, entry, entry);
    leader!.kill('SIGTERM');
    const { readAt: resignedAt } = await leader!.event('resigned');
    const { readAt: electedAt } = await next!.event('elected');
    expect(electedAt - resignedAt).toBeLessThan(user === 'app' ? 700 : 2000); // two looks of who may not watch are 750 ms apart at least
    await oracle.started(2);
    oracle.verify(2);
  });

  test('after kill -9 of elect-run the next child starts within 1 s, with a ttl of 60 s', async () => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle), flags: LONG };
    const [leader, next] = await standInLine(oracle, entry, entry);
    leader!.kill('SIGKILL');
    const killedAt = performance.now();
    expect((await next!.event('started')).readAt - killedAt).toBeLessThan(1000);
    await oracle.started(2);
    oracle.verify(2);
  });

  test('the Lease of a leader whose host died is taken over after its own duration', async () => {
    const oracle = new Oracle();
    const entry = inElection(kubernetes, oracle);
    const past = '2001-01-01T00:00:00.000000Z';
    const spec = { holderIdentity: 'dead', leaseDurationSeconds: 2, acquireTime: past, renewTime: past };
    await kubernetes.create(entry.name, spec);
    const next = stand({ ...entry, flags: LONG });
    const { time: seenAt } = await next.event('standby');
    const { time: electedAt } = await next.event('elected');
    const tookMs = Date.parse(electedAt) - Date.parse(seenAt);
    expect(tookMs).toBeGreaterThan(1900);
    expect(tookMs).toBeLessThan(3000);
  });
});

describeWith([...NEEDS], 'the API server stands still or is away', () => {
  leaveNothingBehind();
  let kubernetes: Kubernetes;
  beforeAll(async () => {
    kubernetes = await Kubernetes.start();
  });
  afterEach(() => kubernetes.heal());

  const STANDING_STILL: [string, () => Promise<void>][] = [
    ['the API server is frozen', () => kubernetes.members[0].freeze()],
    ['its etcd is frozen', () => kubernetes.etcd.members[0]!.freeze()],
    ['the API server is killed', () => kubernetes.members[0].kill()],
    ['its etcd is killed', () => kubernetes.etcd.members[0]!.kill()],
  ];

  test.each(STANDING_STILL)(
    'child is gone when %s for longer than the ttl, and then the next one starts',
    async (_, fault) => {
      const oracle = new Oracle();
      const entry = inElection(kubernetes, oracle);
      const [leader, next] = await standInLine(oracle, entry, entry);
      await fault();
      expect((await leader!.ended).code).toBe(LOST);
      expect(oracle.workers()).toEqual([]);
      await kubernetes.heal();
      await next!.event('started');
      await oracle.started(2);
      await renewals(next!, 1);
      oracle.verify(2);
    },
  );

  test('a freeze shorter than the budget stops nothing', async () => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle), flags: ROOMY };
    const [leader] = await standInLine(oracle, entry, entry);
    await kubernetes.members[0].freeze();
    await leader!.event('suspended');
    kubernetes.members[0].thaw();
    await leader!.event('resumed');
    await runsUntouched(leader!, oracle);
  });

  test('a restart of the API server stops nothing, and the hand-over works after it', async () => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle), flags: ['--ttl', '40s', '--renew-every', '1s'] };
    const [leader, next] = await standInLine(oracle, entry, entry);
    await kubernetes.members[0].kill();
    await kubernetes.heal();
    await runsUntouched(leader!, oracle);
    leader!.kill('SIGTERM');
    await next!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test.each(['POST', 'PUT'])(
    'the %s that acquires is applied and its answers are lost: the same candidate leads',
    async (method) => {
      const oracle = new Oracle();
      const front = await frontOf(kubernetes);
      const env = { KUBECONFIG: kubernetes.kubeconfig('app', { endpoint: front.endpoint }) };
      const entry = { ...inElection(kubernetes, oracle), env };
      if (method === 'PUT') await kubernetes.create(entry.name, { holderIdentity: '' });
      front.toLose[method] = 1;
      const candidate = stand(entry);
      await candidate.event('unreachable');
      await candidate.event('started');
      await oracle.started(1);
      expect(front.lost).toEqual([method === 'PUT' ? 'PUT 200' : 'POST 201']);
      await renewals(candidate, 1);
      front.toLose.PUT = 1;
      await candidate.event('suspended');
      await candidate.event('resumed');
      await runsUntouched(candidate, oracle);
    },
  );

  test('a candidate that is stopped while the answer to its acquiring write is lost leaves nothing behind', async () => {
    const oracle = new Oracle();
    const front = await frontOf(kubernetes);
    const env = { KUBECONFIG: kubernetes.kubeconfig('app', { endpoint: front.endpoint }) };
    const entry = { ...inElection(kubernetes, oracle), env, flags: LONG };
    front.toLose.POST = 1;
    const candidate = stand(entry);
    await until(() => front.lost.length === 1, 'a lost answer');
    candidate.kill('SIGTERM');
    expect((await candidate.ended).code).toBe(143);
    expect((await kubernetes.lease(entry.name))!.spec.holderIdentity).toBe('');
    oracle.verify(0);
  });

  test('child is gone when the network falls silent, before the next one starts elsewhere', async () => {
    const oracle = new Oracle();
    const link = await Link.start(kubernetes.endpoints[0]);
    const env = { KUBECONFIG: kubernetes.kubeconfig('app', { endpoint: link.endpoint }) };
    const entry = inElection(kubernetes, oracle);
    const [leader, next] = await standInLine(oracle, { ...entry, env }, entry);
    link.hold();
    expect((await leader!.ended).code).toBe(LOST);
    await next!.event('started');
    await oracle.started(2);
    link.heal();
    await renewals(next!, 2);
    oracle.verify(2);
  });
});

describeWith([...NEEDS], 'a candidate of client-go and elect-run on one Lease', () => {
  leaveNothingBehind();
  let kubernetes: Kubernetes;
  beforeAll(async () => {
    kubernetes = await Kubernetes.start();
  });

  function native(entry: Entry, identity: string): ChildProcess {
    const args = [CANDIDATE, entry.env!.KUBECONFIG!, 'default', entry.name, identity, '3', '0.5', ...entry.job];
    const candidate = spawn(process.execPath, args, { stdio: 'ignore' });
    onTestFinished(() => void candidate.kill('SIGKILL'));
    return candidate;
  }

  test.each([
    ['elect-run first', ['elect-run', 'client-go', 'elect-run', 'client-go']],
    ['client-go first', ['client-go', 'elect-run', 'client-go', 'elect-run']],
  ] as const)('never two, each has its term, with growing tokens: %s', async (_, kinds) => {
    const oracle = new Oracle();
    const entry = inElection(kubernetes, oracle);
    for (const [index, kind] of kinds.entries()) {
      if (kind === 'client-go') native(entry, `native-${index}`);
      else stand(entry);
      if (index === 0) await oracle.started(1);
    }
    for (let term = 1; term <= kinds.length; term++) signal((await oracle.started(term)).pid, 'SIGTERM');
    await until(() => oracle.workers().length === 0, 'the end of the last job');
    oracle.verify(kinds.length);
    const lease = await kubernetes.heldBy(entry.name, '');
    expect(lease.spec.leaseTransitions).toBe(kinds.length - 1);
  });

  test('a client-go candidate that stands by does not take over from an elect-run that renews, however often', async () => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle), flags: ['--ttl', '3s', '--renew-every', '300ms'] };
    const leader = stand(entry);
    await oracle.started(1);
    native(entry, 'native');
    await renewals(leader, 15);
    await runsUntouched(leader, oracle);
  });

  test('elect-run takes over from a client-go candidate that was killed, when its lease has run out', async () => {
    const oracle = new Oracle();
    const entry = inElection(kubernetes, oracle);
    const first = native(entry, 'native');
    const { pid } = await oracle.started(1);
    const next = stand(entry);
    await next.event('standby');
    first.kill('SIGKILL');
    await once(first, 'exit');
    signal(pid, 'SIGKILL');
    await next.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });

  test('client-go takes over from an elect-run that was killed, once its guard has ended the job', async () => {
    const oracle = new Oracle();
    const entry = { ...inElection(kubernetes, oracle), flags: LONG };
    const leader = stand(entry);
    await oracle.started(1);
    native(entry, 'native');
    leader.kill('SIGKILL');
    await oracle.started(2); // its ttl is longer than we wait
    oracle.verify(2);
  });
});
