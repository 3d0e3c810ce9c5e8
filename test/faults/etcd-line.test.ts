import { beforeAll, expect, onTestFinished, test } from 'vitest';
import { Gone } from '../../src/backend.ts';
import { EtcdBackend } from '../../src/backends/etcd.ts';
import { within } from '../../src/clock.ts';
import { Etcd } from '../helpers/etcd.ts';
import { describeWith } from '../helpers/needs.ts';
import { until } from '../helpers/procs.ts';
import { Link, stopLinks } from '../helpers/proxy.ts';

describeWith(['etcd', 'etcdctl'], 'the line in etcd', () => {
  let etcd: Etcd;
  let elections = 0;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  const soon = () => within(5000);

  function open(election: string, id: string, endpoints = etcd.endpoints): EtcdBackend {
    const spec = { kind: 'etcd' as const, endpoints, tls: undefined, auth: undefined };
    const backend = new EtcdBackend(spec, { election, id, ttlMs: 60_000, requestMs: 5000 });
    onTestFinished(() => backend[Symbol.asyncDispose]());
    return backend;
  }

  /** All of them in the line of a new election, in this order; the first one leads. */
  async function lineOf(...ids: string[]) {
    const election = `line-${elections++}`;
    const line = [];
    for (const id of ids) {
      const backend = open(election, id);
      const place = backend.newPlace();
      line.push({ backend, place, standing: await backend.acquire(place, soon()) });
    }
    return { election, line };
  }

  type Candidacy = Awaited<ReturnType<typeof lineOf>>['line'][number];
  const vacancy = ({ backend, place, standing }: Candidacy) => {
    if (standing.leads) throw new Error('it leads');
    return backend.vacancy(place, standing, soon());
  };

  test('when the whole line is deleted at once, nobody in it leads', async () => {
    const { election, line } = await lineOf('first', 'second', 'third');
    const vacancies = line.slice(1).map(vacancy);
    await etcd.etcdctl('del', '--prefix', `${election}/`);
    await Promise.all(vacancies);
    for (const { backend, place } of line.slice(1)) {
      const lead = async () => {
        if ((await backend.acquire(place, soon())).leads) await backend.confirm(place, soon());
      };
      await expect(lead()).rejects.toThrow(Gone);
    }
  });

  test('the one who is next leads by the read that confirms it; who comes after looks at the line again', async () => {
    const { line } = await lineOf('first', 'second', 'third');
    const [first, second, third] = line as [Candidacy, Candidacy, Candidacy];
    const [nextToLead, behind] = [vacancy(second), vacancy(third)];
    await first.backend.release(first.place, soon());
    await nextToLead;
    expect(await second.backend.acquire(second.place, soon())).toEqual({ leads: true });
    const token = await second.backend.confirm(second.place, soon());
    await second.backend.release(second.place, soon());
    await behind;
    // The one whom it saw ahead was not the first then.
    expect(await third.backend.acquire(third.place, soon())).toEqual({ leads: true });
    expect(await third.backend.confirm(third.place, soon())).toBeGreaterThan(token);
  });

  test('a place that was taken is not filled before its leader can have ended its command; one that was given back is, at once', async () => {
    for (const [how, atLeastMs, atMostMs] of [
      ['revoke', 200, 1000],
      ['delete', 200, 1000],
      ['release', 0, 150],
    ] as const) {
      const { line } = await lineOf('first', 'second');
      const [first, second] = line as [Candidacy, Candidacy];
      await first.backend.confirm(first.place, soon());
      const { key, lease } = first.place.handle!;
      const vacant = vacancy(second);
      if (how === 'release') await first.backend.release(first.place, soon());
      else if (how === 'delete') await etcd.etcdctl('del', key);
      else await etcd.etcdctl('lease', 'revoke', BigInt(lease).toString(16));
      await vacant;
      const vacantAt = performance.now();
      expect(await second.backend.acquire(second.place, soon())).toEqual({ leads: true });
      const tookMs = performance.now() - vacantAt;
      expect(tookMs, how).toBeGreaterThan(atLeastMs - 2);
      expect(tookMs, how).toBeLessThan(atMostMs);
    }
  });

  /** As a guard does whose elect-run was killed: all that it knows is the handle. */
  const cleanUpAfter = (election: string, { place }: Candidacy) =>
    open(election, 'the guard').release({ ttlMs: undefined, handle: place.handle } as Candidacy['place'], soon());

  test('a guard gives the place of a leader back, and the next one leads at once', async () => {
    const { election, line } = await lineOf('first', 'second');
    const [first, second] = line as [Candidacy, Candidacy];
    await first.backend.confirm(first.place, soon());
    const observer = open(election, 'observer');
    await expect.poll(async () => (await observer.observe(soon())).leader?.token).toBeDefined();
    const vacant = vacancy(second);
    await cleanUpAfter(election, first);
    await vacant;
    const vacantAt = performance.now();
    expect(await second.backend.acquire(second.place, soon())).toEqual({ leads: true });
    expect(performance.now() - vacantAt).toBeLessThan(150);
  });

  test('who is killed while it waits for a deposed leader to end its command leaves the rest of the wait to the next one', async () => {
    const { election, line } = await lineOf('first', 'second', 'third');
    const [first, second, third] = line as [Candidacy, Candidacy, Candidacy];
    await first.backend.confirm(first.place, soon());
    const [secondFree, thirdFree] = [vacancy(second), vacancy(third)];
    await etcd.etcdctl('lease', 'revoke', BigInt(first.place.handle!.lease).toString(16));
    const takenAt = performance.now();
    await secondFree;
    const killed = new AbortController();
    const waits = second.backend.acquire(second.place, killed.signal).catch(() => {});
    killed.abort();
    await waits;
    await cleanUpAfter(election, second);
    await thirdFree;
    expect(await third.backend.acquire(third.place, soon())).toEqual({ leads: true });
    expect(performance.now() - takenAt).toBeGreaterThan(198);
  });

  test('who stood behind another one does not lead when that one leaves', async () => {
    const { line } = await lineOf('first', 'second', 'third');
    const [, second, third] = line as [Candidacy, Candidacy, Candidacy];
    const behind = vacancy(third);
    await second.backend.release(second.place, soon());
    await behind;
    expect(await third.backend.acquire(third.place, soon())).toMatchObject({
      leads: false,
      leader: 'first',
      position: 2,
    });
  });

  test('whose own place was taken along with that of the leader waits as well where it finds nobody ahead', async () => {
    const { election, line } = await lineOf('first', 'second');
    const { backend, place } = line[1]!;
    const takenAt = performance.now();
    await etcd.etcdctl('del', '--prefix', `${election}/`);
    await expect(backend.acquire(place, soon())).rejects.toThrow(Gone);
    const again = backend.newPlace();
    expect(await backend.acquire(again, soon())).toEqual({ leads: true });
    expect(performance.now() - takenAt).toBeGreaterThan(198);
    // That is over then. Its disk may be slow for once.
    const tookMs: number[] = [];
    for (let last = again; tookMs.length < 3; ) {
      await backend.release(last, soon());
      const givenBackAt = performance.now();
      last = backend.newPlace();
      expect(await backend.acquire(last, soon())).toEqual({ leads: true });
      tookMs.push(performance.now() - givenBackAt);
    }
    expect(Math.min(...tookMs)).toBeLessThan(150);
  });

  test('a token that could not be told to observers is told with a renewal', async () => {
    const link = await Link.start(etcd.endpoints[0]!);
    onTestFinished(stopLinks);
    const election = `line-${elections++}`;
    const backend = open(election, 'first', [link.endpoint]);
    const place = backend.newPlace();
    await backend.acquire(place, soon());
    const token = await backend.confirm(place, soon());
    const told = link.sent('"since"');
    link.hold({ toServer: true });
    await told;
    link.reset();
    link.heal();
    await expect.poll(() => backend.renew(place, soon()).catch(() => 0)).toBeGreaterThan(0);
    const observer = open(election, 'observer');
    await expect.poll(async () => (await observer.observe(soon())).leader?.token).toBe(String(token));
  });

  test('a lease that is over before its key was put is a place that is gone, and a new one leads', async () => {
    const link = await Link.start(etcd.endpoints[0]!, 100);
    onTestFinished(stopLinks);
    const backend = open(`line-${elections++}`, 'first', [link.endpoint]);
    const place = backend.newPlace();
    const entering = new AbortController();
    const attempt = backend.acquire(place, entering.signal);
    attempt.catch(() => {});
    const { lease } = await until(() => place.handle, 'an answer to the grant');
    link.hold({ toServer: true }); // its key is under way
    entering.abort(new Error('given up'));
    await expect(attempt).rejects.toThrow('given up');
    await etcd.etcdctl('lease', 'revoke', BigInt(lease).toString(16));
    link.heal();
    await expect(backend.acquire(place, soon())).rejects.toThrow(Gone);
    expect(await backend.acquire(backend.newPlace(), soon())).toEqual({ leads: true });
  });
});
