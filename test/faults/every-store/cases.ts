import { uptime } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { describeWith } from '../../helpers/needs.ts';
import { Oracle } from '../../helpers/oracle.ts';
import { processorMs, until } from '../../helpers/procs.ts';
import { Link } from '../../helpers/proxy.ts';
import {
  type Entry,
  guardOf,
  LOST,
  leaveNothingBehind,
  newElection,
  ROOMY,
  renewals,
  runsUntouched,
  SHORT,
  stand,
  standInLine,
  TTL_MS,
  typesOf,
} from '../candidates.ts';
import type { FaultyStore, FaultyStoreKind } from './stores.ts';

const TAKE_OVER_MS = 1000;

/** What has to hold with every store, with faults that are really injected. */
export function holdsWith(kind: FaultyStoreKind): void {
  describeWith([...kind.needs, 'flock'], `faults with ${kind.name}`, () => {
    leaveNothingBehind();
    let store: FaultyStore;
    beforeAll(async () => {
      store = await kind.start();
    });
    afterEach(() => store?.heal());

    const entryFor = (oracle: Oracle, more: Partial<Entry> = {}): Entry => ({
      ...store.through(store.endpoint),
      name: newElection(),
      job: oracle.job(),
      flags: SHORT,
      ...more,
    });

    test('after kill -9 of elect-run the next child starts within 1 s, with a ttl of 60 s', async () => {
      const oracle = new Oracle();
      const entry = entryFor(oracle, { flags: ['--ttl', '60s'] });
      const line = await standInLine(oracle, entry, entry, entry);
      for (const fallen of [1, 2]) {
        const leader = await until(
          () => line.find((one) => one.process.exitCode === null && typesOf(one).includes('started')),
          'a leader',
        );
        const killedAt = uptime() * 1000;
        leader.kill('SIGKILL');
        const next = await oracle.started(fallen + 1);
        expect(next.at - killedAt, 'from kill -9 to the next start').toBeLessThan(TAKE_OVER_MS);
        await leader.ended;
        line.splice(line.indexOf(leader), 1);
      }
      oracle.verify(3);
    });

    test('kill -9 of elect-run and of its guard at once: nobody is at work when the next child starts', async () => {
      const oracle = new Oracle();
      const entry = entryFor(oracle, { job: oracle.job('escapes') });
      const [leader] = await standInLine(oracle, entry, entry);
      await oracle.escaped(1);
      const guard = await guardOf(leader!);
      leader!.kill('SIGSTOP'); // so that it cannot notice
      process.kill(guard, 'SIGKILL');
      leader!.kill('SIGKILL');
      await oracle.started(2);
      oracle.verify(2);
    });

    test.each(['plain', 'escapes'] as const)(
      'SIGSTOP of elect-run for three ttls: its child (%s) is gone before the next one starts, and after SIGCONT it ends with 79',
      async (conduct) => {
        const oracle = new Oracle();
        const entry = entryFor(oracle, { job: oracle.job(conduct) });
        const [leader, next] = await standInLine(oracle, entry, { ...entry, job: oracle.job() });
        if (conduct === 'escapes') await oracle.escaped(1);
        const stopped = sleep(3 * TTL_MS);
        leader!.kill('SIGSTOP');
        await next!.event('started');
        await oracle.started(2);
        await stopped;
        leader!.kill('SIGCONT');
        expect((await leader!.ended).code).toBe(LOST);
        expect(typesOf(leader!)).not.toContain('resumed');
        expect(next!.process.exitCode).toBeNull();
        oracle.verify(2);
      },
    );

    test.each([
      ['requests are dropped', { toServer: true }],
      ['replies are dropped', { fromServer: true }],
      ['all packets are dropped', { toServer: true, fromServer: true }],
    ])('child is gone before the lease expires when %s, and healing revives nothing', async (_, cut) => {
      const oracle = new Oracle();
      const link = await Link.start(store.endpoint);
      const entry = entryFor(oracle);
      const [leader, next] = await standInLine(oracle, { ...entry, ...store.through(link.endpoint) }, entry);
      link.hold(cut);
      await leader!.event('suspended');
      await next!.event('started');
      await oracle.started(2);
      link.heal();
      expect((await leader!.ended).code).toBe(LOST);
      await renewals(next!, 2);
      oracle.verify(2);
    });

    test('the child inherits stdin, stdout and stderr, and nothing else', async () => {
      const list = stand(entryFor(new Oracle(), { job: ['ls', '/proc/self/fd'] }));
      const itsOwn = '3'; // the folder that it reads
      expect((await list.ended).stdout.toString().trim().split('\n')).toEqual(['0', '1', '2', itsOwn]);
    });

    test('a blip shorter than the budget stops nothing', async () => {
      const oracle = new Oracle();
      const link = await Link.start(store.endpoint);
      const entry = entryFor(oracle, { flags: ROOMY });
      const [leader] = await standInLine(oracle, { ...entry, ...store.through(link.endpoint) }, entry);
      link.hold();
      await leader!.event('suspended');
      link.heal();
      await leader!.event('resumed');
      await runsUntouched(leader!, oracle);
    });

    test('connections that are reset stop nothing, neither the leader nor the one who waits', async () => {
      const oracle = new Oracle();
      const link = await Link.start(store.endpoint);
      const entry = entryFor(oracle, store.through(link.endpoint));
      const [leader, next] = await standInLine(oracle, entry, entry);
      for (let times = 0; times < 3; times++) {
        link.reset();
        await renewals(leader!, 1);
      }
      const [usedMs, since] = [processorMs(leader!.pid), performance.now()];
      await runsUntouched(leader!, oracle);
      expect(processorMs(leader!.pid) - usedMs, 'time on a processor').toBeLessThan(0.25 * (performance.now() - since));
      leader!.kill('SIGTERM');
      await next!.event('started');
      await oracle.started(2);
      oracle.verify(2);
    });

    test.each(['plain', 'escapes'] as const)(
      'child (%s) is gone when the store is frozen past the ttl, and after thawing the next one starts',
      async (conduct) => {
        const oracle = new Oracle();
        const entry = entryFor(oracle, { job: oracle.job(conduct) });
        const [leader, next] = await standInLine(oracle, entry, { ...entry, job: oracle.job() });
        await store.freeze();
        expect((await leader!.ended).code).toBe(LOST);
        expect(oracle.workers()).toEqual([]);
        store.thaw();
        await next!.event('started');
        await oracle.started(2);
        oracle.verify(2);
      },
    );

    test('a quick restart of the store stops nothing', async () => {
      const oracle = new Oracle();
      const entry = entryFor(oracle, { flags: ['--ttl', '40s', '--renew-every', '1s'] });
      const [leader, next] = await standInLine(oracle, entry, entry);
      await store.kill();
      await store.heal();
      await runsUntouched(leader!, oracle);
      leader!.kill('SIGTERM');
      await next!.event('started');
      await oracle.started(2);
      oracle.verify(2);
    });

    test('child is gone when the store stays away, and once it is back the next one starts', async () => {
      const oracle = new Oracle();
      const entry = entryFor(oracle);
      const [leader, next] = await standInLine(oracle, entry, entry);
      await store.kill();
      expect((await leader!.ended).code).toBe(LOST);
      expect(oracle.workers()).toEqual([]);
      await store.heal();
      await next!.event('started');
      await oracle.started(2);
      await renewals(next!, 1);
      oracle.verify(2);
    });

    test('a leader from whom the store takes the leadership ends with 79, and the next token is larger', async () => {
      const oracle = new Oracle();
      const entry = entryFor(oracle);
      const leader = stand(entry);
      await oracle.started(1);
      await store.depose(entry.name);
      expect((await leader.ended).code).toBe(LOST);
      expect(oracle.workers()).toEqual([]);
      stand(entry);
      await oracle.started(2);
      oracle.verify(2);
    });

    test('a server that accepts connections and never answers: --no-wait gives up with 69', async () => {
      const oracle = new Oracle();
      const link = await Link.start(store.endpoint);
      link.hold();
      const candidate = stand(entryFor(oracle, { ...store.through(link.endpoint), flags: ['--no-wait'] }));
      expect((await candidate.ended).code).toBe(69);
      oracle.verify(0);
    });
  });
}
