/**
 * Whole writes.
 *
 * @module
 */

/** Writes all of `bytes`, however many calls that takes. `bytes` may be reused when it has resolved. */
export async function writeAll(
  conn: { write(bytes: Uint8Array): Promise<number> },
  bytes: Uint8Array,
): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}
