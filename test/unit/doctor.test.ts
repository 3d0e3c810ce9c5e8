import { describe, expect, test } from 'vitest';
import type { EtcdMember } from '../../src/backends/etcd/health.ts';
import { advise, whatIsTooShort } from '../../src/doctor/advice.ts';
import { percentilesOf } from '../../src/doctor/percentiles.ts';
import {
  judgeExpiry,
  judgeHealth,
  judgePauses,
  judgeRoundTrips,
  judgeTiming,
  judgeValidity,
} from '../../src/doctor/policy.ts';
import { scratchName } from '../../src/doctor/scratch.ts';
import { planTiming } from '../../src/timing.ts';

const NEED = { p99Ms: 5, pauseMs: 20, shortestMs: 1000 };
const DAY_MS = 86_400_000;

describe('the recommended timing', () => {
  const ttlFor = (need: Partial<typeof NEED>) => advise({ ...NEED, ...need })?.ttlMs;

  test('never goes below 3s, whatever was measured', () => {
    expect(advise({ p99Ms: 0, pauseMs: 0, shortestMs: 0 })).toMatchObject({ ttlMs: 3000, renewEveryMs: 1000 });
  });

  test('grows with the p99, with pauses, and with the shortest lease that is granted', () => {
    expect(ttlFor({ p99Ms: 500 })).toBeGreaterThan(3000);
    expect(ttlFor({ pauseMs: 10_000 })).toBe(12_000); // the margin is a tenth
    expect(ttlFor({ shortestMs: 8000 })).toBe(8000);
  });

  test.each([1, 40, 300, 900, 2000])('keeps the rule that it is measured by (p99 %d ms)', (p99Ms) => {
    for (const pauseMs of [0, 700, 9000]) {
      const need = { p99Ms, pauseMs, shortestMs: 1000 };
      const { ttlMs, renewEveryMs, marginMs, requestMs } = advise(need)!;
      expect(ttlMs).toBeGreaterThanOrEqual(Math.max(3 * renewEveryMs, 3 * p99Ms, pauseMs + marginMs));
      expect(requestMs).toBeGreaterThanOrEqual(2 * p99Ms);
    }
  });

  test('there is none for round trips longer than any request may take', () => {
    expect(ttlFor({ p99Ms: 6000 })).toBeUndefined();
    expect(judgeTiming(planTiming({ ttlMs: 15_000 }), { ...NEED, p99Ms: 6000 })).toMatchObject({ code: 69 });
  });

  test.each([
    [{ ttlMs: 10_000, renewEveryMs: 4000 }, {}, /less than 3 renewals of 4s/],
    [{ ttlMs: 3000 }, { p99Ms: 1100 }, /less than 3 round trips of 1\.1s/],
    [{ ttlMs: 3000 }, { pauseMs: 2800 }, /the longest pause of this host, 2\.8s, and the margin of 300ms/],
    [{ ttlMs: 3000 }, { p99Ms: 400 }, /a renewal has 550ms to be answered, less than 2 round trips of 400ms/],
  ])('of %o with %o it is said what is too short', (wanted, need, says) => {
    expect(whatIsTooShort(planTiming(wanted), { ...NEED, ...need })).toMatch(says);
  });

  test.each([3000, 10_000, 15_000, 45_000])('a ttl of %d ms with the default renewal keeps the rule', (ttlMs) => {
    expect(whatIsTooShort(planTiming({ ttlMs }), NEED)).toBeUndefined();
  });
});

describe('policy', () => {
  const member = (status: Partial<EtcdMember['status']>, endpoint = 'e1:2379'): EtcdMember => ({
    endpoint,
    tookMs: 1,
    problem: undefined,
    status: { cluster: '1', leader: '7', version: '3.5.0', databaseBytes: 0, isLearner: false, errors: [], ...status },
  });
  const etcd = (...members: EtcdMember[]) => judgeHealth({ kind: 'etcd', members, size: members.length });

  test('an etcd that is full cannot be used: 69', () => {
    const alarm = 'memberID:10276657743932975437 alarm:NOSPACE ';
    expect(etcd(member({ errors: [alarm] }))).toContainEqual(
      expect.objectContaining({ check: 'alarm', code: 69, remedy: expect.stringMatching(/alarm disarm/) }),
    );
  });

  test('endpoints of two clusters are a problem: 64', () => {
    expect(etcd(member({}), member({ cluster: '2' }, 'e2:2379'))).toContainEqual(
      expect.objectContaining({ check: 'cluster', code: 64 }),
    );
  });

  test('no leader is a problem; a member that is cut off, a warning', () => {
    expect(etcd(member({ leader: '0' }))).toContainEqual(expect.objectContaining({ check: 'cluster', code: 69 }));
    expect(etcd(member({}), member({ leader: '0' }, 'e2:2379'))).toContainEqual(
      expect.objectContaining({ level: 'warning', found: 'e2:2379 knows no leader: it is cut off' }),
    );
  });

  test('a ZooKeeper that stands alone among several is a problem: 64', () => {
    const server = (mode: string) => ({ endpoint: mode, tookMs: 1, problem: undefined, mode, version: '3.8.0' });
    const servers = [server('leader'), server('standalone')];
    expect(judgeHealth({ kind: 'zookeeper', servers, longestMs: 40_000 })).toContainEqual(
      expect.objectContaining({ check: 'ensemble', code: 64 }),
    );
  });

  test.each([
    [0x6969, /on NFS/],
    [0x794c7630, /overlay of a container/],
  ])('a directory on file system %d is warned of', (fileSystem, says) => {
    const health = { kind: 'file', dir: '/locks', isThere: true, fileSystem, freeBytes: 1e9, hasFlock: true } as const;
    expect(judgeHealth(health)).toContainEqual(
      expect.objectContaining({ level: 'warning', found: expect.stringMatching(says) }),
    );
  });

  test('a lease that was given away before its end is a problem', () => {
    expect(judgeExpiry({ isSeen: true, shortestMs: 1000, lateMs: -20 })).toMatchObject({ level: 'problem', code: 64 });
    expect(judgeExpiry({ isSeen: true, shortestMs: 1000, lateMs: 20 })).toMatchObject({ level: 'ok' });
  });

  test('certificates are warned of two weeks before their end', () => {
    const levelAfter = (days: number) => judgeValidity('it', Date.now() + days * DAY_MS)[0]!.level;
    expect([levelAfter(-1), levelAfter(13), levelAfter(15)]).toEqual(['warning', 'warning', 'ok']);
  });

  test('steal, throttling and a step of the clock are warned of', () => {
    const late = percentilesOf([1]);
    expect(
      judgePauses({ late, stolen: 0.2, throttled: 3, stepMs: -5000 }).map(({ found, level }) => [level, found]),
    ).toEqual([
      ['ok', 'timers were late by 1ms (p99), 1ms at the most'],
      ['warning', 'the hypervisor gave 20% of our processors to others (steal)'],
      ['warning', 'our cgroup was out of processor time 3 times'],
      ['warning', 'was set back by 5s while we measured'],
    ]);
  });

  test('requests without an answer are counted; none with one is a problem: 69', () => {
    const lost = { unanswered: 2, reason: 'no answer in time' };
    expect(judgeRoundTrips({ took: percentilesOf([1, 2]), ...lost }, 'renewals')).toMatchObject([{ level: 'warning' }]);
    expect(judgeRoundTrips({ took: percentilesOf([]), ...lost }, 'renewals')).toMatchObject([{ code: 69 }]);
  });
});

test('percentiles are values that were measured', () => {
  const samples = Array.from({ length: 100 }, (_, index) => 100 - index);
  expect(percentilesOf(samples)).toEqual({ count: 100, p50Ms: 50, p99Ms: 99, maxMs: 100 });
  expect(percentilesOf([7])).toEqual({ count: 1, p50Ms: 7, p99Ms: 7, maxMs: 7 });
});

test('the scratch election has a name that every store can hold, next to the given one', () => {
  expect(scratchName('jobs/x')).toMatch(/^jobs\/x\.doctor-[0-9a-f]{8}$/);
  for (const long of ['x'.repeat(200), `x${'ü'.repeat(99)}`, `${'x'.repeat(179)}-${'y'.repeat(20)}`]) {
    const name = scratchName(long);
    expect(Buffer.byteLength(name)).toBeLessThanOrEqual(200); // the file backend's limit, the lowest
    expect(name).not.toMatch(/\ufffd|[-./]\.doctor/);
  }
});
