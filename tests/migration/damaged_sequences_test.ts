import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { DamagedSequences } from "../../migration/damaged_sequences.ts";
import { MIN_DAMAGE_BYTES } from "../../migration/limits.ts";
import { libcrypto } from "../../ciphers/libcrypto.ts";

// Kept open for the life of the process.
libcrypto();

const tampering = { name: "MigrationError", code: "tampering" };

Deno.test("DamagedSequences.add() counts a sequence once", () => {
  const damaged = new DamagedSequences(3 * MIN_DAMAGE_BYTES);
  assert.equal(damaged.add(5, 100), true);
  for (let i = 0; i < 10; i++) assert.equal(damaged.add(5, 100), false);
  assert.equal(damaged.count, 1);
});

Deno.test("DamagedSequences.add() throws once the budget is passed, small records counting a page", () => {
  const small = new DamagedSequences(3 * MIN_DAMAGE_BYTES);
  for (const sequence of [1, 2, 3]) small.add(sequence, 1);
  assert.throws(() => small.add(4, 1), tampering);
  const large = new DamagedSequences(10 * MIN_DAMAGE_BYTES);
  large.add(1, 10 * MIN_DAMAGE_BYTES);
  assert.throws(() => large.add(2, 0), tampering);
  assert.throws(() => new DamagedSequences(0).add(1, 0), tampering);
});

Deno.test("DamagedSequences.above() gives those above a sequence, ascending", () => {
  const damaged = new DamagedSequences(2 ** 30);
  for (const sequence of [9, 2, 100, 10]) damaged.add(sequence, 0);
  assert.deepEqual(damaged.above(0), [2, 9, 10, 100]);
  assert.deepEqual(damaged.above(9), [10, 100]);
  assert.deepEqual(damaged.above(100), []);
});

Deno.test("DamagedSequences.digest() is the SHA-256 of the ascending u64 list, in whatever order they came", () => {
  const sequence = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  fc.assert(
    fc.property(fc.uniqueArray(sequence, { maxLength: 20 }), (sequences) => {
      const damaged = new DamagedSequences(2 ** 30);
      for (const one of sequences) damaged.add(one, 0);
      const list = Buffer.alloc(8 * sequences.length);
      [...sequences].sort((a, b) => a - b).forEach((one, i) =>
        list.writeBigUInt64BE(BigInt(one), 8 * i)
      );
      const sha256 = createHash("sha256").update(list).digest("hex");
      assert.deepEqual(damaged.digest(), { count: sequences.length, sha256 });
    }),
  );
});
