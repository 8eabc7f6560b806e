import assert from "node:assert/strict";
import { expand, extract } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { hkdfExpand, hkdfExtract } from "../../migration/_hkdf.ts";
import file from "../vectors/hkdf_sha256.json" with { type: "json" };
import { libcrypto } from "../../ciphers/libcrypto.ts";

// Kept open for the life of the process.
libcrypto();

for (const vector of file.vectors) {
  Deno.test(`hkdfExtract() and hkdfExpand() agree with RFC 5869 ${vector.name}`, () => {
    const prk = hkdfExtract(Uint8Array.fromHex(vector.salt), Uint8Array.fromHex(vector.ikm));
    assert.equal(prk.toHex(), vector.prk);
    const { length } = vector;
    assert.equal(hkdfExpand(prk, Uint8Array.fromHex(vector.info), { length }).toHex(), vector.okm);
  });
}

Deno.test("hkdfExpand() agrees with another implementation for any input and length", () => {
  const bytes = fc.uint8Array({ maxLength: 100 });
  fc.assert(
    fc.property(
      bytes,
      bytes,
      bytes,
      fc.integer({ min: 1, max: 300 }),
      (salt, ikm, info, length) => {
        const prk = hkdfExtract(salt, ikm);
        assert.deepEqual([...prk], [...extract(sha256, ikm, salt)]);
        assert.deepEqual(
          [...hkdfExpand(prk, info, { length })],
          [...expand(sha256, prk, info, length)],
        );
      },
    ),
  );
});

Deno.test("hkdfExpand() refuses a length when it is outside RFC 5869's bounds", () => {
  const nothing = new Uint8Array(0);
  for (const length of [0, -1, 1.5, 255 * 32 + 1, NaN]) {
    assert.throws(() => hkdfExpand(nothing, nothing, { length }), RangeError);
  }
  assert.equal(hkdfExpand(nothing, nothing, { length: 255 * 32 }).length, 255 * 32);
});
