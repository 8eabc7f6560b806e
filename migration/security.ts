/**
 * The paper's security function: encodes and decodes one unit at a time, a page or something that is no
 * page. **For the lab**; what moves VMs is in `record_sealer.ts`.
 *
 * ```text
 * unit        = data || v || encoded checksum (4 bytes)
 * of a user page:      data || checksum = <M, CRC-32(M)> XOR stream(v, seed key)
 * of all that is not:  data = M, checksum = CRC-32(M) XOR stream(v, public key)
 * ```
 *
 * The paper says of the checksum that the "seed secret keys" encode it (sections 3.2 and 3.3) and that the
 * "public key" does (section 3.1). Both hold when each has its own kind: where data is encoded the checksum
 * is part of P, under the seed key; where data goes in clear there is no P, and the public key is left.
 *
 * v counts the units under a key; both kinds share the count.
 *
 * @see docs/paper.md
 * @see paper, section 3.1 "Algorithm principle" and "Integrity", section 3.2 "Security Function"
 * @module
 */

import { crc32, CRC32_BYTES, readCrc32, writeCrc32 } from "../ciphers/crc32.ts";
import { guardOpener, guardSealer } from "../ciphers/guard.ts";
import type { CipherSuite, Opener, Sealer } from "../ciphers/suite.ts";
import { paperKeys } from "./secret_key.ts";

/** The paper binds nothing but the message. */
const NOTHING = new Uint8Array();
/** An encoded checksum is a message without a checksum of its own: what stands in its place is not looked at. */
const NO_CHECKSUM = new Uint8Array(CRC32_BYTES);

/** What a unit adds to its data, in bytes: v and the encoded checksum. */
export function unitOverheadBytes(suite: CipherSuite): number {
  return suite.nonceBytes + CRC32_BYTES;
}

/** One time's suite and keys. */
interface Keyed {
  /** One of the paper's profile. */
  suite: CipherSuite;
  /** What the keys follow from. */
  timestampMs: number;
}

/** The security function "in source host", under the keys of one time. */
export class SecurityEncoder implements Disposable {
  /** What the keys follow from. */
  readonly timestampMs: number;
  readonly #seed: Sealer;
  readonly #public: Sealer;
  readonly #overheadBytes: number;
  readonly #iv: Uint8Array;
  readonly #unused = new Uint8Array(CRC32_BYTES);

  constructor({ suite, timestampMs }: Keyed) {
    this.timestampMs = timestampMs;
    const keys = paperKeys(timestampMs, suite.keyBytes);
    this.#seed = guardSealer(suite, keys.seedKey);
    this.#public = guardSealer(suite, keys.publicKey);
    wipe(keys);
    this.#overheadBytes = unitOverheadBytes(suite);
    this.#iv = new Uint8Array(suite.nonceBytes);
  }

  /**
   * Encodes in place.
   *
   * @param unit data, then {@linkcode unitOverheadBytes} that are written here
   * @param isUser whether the data is a user page, to be hidden; else it stays in clear
   */
  encode(unit: Uint8Array, isUser: boolean): void {
    const dataEnd = unit.length - this.#overheadBytes;
    const data = unit.subarray(0, dataEnd);
    const checksum = unit.subarray(unit.length - CRC32_BYTES);
    increment(this.#iv);
    unit.set(this.#iv, dataEnd);
    if (isUser) {
      this.#seed.begin(this.#iv, NOTHING);
      this.#seed.update(data, data);
      this.#seed.finish(checksum);
    } else {
      writeCrc32(crc32(data), checksum);
      this.#public.begin(this.#iv, NOTHING);
      this.#public.update(checksum, checksum);
      this.#public.finish(this.#unused);
    }
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#seed[Symbol.dispose]();
    this.#public[Symbol.dispose]();
  }
}

/** The security function "in destination host", under the keys of one time. */
export class SecurityDecoder implements Disposable {
  /** What the keys follow from. */
  readonly timestampMs: number;
  readonly #seed: Opener;
  readonly #public: Opener;
  readonly #overheadBytes: number;
  readonly #decoded = new Uint8Array(CRC32_BYTES);

  constructor({ suite, timestampMs }: Keyed) {
    this.timestampMs = timestampMs;
    const keys = paperKeys(timestampMs, suite.keyBytes);
    this.#seed = guardOpener(suite, keys.seedKey);
    this.#public = guardOpener(suite, keys.publicKey);
    wipe(keys);
    this.#overheadBytes = unitOverheadBytes(suite);
  }

  /**
   * Decodes one unit.
   *
   * @param options.isUser whether its sender says that the data is hidden
   * @param options.into receives the data: as long as the unit less {@linkcode unitOverheadBytes}
   * @returns false when the checksum differs: skip it and say so
   */
  decode(unit: Uint8Array, options: { isUser: boolean; into: Uint8Array }): boolean {
    const { into } = options;
    const dataEnd = unit.length - this.#overheadBytes;
    const data = unit.subarray(0, dataEnd);
    const iv = unit.subarray(dataEnd, unit.length - CRC32_BYTES);
    const checksum = unit.subarray(unit.length - CRC32_BYTES);
    if (options.isUser) {
      this.#seed.begin(iv, NOTHING, checksum);
      this.#seed.update(data, into);
      return this.#seed.finish();
    }
    into.set(data);
    this.#public.begin(iv, NOTHING, NO_CHECKSUM);
    this.#public.update(checksum, this.#decoded);
    this.#public.finish();
    return readCrc32(this.#decoded) === crc32(into);
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#seed[Symbol.dispose]();
    this.#public[Symbol.dispose]();
  }
}

/** The next v: a big-endian counter as wide as the suite's; nothing when it has none. */
function increment(iv: Uint8Array): void {
  for (let i = iv.length - 1; i >= 0; i--) {
    iv[i] = iv[i]! + 1;
    if (iv[i] !== 0) return;
  }
}

function wipe({ seedKey, publicKey }: { seedKey: Uint8Array; publicKey: Uint8Array }): void {
  seedKey.fill(0);
  publicKey.fill(0);
}
