import assert from "node:assert/strict";
import fc from "fast-check";
import {
  conformanceChecks,
  guardOpener,
  guardSealer,
  openLibcrypto,
  type SealedSuiteId,
  sealedSuiteIds,
} from "../../ciphers/mod.ts";
import { libcryptoMissing, references, suites, vectorsOf } from "./_support.ts";

for (const suite of suites) {
  const reference = references[suite.id as SealedSuiteId];
  for (const check of conformanceChecks(suite, { vectors: vectorsOf(suite), reference })) {
    Deno.test(check.name, check.run);
  }

  Deno.test(`${suite.id} (${suite.backend}): agrees with @noble/ciphers on random messages`, () => {
    const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
    fc.assert(
      fc.property(
        bytes(suite.keyBytes),
        bytes(suite.nonceBytes),
        fc.uint8Array({ maxLength: 100 }),
        fc.array(fc.uint8Array({ maxLength: 700 }), { maxLength: 6 }),
        (key, nonce, associatedData, pieces) => {
          const plaintext = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
          const ciphertext = new Uint8Array(plaintext.length);
          const tag = new Uint8Array(suite.tagBytes);
          using sealer = guardSealer(suite, key);
          sealer.begin(nonce, associatedData);
          let at = 0;
          for (const piece of pieces) {
            sealer.update(piece, ciphertext.subarray(at, at += piece.length));
          }
          sealer.finish(tag);
          const theirs = reference({ key, nonce, associatedData, plaintext });
          assert.deepEqual(Uint8Array.from([...ciphertext, ...tag]), Uint8Array.from(theirs));
          using opener = guardOpener(suite, key);
          opener.begin(nonce, associatedData, tag);
          opener.update(ciphertext, ciphertext);
          assert.equal(opener.finish(), true);
          assert.deepEqual(ciphertext, plaintext);
        },
      ),
      { numRuns: 150 },
    );
  });

  Deno.test(`${suite.id} (${suite.backend}): createSealer() throws when used after dispose`, () => {
    const sealer = suite.createSealer(new Uint8Array(suite.keyBytes));
    sealer.begin(new Uint8Array(12), new Uint8Array(1));
    sealer[Symbol.dispose]();
    assert.throws(() => sealer.update(new Uint8Array(1), new Uint8Array(1)));
    assert.throws(() => sealer.finish(new Uint8Array(16)));
  });
}

Deno.test("suites: every built-in suite is under test on every backend", {
  ignore: libcryptoMissing !== null,
}, () => {
  const expected = [...sealedSuiteIds, ...sealedSuiteIds];
  assert.deepEqual(suites.map((suite) => suite.id), expected);
  assert.equal(new Set(suites.map((suite) => suite.backend)).size, 2);
});

Deno.test("vectors: each suite has valid ones and ones that must not open", () => {
  for (const suite of suites) {
    const results = vectorsOf(suite).map((vector) => vector.result);
    assert(results.includes("valid") && results.includes("tagMismatch"), suite.id);
  }
});

Deno.test("openLibcrypto() says `missing` when there is no such library", () => {
  const state = openLibcrypto("/nonexistent/libcrypto.so.3");
  assert(!state.available);
  assert.equal(state.reason, "missing");
  assert(state.cause instanceof Error);
});

Deno.test("openLibcrypto() says `incompatible` when the library is another", {
  ignore: Deno.build.os !== "linux",
}, () => {
  const state = openLibcrypto("libc.so.6");
  assert(!state.available);
  assert.equal(state.reason, "incompatible");
});

Deno.test("openLibcrypto() says `denied` without permission", {
  permissions: { ffi: false },
}, () => {
  const state = openLibcrypto("libcrypto.so.3");
  assert(!state.available);
  assert.equal(state.reason, "denied");
});
