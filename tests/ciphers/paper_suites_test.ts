import assert from "node:assert/strict";
import { ctr } from "@noble/ciphers/aes.js";
import { crc32 } from "../../ciphers/crc32.ts";
import {
  type CipherSuite,
  conformanceChecks,
  guardOpener,
  guardSealer,
  hasKeyPerRound,
  libcrypto,
  paperSuiteIds,
  paperSuites,
  type ReferenceSeal,
} from "../../ciphers/mod.ts";
import { nodeAes256Ctr } from "../../ciphers/node_crypto.ts";
import { libcryptoMissing } from "./_support.ts";
import { naiveRc4 } from "./_naive_rc4.ts";

const library = libcrypto();
const portable = paperSuites({ available: false, reason: "missing", cause: new Error("absent") });
const suites = [
  ...paperSuites(),
  ...portable.filter((suite) => suite.backend === "node:crypto" && library.available),
];

/** P = <M, C(M)>. */
function withChecksum(message: Uint8Array): Uint8Array {
  const joined = new Uint8Array(message.length + 4);
  joined.set(message);
  new DataView(joined.buffer).setUint32(message.length, crc32(message));
  return joined;
}

/** C = P XOR stream(v, k), from the paper's line and implementations that share no code with ours. */
const references: Record<string, ReferenceSeal> = {
  "rc4-round": ({ key, nonce, plaintext }) => {
    const joined = withChecksum(plaintext);
    const stream = naiveRc4([...nonce, ...key], joined.length);
    return joined.map((byte, i) => byte ^ stream[i]!);
  },
  "aes-256-ctr": ({ key, nonce, plaintext }) => {
    const counter = new Uint8Array(16);
    counter.set(nonce);
    return ctr(key, counter).encrypt(withChecksum(plaintext));
  },
  "none": ({ plaintext }) => withChecksum(plaintext),
};
references.rc4 = references["rc4-round"]!;

for (const suite of suites) {
  for (const check of conformanceChecks(suite, { reference: references[suite.id]! })) {
    Deno.test(check.name, check.run);
  }

  Deno.test(`${suite.id} (${suite.backend}): finds a message that was damaged by chance`, () => {
    const { message, nonce, tag, key } = sealed(suite);
    using opener = guardOpener(suite, key);
    for (let bit = 0; bit < message.length * 8; bit += 13) {
      const changed = message.slice();
      changed[bit >> 3]! ^= 1 << (bit & 7);
      opener.begin(nonce, new Uint8Array(), tag);
      opener.update(changed, changed);
      assert.equal(opener.finish(), false, `bit ${bit}`);
    }
  });

  Deno.test(`${suite.id} (${suite.backend}): binds no associated data, as the paper does not`, () => {
    const { message, nonce, tag, key } = sealed(suite);
    using opener = guardOpener(suite, key);
    opener.begin(nonce, Uint8Array.of(9), tag);
    opener.update(message, message);
    assert.equal(opener.finish(), true);
  });

  Deno.test(`${suite.id} (${suite.backend}): createSealer() throws when used after dispose`, () => {
    const sealer = suite.createSealer(new Uint8Array(suite.keyBytes));
    sealer.begin(new Uint8Array(suite.nonceBytes), new Uint8Array());
    sealer[Symbol.dispose]();
    assert.throws(() => sealer.update(new Uint8Array(1), new Uint8Array(1)), { code: "order" });
    assert.throws(() => sealer.finish(new Uint8Array(4)), { code: "order" });
  });
}

/** A page of text, sealed under the kit's header. */
function sealed(suite: CipherSuite) {
  const key = new Uint8Array(suite.keyBytes).fill(7);
  const nonce = new Uint8Array(suite.nonceBytes).fill(1);
  const message = new Uint8Array(300).fill(0x61);
  const tag = new Uint8Array(suite.tagBytes);
  using sealer = guardSealer(suite, key);
  sealer.begin(nonce, new Uint8Array(24));
  sealer.update(message, message);
  sealer.finish(tag);
  return { key, nonce, message, tag };
}

// NIST SP 800-38A, F.5.5 CTR-AES256.Encrypt.
const f55 = {
  key: "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
  counter: "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
  plaintext: "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51" +
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
  ciphertext: "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5" +
    "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
};
const streams = {
  "node:crypto": nodeAes256Ctr,
  "libcrypto": library.available ? library.aes256Ctr : null,
};
for (const [backend, create] of Object.entries(streams)) {
  Deno.test(`aes-256-ctr (${backend}): gives the vector of NIST SP 800-38A F.5.5`, {
    ignore: create === null,
  }, () => {
    using stream = create!(Uint8Array.fromHex(f55.key));
    for (let again = 0; again < 2; again++) {
      const view = Uint8Array.fromHex(f55.plaintext);
      stream.begin(Uint8Array.fromHex(f55.counter));
      stream.xor(view.subarray(0, 21), view.subarray(0, 21));
      stream.xor(view.subarray(21), view.subarray(21));
      assert.equal(view.toHex(), f55.ciphertext);
    }
  });
}

Deno.test("paperSuites() has the four suites, all of the paper's profile", () => {
  assert.deepEqual(paperSuites().map((suite) => suite.id), [...paperSuiteIds]);
  for (const suite of paperSuites()) assert.equal(suite.profile, "paper");
  // v || k is what RC4 takes at most: 2048 bits.
  assert.equal(portable[0]!.nonceBytes + portable[0]!.keyBytes, 256);
});

Deno.test("paperSuites() takes AES from libcrypto where it loads, else from node:crypto", {
  ignore: libcryptoMissing !== null,
}, () => {
  const backend = (suites: CipherSuite[]) =>
    suites.find((suite) => suite.id === "aes-256-ctr")!.backend;
  assert.match(backend(paperSuites()), /^libcrypto 3/);
  assert.equal(backend(portable), "node:crypto");
  assert(library.available);
  assert.equal(backend(paperSuites({ ...library, aes256Ctr: null })), "node:crypto");
});

Deno.test("hasKeyPerRound() is false for the suite with one key only", () => {
  const kept = paperSuites().filter((suite) => !hasKeyPerRound(suite));
  assert.deepEqual(kept.map((suite) => suite.id), ["rc4"]);
});
