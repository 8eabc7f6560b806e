import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import fc from "fast-check";
import { hmacSha256, sha256 } from "../../ciphers/digest.ts";
import { libcrypto } from "../../ciphers/libcrypto.ts";

// Kept open for the life of the process.
libcrypto();

const bytes = fc.uint8Array({ maxLength: 200 });

Deno.test("sha256() gives FIPS 180-4's example, and what another implementation gives", () => {
  assert.equal(
    sha256(new TextEncoder().encode("abc")).toHex(),
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
  fc.assert(fc.property(bytes, (message) => {
    assert.equal(sha256(message).toHex(), createHash("sha256").update(message).digest("hex"));
  }));
});

Deno.test("hmacSha256() gives RFC 4231's first case, and what another implementation gives, also without a key", () => {
  assert.equal(
    hmacSha256(new Uint8Array(20).fill(0x0b), new TextEncoder().encode("Hi There")).toHex(),
    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
  );
  fc.assert(fc.property(bytes, bytes, (key, message) => {
    const expected = createHmac("sha256", key).update(message).digest("hex");
    assert.equal(hmacSha256(key, message).toHex(), expected);
  }));
  const empty = new Uint8Array(0);
  assert.equal(hmacSha256(empty, empty).toHex(), createHmac("sha256", empty).digest("hex"));
});
