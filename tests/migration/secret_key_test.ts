import assert from "node:assert/strict";
import fc from "fast-check";
import { PAPER_TIME_WINDOW_MS } from "../../migration/limits.ts";
import { isAcceptable, nextTimestamp, paperKeys } from "../../migration/secret_key.ts";

/** The C library's own srand48() and mrand48(), kept open for the process. */
const libc = Deno.build.os === "linux"
  ? Deno.dlopen("libc.so.6", {
    srand48: { parameters: ["i64"], result: "void" },
    mrand48: { parameters: [], result: "i64" },
  }).symbols
  : null;

/** The first `length` bytes that the C library gives for that time, u32 by u32. */
function libcNumbers(timestampMs: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length + 3 & ~3);
  const view = new DataView(bytes.buffer);
  // SAFETY: takes a number.
  libc!.srand48(BigInt(timestampMs));
  for (let at = 0; at < bytes.length; at += 4) {
    // SAFETY: takes nothing.
    view.setUint32(at, Number(BigInt.asUintN(32, libc!.mrand48())));
  }
  return bytes.subarray(0, length);
}

const timestamps = fc.integer({ min: 0, max: 2 ** 43 });

Deno.test("paperKeys() are the C library's srand48() and mrand48(), seed key first", {
  ignore: libc === null,
}, () => {
  fc.assert(fc.property(timestamps, fc.integer({ min: 0, max: 248 }), (timestampMs, keyBytes) => {
    const { seedKey, publicKey } = paperKeys(timestampMs, keyBytes);
    const numbers = libcNumbers(timestampMs, 2 * keyBytes);
    assert.deepEqual(seedKey, numbers.slice(0, keyBytes));
    assert.deepEqual(publicKey, numbers.slice(keyBytes));
  }));
});

Deno.test("paperKeys() has the first numbers of srand48(0)", () => {
  assert.equal(paperKeys(0, 16).seedKey.toHex(), "2bbb62dcbff9938118abd015ded6cf22");
});

Deno.test("paperKeys() takes 32 bits of the time: a whole 2048-bit key has one of 2^32 values", () => {
  const timestampMs = Date.UTC(2024, 0, 1);
  assert.deepEqual(paperKeys(timestampMs + 2 ** 32, 248), paperKeys(timestampMs, 248));
  assert.notDeepEqual(paperKeys(timestampMs + 1, 248), paperKeys(timestampMs, 248));
});

Deno.test("nextTimestamp() is another one each round, even within one millisecond", () => {
  assert.equal(nextTimestamp(2000, 1000), 2000);
  assert.equal(nextTimestamp(1000, 1000), 1001);
  // A clock that was set back must not bring back a key.
  assert.equal(nextTimestamp(500, 1000), 1001);
});

Deno.test("isAcceptable() takes times up to the window, on both sides", () => {
  const nowMs = Date.UTC(2024, 0, 1);
  for (
    const [offMs, acceptable] of [
      [0, true],
      [PAPER_TIME_WINDOW_MS, true],
      [-PAPER_TIME_WINDOW_MS, true],
      [PAPER_TIME_WINDOW_MS + 1, false],
      [-PAPER_TIME_WINDOW_MS - 1, false],
      [2 ** 63, false],
    ] as const
  ) assert.equal(isAcceptable(nowMs + offMs, nowMs), acceptable, `${offMs} ms off`);
});
