import { beforeAll, expect, onTestFinished, test } from 'vitest';
import type { Elect } from '../helpers/elect.ts';
import { Etcd } from '../helpers/etcd.ts';
import { WallClock } from '../helpers/faketime.ts';
import { describeWith } from '../helpers/needs.ts';
import { Oracle } from '../helpers/oracle.ts';
import { until } from '../helpers/procs.ts';
import { leaveNothingBehind, newElection, runsUntouched, standInLine } from './candidates.ts';

const HOUR = 3600;

/** Until the candidate itself dates an event so: the step has arrived. */
const livesAt = (candidate: Elect, offsetSeconds: number) =>
  until(() => {
    const offset = (Date.parse(candidate.events.at(-1)!.time) - Date.now()) / 1000;
    return Math.abs(offset - offsetSeconds) < HOUR / 10;
  }, `an event at ${offsetSeconds} s`);

describeWith(['etcd', 'etcdctl', 'flock', 'faketime'], 'the wall clock is stepped', () => {
  leaveNothingBehind();
  let etcd: Etcd;
  beforeAll(async () => {
    etcd = await Etcd.start();
  });

  function newClock(): WallClock {
    const clock = new WallClock();
    onTestFinished(() => clock.remove());
    return clock;
  }

  test.each([
    ['forwards', HOUR],
    ['backwards', -HOUR],
  ])('the child runs on and its lease is renewed when the clock goes an hour %s', async (_, offset) => {
    const oracle = new Oracle();
    const clock = newClock();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job() };
    const [leader] = await standInLine(oracle, { ...entry, env: clock.env }, entry);
    for (const step of [offset, 0]) {
      clock.step(step);
      await livesAt(leader!, step);
      await runsUntouched(leader!, oracle);
    }
  });

  test.each([
    ['forwards', HOUR],
    ['backwards', -HOUR],
  ])('a standby keeps its place in line, and leads in its turn, when the clock goes an hour %s', async (_, offset) => {
    const oracle = new Oracle();
    const clock = newClock();
    const entry = { backend: etcd.url, name: newElection(), job: oracle.job() };
    const [leader, standby] = await standInLine(oracle, entry, { ...entry, env: clock.env });
    const [, seat] = await etcd.line(entry.name);
    clock.step(offset);
    await runsUntouched(leader!, oracle);
    await runsUntouched(leader!, oracle);
    expect((await etcd.line(entry.name))[1]).toEqual(seat);
    leader!.kill('SIGTERM');
    await standby!.event('started');
    await oracle.started(2);
    oracle.verify(2);
  });
});
