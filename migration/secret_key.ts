/**
 * The paper's secret key function: each round's keys from the time alone. **For the lab**: the time is on
 * the wire, and how keys follow from it is written here; what moves VMs is `key_schedule.ts`.
 *
 * ```text
 * timestamp  = current time, milliseconds since 1970, another one each round
 * generator  = srand48(timestamp)                                POSIX, 48-bit linear congruential
 * seed key   = the first key length bytes of mrand48() || mrand48() || ..., each as u32
 * public key = the next key length bytes
 * ```
 *
 * The paper has "random numbers and public key according to the current time", and the same at the
 * destination "because of the same secret key generation mechanism": so the generator is deterministic and
 * the time its only seed. It names no generator; POSIX's is documented and the same everywhere. It takes
 * 32 bits of the time.
 *
 * @see docs/paper.md
 * @see paper, section 3.1 "Confidentiality" and section 3.2 "Secret Key Function"
 * @see {@link https://pubs.opengroup.org/onlinepubs/9799919799/functions/drand48.html POSIX, drand48()}
 * @module
 */

import { PAPER_TIME_WINDOW_MS } from "./limits.ts";

/** What one time gives. The caller wipes both. */
export interface PaperKeys {
  /** "Random numbers are used as the seed secret key for encoding". */
  seedKey: Uint8Array;
  /** "and public key is used for encoding the hash value": symmetric, and as secret as the time is. */
  publicKey: Uint8Array;
}

/**
 * The keys of a round that began at `timestampMs`; source and destination get the same.
 *
 * @param keyBytes length of each, that of the suite's keys
 *
 * @example
 * ```ts
 * import { paperKeys } from "./secret_key.ts";
 *
 * const { seedKey } = paperKeys(1_700_000_000_000, 8);
 * console.assert(seedKey.toHex() === "abd8aadcfb213b81"); // for everybody who knows the time
 * ```
 */
export function paperKeys(timestampMs: number, keyBytes: number): PaperKeys {
  const numbers = new Uint8Array(2 * keyBytes + 3 & ~3);
  const view = new DataView(numbers.buffer);
  const generator = new Rand48(timestampMs);
  for (let at = 0; at < numbers.length; at += 4) view.setUint32(at, generator.next());
  const keys = {
    seedKey: numbers.slice(0, keyBytes),
    publicKey: numbers.slice(keyBytes, 2 * keyBytes),
  };
  numbers.fill(0);
  return keys;
}

/**
 * The time of a new round: now, or just after the last round's where both fall into one millisecond, since
 * "live migration uses different key in each iteration".
 */
export function nextTimestamp(nowMs: number, lastMs: number): number {
  return Math.max(nowMs, lastMs + 1);
}

/** Whether the destination accepts that time at `nowMs` of its own clock: its "acceptable range". */
export function isAcceptable(timestampMs: number, nowMs: number): boolean {
  return Math.abs(timestampMs - nowMs) <= PAPER_TIME_WINDOW_MS;
}

/** a = 0x5DEECE66D and the state in halves of 24 bits: every product fits a double. */
const MULTIPLIER_HIGH = 0x5de;
const MULTIPLIER_LOW = 0xece66d;
const INCREMENT = 0xb;
const HALF = 2 ** 24;

/** POSIX: `srand48(seed)`, then `mrand48()`: X := (a X + c) mod 2^48, of which the high 32 bits are given. */
class Rand48 {
  #high: number;
  #low: number;

  /** "the high-order 32 bits of Xi are set to the low-order 32 bits of seedval, the low-order 16 bits to 330E" */
  constructor(seed: number) {
    const bits = seed >>> 0;
    this.#high = bits >>> 8;
    this.#low = (bits & 0xff) << 16 | 0x330e;
  }

  next(): number {
    const low = MULTIPLIER_LOW * this.#low + INCREMENT;
    const high = Math.floor(low / HALF) + MULTIPLIER_HIGH * this.#low + MULTIPLIER_LOW * this.#high;
    this.#low = low % HALF;
    this.#high = high % HALF;
    return (this.#high << 8 | this.#low >>> 16) >>> 0;
  }
}
