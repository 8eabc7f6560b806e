import assert from "node:assert/strict";
import { x25519 } from "@noble/curves/ed25519.js";
import fc from "fast-check";
import { AUTHENTICATION_FAILED } from "../../migration/errors.ts";
import {
  decodeKey,
  encodeKey,
  generateIdentity,
  importIdentity,
  isEncodedKey,
} from "../../migration/identity.ts";

// RFC 7748, section 6.1.
const alice = {
  private: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
  public: "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
};
const bob = {
  private: "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
  public: "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
};
const shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";

Deno.test("importIdentity() agrees with RFC 7748 section 6.1", async () => {
  const a = await importIdentity(Uint8Array.fromHex(alice.private));
  const b = await importIdentity(Uint8Array.fromHex(bob.private));
  assert.equal(a.publicKey.toHex(), alice.public);
  assert.equal(b.publicKey.toHex(), bob.public);
  assert.equal((await a.dh(b.publicKey)).toHex(), shared);
  assert.equal((await b.dh(a.publicKey)).toHex(), shared);
});

Deno.test("Identity agrees with another implementation for any private key", async () => {
  const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
  await fc.assert(
    fc.asyncProperty(key, key, async (own, other) => {
      const identity = await importIdentity(own);
      const remote = x25519.getPublicKey(other);
      assert.equal(identity.publicKey.toHex(), x25519.getPublicKey(own).toHex());
      assert.equal(
        (await identity.dh(remote)).toHex(),
        x25519.getSharedSecret(own, remote).toHex(),
      );
    }),
    { numRuns: 30 },
  );
});

Deno.test("exportPrivateKey() gives what importIdentity() took", async () => {
  const first = await generateIdentity();
  const again = await importIdentity(await first.exportPrivateKey());
  assert.deepEqual(again.publicKey, first.publicKey);
  const raw = Uint8Array.fromHex(alice.private);
  assert.equal((await (await importIdentity(raw)).exportPrivateKey()).toHex(), alice.private);
});

Deno.test("generateIdentity() never makes one key twice", async () => {
  const [a, b] = [await generateIdentity(), await generateIdentity()];
  assert.notEqual(a.publicKey.toHex(), b.publicKey.toHex());
});

Deno.test("Identity.dh() refuses a remote key when the secret would be all zeros", async () => {
  const identity = await generateIdentity();
  const points = [
    "00".repeat(32),
    "01" + "00".repeat(31),
    // Order 8, and p, which is another zero.
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  ];
  for (const point of points) {
    await assert.rejects(identity.dh(Uint8Array.fromHex(point)), {
      name: "MigrationError",
      code: "handshake",
      message: AUTHENTICATION_FAILED,
    });
  }
});

Deno.test("Identity.dh() refuses a remote key when it is not 32 bytes long", async () => {
  const identity = await generateIdentity();
  for (const length of [0, 31, 33]) {
    await assert.rejects(identity.dh(new Uint8Array(length).fill(9)), { code: "handshake" });
  }
});

Deno.test("importIdentity() refuses a key when it is not 32 bytes long", async () => {
  for (const length of [0, 31, 33]) {
    await assert.rejects(importIdentity(new Uint8Array(length)), { code: "usage" });
  }
});

Deno.test("decodeKey() gives what encodeKey() took, and every key has one text", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (key) => {
      const text = encodeKey(key);
      assert.equal(text.length, 44);
      assert.deepEqual([...decodeKey(text)], [...key]);
    }),
  );
});

Deno.test("decodeKey() refuses a text when it is not exactly what encodeKey() writes", () => {
  const good = encodeKey(Uint8Array.fromHex(alice.public));
  const wrong = [
    "",
    good.slice(0, 43),
    ` ${good}`,
    `${good}\n`,
    good.slice(0, 42) + "==",
    good.slice(0, 43) + "A",
    "-" + good.slice(1),
    "_" + good.slice(1),
    // The last digit has two bits that no key uses.
    "A".repeat(42) + "B=",
  ];
  for (const text of wrong) {
    assert.equal(isEncodedKey(text), false, JSON.stringify(text));
    assert.throws(() => decodeKey(text), { name: "MigrationError", code: "usage" });
  }
  assert.throws(() => encodeKey(new Uint8Array(31)), { code: "usage" });
});
