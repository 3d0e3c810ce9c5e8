import { expect, test } from 'vitest';
import { type Backend, Gone, type Leading, type Place, type Waiting } from '../../src/backend.ts';
import { campaign } from '../../src/campaign.ts';
import { now } from '../../src/clock.ts';
import type { Event } from '../../src/events.ts';

const timing = { ttlMs: 3000, renewEveryMs: 1000, requestMs: 500, graceMs: 600, marginMs: 300 };
const led = (leader: string, position?: number): Waiting => ({ leads: false, leader, since: undefined, position });

/** What a candidate says of a store that gives these answers, one for each look, and has a vacancy after each. */
async function saidOf(...answers: (Waiting | Leading | Error)[]) {
  const said: Event[] = [];
  const backend = {
    newPlace: (): Place => ({ ttlMs: undefined, handle: {} }),
    async acquire() {
      const answer = answers.shift()!;
      if (answer instanceof Error) throw answer;
      return answer;
    },
    vacancy: async () => {},
    gone: () => new Promise(() => {}),
    release: async () => {},
  } as unknown as Backend;
  const { renewal, vacantSince } = await campaign(
    backend,
    {
      timing,
      giveUpAt: now() + 10_000,
      once: false,
      impatience: new AbortController().signal,
      report: (event) => said.push(event),
      placed: () => {},
      standsBy: () => {},
      hooks: { confirmed: () => {}, unanswered: () => {} },
    },
    new AbortController().signal,
  );
  renewal.end();
  return { said, types: said.map(({ type }) => type), vacantSince };
}

const LEADS: Leading = { leads: true };

test('the same leader is spoken of once, and once more after the store was away or our place was lost', async () => {
  const same = await saidOf(led('a'), led('a'), led('a'), LEADS);
  expect(same.types).toEqual(['standby']);
  const away = await saidOf(led('a'), new Error('refused'), led('a'), led('a'), LEADS);
  expect(away.types).toEqual(['standby', 'unreachable', 'standby']);
  const lost = await saidOf(led('a'), new Gone('deleted'), led('a'), led('a'), LEADS);
  expect(lost.types).toEqual(['standby', 'place-lost', 'standby']);
});

test('for how long nobody led is told with whoever leads next, be it another or we', async () => {
  const { said, vacantSince } = await saidOf(led('a'), led('b'), LEADS);
  expect(said).toMatchObject([{ leaderlessMs: undefined }, { leaderlessMs: expect.any(Number) }]);
  expect(vacantSince).toBeDefined();
});

test('a vacancy that was none is no time without a leader; nor is one further down the line than the first', async () => {
  const early = await saidOf(led('a'), led('a', 2), LEADS);
  expect(early.said).toMatchObject([{ leaderlessMs: undefined }, { leaderlessMs: undefined }]);
  const behind = await saidOf(led('a', 3), led('b', 3), LEADS);
  expect(behind.said).toMatchObject([{ leaderlessMs: undefined }, { leaderlessMs: undefined }]);
  expect(behind.vacantSince).toBe(undefined);
});
