import { describe, expect, test } from 'vitest';
import { Failure } from '../../src/outcome.ts';
import { longestNapMs, PROFILES, planTiming } from '../../src/timing.ts';

describe('the budget', () => {
  test.each(Object.entries(PROFILES))(
    'fits for profile %s: a renewal and its retry end before the child has to be stopped',
    (_, profile) => {
      const { ttlMs, renewEveryMs, requestMs, graceMs, marginMs } = planTiming(profile);
      expect(renewEveryMs + 2 * requestMs).toBeLessThanOrEqual(ttlMs - marginMs - graceMs);
      expect(marginMs).toBeGreaterThanOrEqual(150);
    },
  );

  test.each(Object.entries(PROFILES))(
    'of profile %s leaves room for the kill when the alarm has slept as long as it may',
    (_, profile) => {
      const timing = planTiming(profile);
      expect(longestNapMs(timing)).toBeLessThan(timing.marginMs);
    },
  );

  test('holds for every lease that is accepted', () => {
    for (let ttlMs = 100; ttlMs < 60_000; ttlMs += 97) {
      for (const graceMs of [0, ttlMs / 10, ttlMs / 3, ttlMs]) {
        try {
          const plan = planTiming({ ttlMs, graceMs });
          expect(plan.renewEveryMs + 2 * plan.requestMs).toBeLessThanOrEqual(ttlMs - plan.marginMs - graceMs);
          expect(plan.requestMs).toBeGreaterThanOrEqual(100);
        } catch (error) {
          expect(error).toBeInstanceOf(Failure);
        }
      }
    }
  });

  test.each([
    [{ ttlMs: 3000, renewEveryMs: 2900 }],
    [{ ttlMs: 3000, graceMs: 3000 }],
    [{ ttlMs: 300 }],
    [{ ttlMs: 3000, renewEveryMs: 0 }],
  ])('that does not fit (%o) is refused with the three numbers', (wanted) => {
    expect(() => planTiming(wanted)).toThrow(/--ttl .*, --renew-every .* and --grace .* do not fit/);
  });
});
