import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { isCertain, isSeat, lineOf, seatPrefix } from '../../src/backends/zookeeper/line.ts';
import { FLAVORS } from '../../src/backends/zookeeper/spec.ts';

/** `%010d` of Java's, as the server appends it: ten characters with the minus sign, and eleven where they do not suffice. */
const padded = (number: number) =>
  number < 0 ? `-${String(-number).padStart(9, '0')}` : String(number).padStart(10, '0');

describe.each(FLAVORS)('the line of %s', (flavor) => {
  const seat = (number: number) => seatPrefix(flavor, randomUUID()) + padded(number);
  const numbers = (children: string[]) => lineOf(flavor, children).seats.map(({ number }) => number);

  test('is in the order of the numbers, whatever stands before them', () => {
    expect(numbers([10, 2, 300, 1].map(seat))).toEqual([1, 2, 10, 300]);
  });

  test('has a certain order only before the counter is at its end', () => {
    const inOrder = [-2147483648, -1000, -1, 0, 2147483646, 2147483647];
    const { seats } = lineOf(flavor, inOrder.map(seat).reverse());
    expect(seats.map(({ number }) => number)).toEqual(inOrder);
    expect(seats.filter(isCertain).map(({ number }) => number)).toEqual([0, 2147483646]);
  });

  test('knows its own seats', () => {
    expect(isSeat(seat(7))).toBe(true);
    expect(lineOf(flavor, [seat(7), seat(-7)]).strangers).toEqual([]);
  });

  test('does not take the word inside a name for its end', () => {
    expect(numbers([seat(8) + seat(3)])).toEqual([3]);
  });

  test('takes the seats of every other flavor for strangers', () => {
    const others = FLAVORS.filter((other) => other !== flavor).map(
      (other) => seatPrefix(other, randomUUID()) + padded(3),
    );
    expect(lineOf(flavor, [...others, seat(4)])).toMatchObject({ seats: [{ number: 4 }], strangers: others });
  });

  test.each(['readme', 'latch-', '-lock-12', '__lock__12345', '_c_x-latch-00000000001', '0000000001'])(
    'has no seat named %s',
    (name) => {
      expect(isSeat(name)).toBe(false);
      expect(lineOf(flavor, [name]).seats).toEqual([]);
    },
  );
});

test("Kazoo's read locks are strangers, and what is no lock is not seen, as by Kazoo itself", () => {
  const reader = 'f0a1__rlock__0000000001';
  expect(lineOf('kazoo', [reader, 'readme'])).toEqual({ seats: [], strangers: [reader] });
});

test.each(['curator-latch', 'curator-lock'] as const)(
  '%s has no room for anything else, as Curator sorts it in',
  (flavor) => {
    expect(lineOf(flavor, ['readme'])).toEqual({ seats: [], strangers: ['readme'] });
  },
);
