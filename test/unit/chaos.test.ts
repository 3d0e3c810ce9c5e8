import { afterEach, expect, test } from 'vitest';
import { Dice } from '../chaos/dice.ts';
import { drawFaults, FAULT_NAMES } from '../chaos/faults.ts';
import { readOptions } from '../chaos/options.ts';
import type { Candidate, Scene } from '../chaos/site.ts';
import { judge } from '../chaos/verdict.ts';
import { clearOracles, Oracle } from '../helpers/oracle.ts';

afterEach(clearOracles);

const scene = { world: {}, kind: { ttlMs: 3000, hosts: 0 }, store: { servers: [], endpoints: [] } } as unknown as Scene;
const draw = (seed: string, only = FAULT_NAMES) => drawFaults(new Dice(seed), scene, 50, only);

test('a seed draws the same faults, and another one others', () => {
  expect(draw('a')).toEqual(draw('a'));
  expect(draw('a')).not.toEqual(draw('b'));
});

test('only the faults that are asked for are drawn, and only those that the store can suffer', () => {
  expect(new Set(draw('a', ['TERM', 'disk full']).map(({ fault }) => fault))).toEqual(new Set(['TERM']));
  expect(draw('a', ['quorum lost'])).toEqual([]);
});

test('draws lie in their ranges and reach them', () => {
  const dice = new Dice('ranges');
  const drawn = Array.from({ length: 2000 }, () => dice.whole(3, 9));
  expect(new Set(drawn)).toEqual(new Set([3, 4, 5, 6, 7, 8, 9]));
  const weighted = Array.from({ length: 2000 }, () => dice.weighted([{ weight: 1 }, { weight: 3 }]).weight);
  const share = weighted.filter((weight) => weight === 3).length / weighted.length;
  expect(share).toBeGreaterThan(0.7);
  expect(share).toBeLessThan(0.8);
});

const elected = (id: string, token: string) =>
  ({
    elect: {
      events: [
        { event: 'campaigning', id },
        { event: 'elected', token },
      ],
    },
  }) as unknown as Candidate;

/** Two leaders, one after the other, as everybody tells it. */
function fine() {
  const oracle = new Oracle();
  oracle.record('START 7 101 10.00 a -');
  oracle.record('START 8 102 20.00 b -');
  return {
    oracle,
    lives: [elected('a', '7'), elected('b', '8')],
    excuses: [],
    holderOf: async (token: bigint) => (token === 7n ? 'a' : 'b'),
  };
}

test('what is as it should be is not complained of', async () => {
  expect(await judge(fine())).toEqual({ unsafe: [], overlaps: 0, excused: 0, longestExcusedMs: 0 });
});

test('two at work are found', async () => {
  const evidence = fine();
  evidence.oracle.record('OVERLAP 9 103 25.00 c -');
  const { unsafe, overlaps } = await judge(evidence);
  expect(unsafe).toEqual(['two at work: c with token 9 (pid 103) found somebody else']);
  expect(overlaps).toBe(1);
});

test('after an operator has deposed the leader two may be at work until its lease has ended, and no longer', async () => {
  const excuses = [{ from: 24_000, to: 26_000, why: 'an operator' }];
  const short = { ...fine(), excuses, lives: [...fine().lives, elected('c', '9')], holderOf: () => undefined };
  short.oracle.record('OVERLAP 9 103 25.00 c -');
  short.oracle.record('START 9 103 25.50 c -');
  expect(await judge(short)).toEqual({ unsafe: [], overlaps: 0, excused: 1, longestExcusedMs: 500 });
  const long = { ...short, oracle: fine().oracle };
  long.oracle.record('OVERLAP 9 103 25.00 c -');
  long.oracle.record('START 9 103 26.50 c -');
  expect((await judge(long)).unsafe).toEqual([
    'two at work for longer than an operator explains: c with token 9 (pid 103)',
  ]);
  const again = { ...long, excuses: [...excuses, { from: 24_900, to: 27_000, why: 'another one' }] };
  expect((await judge(again)).unsafe).toEqual([]);
  const later = { ...short, oracle: fine().oracle };
  later.oracle.record('OVERLAP 9 103 26.50 c -');
  expect((await judge(later)).overlaps).toBe(1);
});

test.each([
  ['before its place was taken away is excused', 10n, 0],
  ['after it is not', 9n, 1],
])('whoever starts beside another and was confirmed %s', async (_, before, overlaps) => {
  const excuses = [{ from: 24_000, to: 26_000, why: 'an operator', ifConfirmed: { who: 'c', before } }];
  const evidence = { ...fine(), excuses };
  evidence.oracle.record('OVERLAP 9 103 25.00 c -');
  expect((await judge(evidence)).overlaps).toBe(overlaps);
});

test.each([
  ['the same', '8'],
  ['a smaller', '6'],
  ['no', '-'],
])('a start with %s token is found', async (_, token) => {
  const evidence = { ...fine(), lives: [...fine().lives, elected('c', token)], holderOf: () => undefined };
  evidence.oracle.record(`START ${token} 103 30.00 c -`);
  expect((await judge(evidence)).unsafe.join()).toMatch(/tokens do not grow: b with token 8 \(pid 102\), then c/);
});

test('a run of somebody who was not elected is found, and one whom the store did not have as the leader', async () => {
  expect((await judge({ ...fine(), lives: [elected('a', '7')] })).unsafe).toEqual([
    'a run without an election: b with token 8 (pid 102)',
  ]);
  expect((await judge({ ...fine(), holderOf: async () => 'a' })).unsafe).toEqual([
    'a run without a lease: b with token 8 (pid 102), but the store had a',
  ]);
});

test.each([
  [['--store', 'mysql'], 'there is no store mysql'],
  [['--mutate', 'luck'], 'there is no mutation "luck"'],
  [['--fault', 'rain'], 'there is no fault "rain"'],
  [['--minutes', 'x'], '--minutes is a number above 0'],
  [['--minutes', '0'], '--minutes is a number above 0'],
  [['--lanes', '1.5'], '--lanes is a whole number from 1'],
  [['--candidates', '1'], '--candidates is a whole number from 2 to 20'],
  [['--episode', '0'], '--episode is a whole number from 1'],
  [['--seed'], /--seed/],
  [['--nonsense'], /--nonsense/],
  [['stray'], /stray/],
])('%j is refused', (args, message) => {
  expect(readOptions(args)).toEqual(typeof message === 'string' ? message : expect.stringMatching(message));
});

test('what is not asked for has a default, a seed of its own each time', () => {
  const chosen = [readOptions([]), readOptions([])];
  expect(chosen[0]).toMatchObject({ minutes: 5, lanes: 3, candidates: 3, mutations: [], faults: FAULT_NAMES });
  expect(chosen[0]).not.toEqual(chosen[1]);
});
