import { createHash } from 'node:crypto';

/** Draws that the same seed repeats, whatever else happens (sfc32, seeded by SHA-256). */
export class Dice {
  readonly #state: Uint32Array;

  constructor(seed: string) {
    const digest = createHash('sha256').update(seed).digest();
    this.#state = Uint32Array.from({ length: 4 }, (_, index) => digest.readUInt32LE(4 * index));
  }

  /** From 0, below 1. */
  number(): number {
    const [a, b, c, counter] = this.#state as unknown as [number, number, number, number];
    const sum = (a + b + counter) >>> 0;
    this.#state.set([b ^ (b >>> 9), (c + (c << 3)) >>> 0, (((c << 21) | (c >>> 11)) + sum) >>> 0, counter + 1]);
    return sum / 2 ** 32;
  }

  between(from: number, to: number): number {
    return from + this.number() * (to - from);
  }

  /** Both ends included. */
  whole(from: number, to: number): number {
    return Math.floor(this.between(from, to + 1));
  }

  chance(probability: number): boolean {
    return this.number() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.number() * from.length)]!;
  }

  /** As often as its weight says. */
  weighted<T extends { weight: number }>(from: readonly T[]): T {
    let left = this.number() * from.reduce((sum, { weight }) => sum + weight, 0);
    for (const one of from) {
      left -= one.weight;
      if (left < 0) return one;
    }
    return from.at(-1)!;
  }
}
