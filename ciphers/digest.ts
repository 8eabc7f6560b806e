/**
 * SHA-256 and HMAC, synchronous: keys change in the middle of sealing, where nothing can be awaited, and
 * WebCrypto has nothing else.
 *
 * @see FIPS 180-4; RFC 2104
 * @module
 */

import { nodeCrypto } from "./_node.ts";
import { libcrypto } from "./libcrypto.ts";

/** Output length of SHA-256, in bytes. */
export const SHA256_BYTES = 32;

/** SHA-256 of `message`. */
export function sha256(message: Uint8Array): Uint8Array<ArrayBuffer> {
  const library = libcrypto();
  if (library.available) return library.sha256(message);
  return new Uint8Array(nodeCrypto().createHash("sha256").update(message).digest());
}

/** HMAC-SHA-256 of `message`. The caller wipes the result, where it is a key. */
export function hmacSha256(key: Uint8Array, message: Uint8Array): Uint8Array<ArrayBuffer> {
  const library = libcrypto();
  if (library.available) return library.hmacSha256(key, message);
  const digest = nodeCrypto().createHmac("sha256", key).update(message).digest();
  const copy = new Uint8Array(digest);
  digest.fill(0);
  return copy;
}
