import assert from "node:assert/strict";
import fc from "fast-check";
import { Rc4 } from "../../ciphers/rc4.ts";
import vectors from "../vectors/rc4.json" with { type: "json" };
import { naiveRc4 } from "./_naive_rc4.ts";

for (const { key, stream } of vectors.vectors) {
  Deno.test(`Rc4 gives the key stream of RFC 6229 for a key of ${key.length * 4} bits`, () => {
    using rc4 = new Rc4();
    rc4.setKey(Uint8Array.fromHex(key));
    const bytes = new Uint8Array(4112);
    rc4.xor(bytes, bytes);
    for (const [offset, expected] of Object.entries(stream)) {
      assert.equal(bytes.slice(Number(offset), Number(offset) + 16).toHex(), expected, offset);
    }
  });
}

Deno.test("Rc4.xor() agrees with the textbook, in pieces and in place, when keyed again and again", () => {
  using rc4 = new Rc4();
  fc.assert(fc.property(
    fc.uint8Array({ minLength: 1, maxLength: 256 }),
    fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }),
    (key, pieces) => {
      const plaintext = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
      rc4.setKey(key);
      const ours = pieces.flatMap((piece) => {
        const view = piece.slice();
        rc4.xor(view, view);
        return [...view];
      });
      const stream = naiveRc4(key, plaintext.length);
      assert.deepEqual(ours, Array.from(plaintext, (byte, i) => byte ^ stream[i]!));
    },
  ));
});

Deno.test("Rc4.setKey() refuses a key that RC4 cannot take", () => {
  using rc4 = new Rc4();
  assert.throws(() => rc4.setKey(new Uint8Array()), RangeError);
  assert.throws(() => rc4.setKey(new Uint8Array(257)), RangeError);
});

// Mantin and Shamir, "A Practical Attack on Broadcast RC4" (2001): byte 2 of the stream is 0 in one of 128
// keys instead of one of 256, so the same byte sent under many keys shows.
Deno.test("Rc4 is biased: the second byte of its stream is zero twice as often as it should be", () => {
  using rc4 = new Rc4();
  const key = new Uint32Array(4);
  const stream = new Uint8Array(2);
  const keys = 65_536;
  let zeros = 0;
  let state = 0x9e37_79b9;
  for (let i = 0; i < keys; i++) {
    // xorshift32: keys that have nothing to do with each other, and are the same in every run.
    for (let word = 0; word < key.length; word++) {
      state ^= state << 13;
      state ^= state >>> 17;
      key[word] = state ^= state << 5;
    }
    rc4.setKey(new Uint8Array(key.buffer));
    rc4.xor(stream.fill(0), stream);
    if (stream[1] === 0) zeros++;
  }
  // 256 are due; 1.6 times as many are over 9 standard deviations away.
  assert(zeros > 1.6 * keys / 256, `${zeros} zeros in ${keys} streams`);
});
