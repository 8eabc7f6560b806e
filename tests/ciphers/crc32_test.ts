import assert from "node:assert/strict";
import fc from "fast-check";
import { crc32, readCrc32, writeCrc32 } from "../../ciphers/crc32.ts";

/** Bit by bit, from the definition. */
function naiveCrc32(bytes: Uint8Array): number {
  let register = 0xffff_ffff;
  for (const byte of bytes) {
    register ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      register = register >>> 1 ^ (register & 1 ? 0xedb88320 : 0);
    }
  }
  return ~register >>> 0;
}

Deno.test("crc32() gives the published check value, 0 for nothing", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  assert.equal(crc32(new Uint8Array()), 0);
  // 32 zero bytes, as in many published tables.
  assert.equal(crc32(new Uint8Array(32)), 0x190a55ad);
});

Deno.test("crc32() agrees with the definition, whole and in two pieces", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 700 }), fc.nat(700), (bytes, cut) => {
    assert.equal(crc32(bytes), naiveCrc32(bytes));
    assert.equal(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut))), naiveCrc32(bytes));
  }));
});

// What makes it useless against people: the change of the checksum depends on the change alone.
Deno.test("crc32() of a changed message follows from the change, without the message", () => {
  const size = 4096;
  const bytes = fc.uint8Array({ minLength: size, maxLength: size });
  fc.assert(
    fc.property(bytes, bytes, (message, change) => {
      const changed = message.map((byte, i) => byte ^ change[i]!);
      const follows = crc32(message) ^ crc32(change) ^ crc32(new Uint8Array(size));
      assert.equal(crc32(changed), follows >>> 0);
    }),
    { numRuns: 20 },
  );
});

Deno.test("readCrc32() reads what writeCrc32() wrote, big-endian", () => {
  const bytes = new Uint8Array(4);
  writeCrc32(0xcbf43926, bytes);
  assert.equal(bytes.toHex(), "cbf43926");
  assert.equal(readCrc32(bytes), 0xcbf43926);
});
