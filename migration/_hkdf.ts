/**
 * HKDF with SHA-256 (RFC 5869), synchronous: keys change in the middle of sealing, where nothing can be
 * awaited.
 *
 * @module
 */

// node:crypto for pure computation only; WebCrypto has no synchronous HMAC.
import { createHmac } from "node:crypto";

/** Output length of SHA-256, in bytes. */
export const HASH_BYTES = 32;

/** HKDF-Extract (RFC 5869 section 2.2): a pseudorandom key of 32 bytes. */
export function hkdfExtract(salt: Uint8Array, inputKey: Uint8Array): Uint8Array<ArrayBuffer> {
  return hmac(salt, [inputKey]);
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
    const next = hmac(pseudorandomKey, [block, info, Uint8Array.of(i)]);
    block.fill(0);
    block = next;
    output.set(block.subarray(0, length - at), at);
  }
  block.fill(0);
  return output;
}

function hmac(key: Uint8Array, parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const mac = createHmac("sha256", key);
  for (const part of parts) mac.update(part);
  const digest = mac.digest();
  const copy = new Uint8Array(digest);
  digest.fill(0);
  return copy;
}
