import type { Flavor } from './spec.ts';

/** How a native recipe names its znodes: something unique, this word, and the number that ZooKeeper adds. */
const WORDS: Record<Flavor, string> = {
  'curator-latch': '-latch-', // LeaderLatch
  'curator-lock': '-lock-', // LeaderSelector, InterProcessMutex
  kazoo: '__lock__', // Lock, Election
};

export interface Seat {
  name: string;
  number: number;
}

/** What the znode of a candidate is called before ZooKeeper adds its number. */
export function seatPrefix(flavor: Flavor, uuid: string): string {
  return flavor === 'kazoo' ? uuid.replaceAll('-', '') + WORDS.kazoo : `_c_${uuid}${WORDS[flavor]}`;
}

/** `%010d` of a signed number: ten characters with its minus sign, and eleven where they do not suffice. */
const numberAfter = (word: string, name: string): number | undefined => {
  const digits = name.slice(name.lastIndexOf(word) + word.length);
  return name.includes(word) && /^(\d{10}|-\d{9,10})$/.test(digits) ? Number(digits) : undefined;
};

/**
 * The line in its order, and who does not belong into it.
 *
 * The number is the parent's count of its children so far, a signed 32-bit integer. ZooKeeper does not count beyond LAST_NUMBER: it gives that
 * number again and again, with negative ones in between when several enter at once. Nobody knows who of these came first.
 */
export function lineOf(flavor: Flavor, children: string[]): { seats: Seat[]; strangers: string[] } {
  const seats: Seat[] = [];
  const strangers: string[] = [];
  for (const name of children) {
    const number = numberAfter(WORDS[flavor], name);
    if (number !== undefined) seats.push({ name, number });
    // Curator sorts every child into its line, Kazoo only what has its own name.
    else if (flavor !== 'kazoo' || isSeat(name)) strangers.push(name);
  }
  seats.sort((a, b) => a.number - b.number);
  return { seats, strangers };
}

const LAST_NUMBER = 2 ** 31 - 1;

/** Nobody else has this number, and all who came earlier have smaller ones. */
export const isCertain = ({ number }: Seat): boolean => number >= 0 && number < LAST_NUMBER;

/** A place in the line of any recipe, those of Kazoo's read-write locks included. */
export const isSeat = (name: string): boolean =>
  [...Object.values(WORDS), '__rlock__'].some((word) => numberAfter(word, name) !== undefined);
