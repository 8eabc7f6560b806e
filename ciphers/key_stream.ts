/**
 * Bytes to XOR with: what a stream cipher is underneath.
 *
 * @module
 */

/**
 * A stream cipher under one key. It hides, and nothing else: whoever flips a bit of the ciphertext flips
 * the same bit of the plaintext.
 */
export interface KeyStream extends Disposable {
  /** Goes to the start of the stream of `iv`, whose length is the cipher's. */
  begin(iv: Uint8Array): void;
  /** XORs the next `from.length` bytes of the stream into `to`, which is as long, and may be the same view. */
  xor(from: Uint8Array, to: Uint8Array): void;
}
