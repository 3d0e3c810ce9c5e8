import { expect, test } from 'vitest';
import { formatDuration, parseDuration } from '../../src/durations.ts';

test.each([
  ['500ms', 500],
  ['15s', 15_000],
  ['2m', 120_000],
  ['1h30m', 5_400_000],
  ['1.5s', 1500],
  ['0', 0],
])('%s is %d ms', (text, expected) => {
  expect(parseDuration(text)).toBe(expected);
});

test.each(['', 's', '-1s', '1 s', '1S', '5x', '1h-30m', '1e3ms', 'ten'])('"%s" is refused', (text) => {
  expect(() => parseDuration(text)).toThrow(/is not a duration/);
});

test('a bare number is refused with a hint', () => {
  expect(() => parseDuration('15')).toThrow('did you mean 15s?');
});

test.each([
  [850, '850ms'],
  [1500, '1.5s'],
  [15_000, '15s'],
  [120_000, '2m'],
  [5_400_000, '1h30m'],
  [999.7, '1s'],
  [59_970, '1m'],
  [119_700, '2m'],
  [3_599_999, '1h'],
  [Number.POSITIVE_INFINITY, 'for ever'],
])('%d ms is shown as %s', (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});
