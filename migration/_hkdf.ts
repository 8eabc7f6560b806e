/**
 * HKDF with SHA-256 (RFC 5869), synchronous: keys change in the middle of sealing, where nothing can be
 * awaited.
 *
 * @module
 */

import { hmacSha256, SHA256_BYTES } from "../ciphers/digest.ts";

/** Output length of the hash, in bytes. */
export const HASH_BYTES: number = SHA256_BYTES;

/** HKDF-Extract (RFC 5869 section 2.2): a pseudorandom key of 32 bytes. */
export function hkdfExtract(salt: Uint8Array, inputKey: Uint8Array): Uint8Array<ArrayBuffer> {
  return hmacSha256(salt, inputKey);
}

/**
 * HKDF-Expand (RFC 5869 section 2.3).
 *
 * @throws {RangeError} when `length` is not 1 to 8,160
 */
export function hkdfExpand(
  pseudorandomKey: Uint8Array,
  info: Uint8Array,
  options: { length: number },
): Uint8Array<ArrayBuffer> {
  const { length } = options;
  if (!Number.isInteger(length) || length < 1 || length > 255 * HASH_BYTES) {
    throw new RangeError(`Cannot derive key: ${length} bytes are not 1 to ${255 * HASH_BYTES}`);
  }
  const output = new Uint8Array(length);
  let block = new Uint8Array(0);
  for (let i = 1, at = 0; at < length; i++, at += HASH_BYTES) {
    // T(i) = HMAC(PRK, T(i - 1) | info | i)
    const message = new Uint8Array(block.length + info.length + 1);
    message.set(block);
    message.set(info, block.length);
    message[message.length - 1] = i;
    const next = hmacSha256(pseudorandomKey, message);
    message.fill(0);
    block.fill(0);
    block = next;
    output.set(block.subarray(0, length - at), at);
  }
  block.fill(0);
  return output;
}
