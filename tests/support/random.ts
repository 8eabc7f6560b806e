/**
 * Numbers that look random and come again with the same seed.
 *
 * @module
 */

/** A generator of numbers. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** An integer from 0 to `limit - 1` (mulberry32). */
  below(limit: number): number {
    this.#state = this.#state + 0x6d2b79f5 >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ z >>> 15, z | 1);
    z ^= z + Math.imul(z ^ z >>> 7, z | 61);
    return Math.floor(((z ^ z >>> 14) >>> 0) / 2 ** 32 * limit);
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  fill(bytes: Uint8Array): Uint8Array {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.below(256);
    return bytes;
  }
}
