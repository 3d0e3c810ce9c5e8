import { describe, expect, test } from 'vitest';
import { Unusable } from '../../src/backend.ts';
import { parseRuns } from '../../src/runs.ts';

const RUN = { slot: '2026-03-01T00:00:00Z', holder: 'a', token: '1', startedAt: '2026-03-01T00:00:01.000Z' };
const END = { endedAt: '2026-03-01T00:00:02.000Z', status: 0 };

describe('the run record', () => {
  test.each([
    { runs: [] },
    { since: '2026-03-01T00:00:00.000Z', runs: [] },
    { runs: [{ ...RUN, ...END }, RUN] },
    { runs: [{ ...RUN, note: 'of a later version' }], more: 1 },
  ])('%j is read as it was written', (book) => {
    expect(parseRuns(JSON.stringify(book))).toEqual(book);
  });

  test.each([
    'x',
    'null',
    '{}',
    '{"runs":"x"}',
    '{"since":5,"runs":[]}',
    '{"since":"once","runs":[]}',
    ...[
      null,
      1,
      {},
      { ...RUN, slot: 'x' },
      { ...RUN, slot: undefined },
      { ...RUN, holder: 1 },
      { ...RUN, token: 2 },
    ].map((run) => JSON.stringify({ runs: [run] })),
    ...[{ startedAt: 'x' }, { endedAt: 'x' }, { ...END, status: '0' }, { endedAt: END.endedAt }].map((more) =>
      JSON.stringify({ runs: [{ ...RUN, ...more }] }),
    ),
  ])('%s is damaged: to go on from it could run a slot twice, or never again', (text) => {
    expect(() => parseRuns(text)).toThrow(Unusable);
  });
});
