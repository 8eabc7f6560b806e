import assert from "node:assert/strict";
import { expand, hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { libcrypto } from "../../ciphers/libcrypto.ts";
import { deriveMigrationSecret, KeySchedule } from "../../migration/key_schedule.ts";
import vector from "../vectors/key_schedule.json" with { type: "json" };

// Kept open for the life of the process.
libcrypto();

const encoder = new TextEncoder();
const inputs = {
  handshakeHash: Uint8Array.fromHex(vector.handshakeHash),
  sourceRandom: Uint8Array.fromHex(vector.sourceRandom),
  destinationRandom: Uint8Array.fromHex(vector.destinationRandom),
  offerBytes: encoder.encode(vector.offer),
  acceptBytes: encoder.encode(vector.accept),
};
const secret = Uint8Array.fromHex(vector.migrationSecret);

function hex(...parts: (string | Uint8Array)[]): Uint8Array {
  const text = parts.map((part) =>
    (typeof part === "string" ? encoder.encode(part) : part).toHex()
  );
  return Uint8Array.fromHex(text.join(""));
}

Deno.test("deriveMigrationSecret() agrees with the fixed vector", () => {
  assert.equal(deriveMigrationSecret(inputs).toHex(), vector.migrationSecret);
});

Deno.test("deriveMigrationSecret() agrees with another implementation", () => {
  const info = hex("sealift/1 migration", sha256(inputs.offerBytes), sha256(inputs.acceptBytes));
  const ikm = hex(inputs.sourceRandom, inputs.destinationRandom);
  const other = hkdf(sha256, ikm, inputs.handshakeHash, info, 32);
  assert.equal(deriveMigrationSecret(inputs).toHex(), other.toHex());
});

Deno.test("deriveMigrationSecret() gives another secret when one byte of any input differs", () => {
  const seen = new Set([vector.migrationSecret]);
  for (const name of Object.keys(inputs) as (keyof typeof inputs)[]) {
    const changed = inputs[name].slice();
    changed[5]! ^= 1;
    seen.add(deriveMigrationSecret({ ...inputs, [name]: changed }).toHex());
  }
  seen.add(
    (deriveMigrationSecret({
      ...inputs,
      sourceRandom: inputs.destinationRandom,
      destinationRandom: inputs.sourceRandom,
    })).toHex(),
  );
  assert.equal(seen.size, 7);
});

Deno.test("deriveMigrationSecret() refuses an input when its length is wrong", () => {
  for (const name of ["handshakeHash", "sourceRandom", "destinationRandom"] as const) {
    for (const length of [0, 31, 33]) {
      const wrong = { ...inputs, [name]: new Uint8Array(length) };
      assert.throws(() => deriveMigrationSecret(wrong), RangeError);
    }
  }
});

Deno.test("KeySchedule.joinKey() agrees with the fixed vector and another implementation", () => {
  using keys = new KeySchedule(secret);
  assert.equal(keys.joinKey().toHex(), vector.joinKey);
  assert.equal(
    keys.joinKey().toHex(),
    expand(sha256, secret, encoder.encode("sealift/1 join"), 32).toHex(),
  );
});

for (const { key, ...name } of vector.dataKeys) {
  Deno.test(`KeySchedule.dataKey() agrees with the vector of ${name.suiteId}, key ${name.keyNumber}, lane ${name.lane}`, () => {
    using keys = new KeySchedule(secret);
    assert.equal(keys.dataKey(name).toHex(), key);
    const numbers = new Uint8Array(8);
    const view = new DataView(numbers.buffer);
    view.setUint16(1, name.lane);
    view.setUint32(3, name.keyNumber);
    view.setUint8(7, name.suiteId.length);
    const info = hex("sealift/1 data", numbers, name.suiteId);
    assert.equal(key, expand(sha256, secret, info, name.keyBytes).toHex());
  });
}

Deno.test("KeySchedule.dataKey() never gives two names one key", () => {
  using keys = new KeySchedule(secret);
  const seen = new Set<string>();
  for (const suiteId of ["aes-256-gcm", "chacha20-poly1305", "a"]) {
    for (const lane of [0, 1, 256]) {
      for (const keyNumber of [0, 1, 256, 65536]) {
        seen.add(keys.dataKey({ lane, keyNumber, suiteId, keyBytes: 32 }).toHex());
      }
    }
  }
  assert.equal(seen.size, 36);
});

Deno.test("KeySchedule.dataKey() refuses a name when a number does not fit its field", () => {
  using keys = new KeySchedule(secret);
  const name = { lane: 0, keyNumber: 0, suiteId: "aes-256-gcm", keyBytes: 32 };
  for (
    const wrong of [
      { lane: 65536 },
      { lane: -1 },
      { lane: 0.5 },
      { keyNumber: 2 ** 32 },
      { keyNumber: -1 },
      { suiteId: "x".repeat(256) },
      { keyBytes: 0 },
    ]
  ) assert.throws(() => keys.dataKey({ ...name, ...wrong }), RangeError);
});

Deno.test("KeySchedule keeps its own copy of the secret, and derives nothing when disposed", () => {
  const own = secret.slice();
  const keys = new KeySchedule(own);
  own.fill(0);
  assert.equal(keys.joinKey().toHex(), vector.joinKey);
  keys[Symbol.dispose]();
  assert.throws(() => keys.joinKey(), TypeError);
  assert.throws(() => new KeySchedule(new Uint8Array(31)), RangeError);
});
