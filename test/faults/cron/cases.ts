import { afterEach, beforeAll, expect, test } from 'vitest';
import { type Elect, elect } from '../../helpers/elect.ts';
import { WallClock } from '../../helpers/faketime.ts';
import { describeWith } from '../../helpers/needs.ts';
import { Oracle } from '../../helpers/oracle.ts';
import { until } from '../../helpers/procs.ts';
import { Link } from '../../helpers/proxy.ts';
import { leaveNothingBehind, newElection } from '../candidates.ts';
import type { CronStore, CronStoreKind } from './stores.ts';

const TIMING = ['--profile', 'aggressive', '--grace', '500ms'];
/** Soon, so that servers' certificates are still valid then. */
const MIDNIGHT = `${new Date(Date.now() + 86_400_000).toISOString().slice(0, 10)}T00:00:00Z`;
const SLOT_MS = 10_000;
/** How far the clocks of the hosts are from the true time. */
const SKEWS_S = [4, 0, -4];

/** How far a clock is ahead that shows, at this moment, so many seconds before or after midnight. */
const offsetTo = (secondsAfterMidnight: number): number =>
  (Date.parse(MIDNIGHT) - Date.now()) / 1000 + secondsAfterMidnight;

const inMs = (durationMs: number) => new Promise((resolve) => setTimeout(resolve, durationMs));

/** What a schedule promises, on several hosts with clocks of their own. */
export function slotsHoldWith(kind: CronStoreKind): void {
  describeWith([...kind.needs, 'flock', 'faketime'], `schedules on ${kind.name}`, () => {
    leaveNothingBehind();
    let store: CronStore;
    const clocks: WallClock[] = [];
    beforeAll(async () => {
      store = await kind.start();
    });
    afterEach(async () => {
      await store?.heal();
      for (const clock of clocks.splice(0)) clock.remove();
    });

    interface Host {
      /** What its clock differs from the real one by, in seconds. */
      offset: number;
      access?: ReturnType<CronStore['access']>;
    }
    const start = (name: string, { offset, access = store.access() }: Host, flags: string[], job: string[]): Elect => {
      const clock = new WallClock();
      clocks.push(clock);
      clock.step(offset);
      // Without libfaketime the job's own processes start faster.
      const env = { ...access.env, ...clock.env };
      return elect(
        ['-v', '--backend', access.backend, '--name', name, '--timezone', 'UTC', ...TIMING, ...flags, '--', ...job],
        { env },
      );
    };

    test('a short job at midnight: hosts whose clocks differ by 8 s run it once, and the others say who did', async () => {
      const oracle = new Oracle();
      const name = newElection();
      const flags = ['--once-per', '0 0 * * *'];
      const trueOffset = offsetTo(-4.5);
      // Each starts when its own clock shows midnight; one of them a second before that.
      const hosts = await Promise.all(
        [...SKEWS_S, 3].map(async (skew, index) => {
          const early = index === 3 ? 1 : 0;
          await inMs((4.5 - skew - early) * 1000);
          return start(name, { offset: trueOffset + skew }, flags, oracle.job('works', 0.2)).ended;
        }),
      );
      oracle.verifySlots([MIDNIGHT]);
      expect(hosts.map(({ code }) => code)).toEqual([0, 0, 0, 0]);
      const [run] = oracle.done();
      const told = hosts.filter(({ stderr }) => stderr.includes('"event":"slot-settled"'));
      expect(told).toHaveLength(3);
      for (const { stderr } of told) expect(stderr).toContain(`"holder":"${run!.who}","token":"${run!.token}"`);
    });

    test('a long job whose leader is killed is run once more by the next host, and by nobody else', async () => {
      const oracle = new Oracle();
      const name = newElection();
      const flags = ['--once-per', '0 0 * * *'];
      const hosts: Elect[] = [];
      for (const skew of SKEWS_S) {
        const seconds = hosts.length === 0 ? 60 : 0.5;
        hosts.push(start(name, { offset: offsetTo(0) + skew }, flags, oracle.job('works', seconds)));
        if (hosts.length === 1) await oracle.started(1);
      }
      await Promise.all(hosts.slice(1).map((host) => host.event('standby')));
      hosts[0]!.kill('SIGKILL');
      const ends = await Promise.all(hosts.slice(1).map((host) => host.ended));
      expect(ends.map(({ code }) => code)).toEqual([0, 0]);
      oracle.verify(2);
      oracle.verifySlots([MIDNIGHT]);
    });

    test('--rerun never: a slot that was cut off is settled', async () => {
      const oracle = new Oracle();
      const name = newElection();
      const flags = ['--once-per', '0 0 * * *', '--rerun', 'never'];
      const first = start(name, { offset: offsetTo(0) }, flags, oracle.job('works', 60));
      await oracle.started(1);
      first.kill('SIGKILL');
      await first.ended;
      expect((await start(name, { offset: offsetTo(0) }, flags, oracle.job('works', 60)).ended).code).toBe(0);
      oracle.verify(1);
    });

    test('--schedule: each slot has one completed run, through a crash and a partition in mid-run', async () => {
      const oracle = new Oracle();
      const name = newElection();
      const flags = ['--schedule', '*/10 * * * * *', '--on-lost', 'rejoin'];
      const trueOffset = offsetTo(2.5);
      const links =
        store.endpoint === undefined ? [] : await Promise.all(SKEWS_S.map(() => Link.start(store.endpoint!)));
      const hosts: Elect[] = [];
      for (const [index, skew] of SKEWS_S.entries()) {
        const link = links[index];
        const access = store.access(link?.endpoint);
        hosts.push(start(name, { offset: trueOffset + skew, access }, flags, oracle.job('works', 4)));
        await hosts.at(-1)!.event(index === 0 ? 'elected' : 'standby');
      }
      const leaderOf = (who: string) =>
        hosts.findIndex((host) => host.events.some(({ event, id }) => event === 'campaigning' && id === who));
      const done = (count: number) => until(() => oracle.done().length >= count, `${count} runs are done`, 40_000);
      const started = async (count: number) => leaderOf((await oracle.started(count, 40_000)).who);

      await done(1);
      hosts[await started(2)]!.kill('SIGKILL'); // the crash, in the second slot
      await done(2);
      const cutOff = await started(4); // in the third slot
      links[cutOff]?.hold();
      if (!links[cutOff]) hosts[cutOff]!.kill('SIGKILL'); // a local file cannot be cut off
      await done(3);
      links[cutOff]?.heal();
      await done(4);
      oracle.verify(6);
      const first = Date.parse(oracle.done()[0]!.slot);
      const expected = [0, 1, 2, 3].map((step) => new Date(first + step * SLOT_MS).toISOString().replace('.000Z', 'Z'));
      oracle.verifySlots(expected);
    }, 120_000);
  });
}
