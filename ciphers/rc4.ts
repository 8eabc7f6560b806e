/**
 * RC4, for the paper's suites. **Broken**: its first bytes are biased, keys that share a part leak it
 * (Fluhrer, Mantin, Shamir 2001), and RFC 7465 forbids it in TLS.
 *
 * @see {@link https://datatracker.ietf.org/doc/html/draft-kaukonen-cipher-arcfour-03 The Arcfour draft} for the algorithm
 * @see {@link https://www.rfc-editor.org/rfc/rfc6229 RFC 6229} for its test vectors
 * @see {@link https://www.rfc-editor.org/rfc/rfc7465 RFC 7465} for why not to use it
 * @module
 */

/** Longest key: further bytes would never be looked at. */
export const MAX_RC4_KEY_BYTES = 256;

/**
 * One RC4 state: keyed as often as wanted, without an allocation.
 *
 * @example
 * ```ts
 * import { Rc4 } from "./rc4.ts";
 *
 * using rc4 = new Rc4();
 * rc4.setKey(Uint8Array.of(1, 2, 3, 4, 5));
 * const stream = new Uint8Array(4);
 * rc4.xor(stream, stream);
 * console.assert(stream.toHex() === "b2396305"); // RFC 6229 section 2
 * ```
 */
export class Rc4 implements Disposable {
  readonly #state = new Uint8Array(256);
  #i = 0;
  #j = 0;

  /**
   * Key-scheduling algorithm (KSA): forgets the old key and goes to the start of the new one's stream.
   *
   * @param key 1 to 256 bytes; not kept
   * @throws {RangeError} when it has another length
   */
  setKey(key: Uint8Array): void {
    const { length } = key;
    if (length < 1 || length > MAX_RC4_KEY_BYTES) {
      throw new RangeError(`Cannot use RC4 key: it has ${length} bytes, not 1 to 256`);
    }
    const state = this.#state;
    for (let i = 0; i < 256; i++) state[i] = i;
    for (let i = 0, j = 0, at = 0; i < 256; i++) {
      const value = state[i]!;
      j = (j + value + key[at]!) & 0xff;
      state[i] = state[j]!;
      state[j] = value;
      if (++at === length) at = 0;
    }
    this.#i = this.#j = 0;
  }

  /** Pseudo-random generation algorithm (PRGA): XORs the next `from.length` bytes of the stream into `to`. */
  xor(from: Uint8Array, to: Uint8Array): void {
    const state = this.#state;
    const { length } = from;
    let i = this.#i;
    let j = this.#j;
    for (let at = 0; at < length; at++) {
      i = (i + 1) & 0xff;
      const a = state[i]!;
      j = (j + a) & 0xff;
      const b = state[j]!;
      state[i] = b;
      state[j] = a;
      to[at] = from[at]! ^ state[(a + b) & 0xff]!;
    }
    this.#i = i;
    this.#j = j;
  }

  /** Wipes the state; what `xor` gives after it is no secret any more. */
  [Symbol.dispose](): void {
    this.#state.fill(0);
    this.#i = this.#j = 0;
  }
}
