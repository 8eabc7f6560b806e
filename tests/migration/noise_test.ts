import assert from "node:assert/strict";
import { gcm } from "@noble/ciphers/aes.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { libcrypto } from "../../ciphers/libcrypto.ts";
import { AUTHENTICATION_FAILED } from "../../migration/errors.ts";
import { generateIdentity, type Identity, importIdentity } from "../../migration/identity.ts";
import { NoiseInitiator, NoiseResponder } from "../../migration/noise.ts";
import file from "../vectors/noise_ikpsk2_25519_aesgcm_sha256.json" with { type: "json" };

// Kept open for the life of the process.
libcrypto();

const unhex = (text: string) => Uint8Array.fromHex(text);
const utf8 = (text: string) => new TextEncoder().encode(text);
const join = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));
const none = new Uint8Array(0);

/** Noise section 12.4. */
function nonce(counter: number): Uint8Array {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setBigUint64(4, BigInt(counter));
  return bytes;
}

interface Inputs {
  /** Private keys: static and ephemeral of the initiator, then of the responder. */
  s: Uint8Array;
  e: Uint8Array;
  rs: Uint8Array;
  re: Uint8Array;
  prologue: Uint8Array;
  psk: Uint8Array;
  payload1: Uint8Array;
  payload2: Uint8Array;
}

/** The same handshake straight from the tokens, with other implementations of every primitive. */
function handshakeByNoble(inputs: Inputs) {
  const { s, e, rs, re } = inputs;
  const [S, E, RS, RE] = [s, e, rs, re].map((key) => x25519.getPublicKey(key)) as [
    Uint8Array,
    Uint8Array,
    Uint8Array,
    Uint8Array,
  ];
  let h = utf8("Noise_IKpsk2_25519_AESGCM_SHA256");
  let ck = h;
  let k = none;
  let n = 0;
  const mixHash = (data: Uint8Array) => {
    h = sha256(join(h, data));
  };
  const mixKey = (secret: Uint8Array) => {
    const out = hkdf(sha256, secret, ck, none, 64);
    [ck, k, n] = [out.slice(0, 32), out.slice(32), 0];
  };
  const seal = (plaintext: Uint8Array) => {
    const sealed = gcm(k, nonce(n++), h).encrypt(plaintext);
    mixHash(sealed);
    return sealed;
  };

  mixHash(inputs.prologue);
  mixHash(RS);
  mixHash(E);
  mixKey(E);
  mixKey(x25519.getSharedSecret(e, RS));
  const sealedS = seal(S);
  mixKey(x25519.getSharedSecret(s, RS));
  const message1 = join(E, sealedS, seal(inputs.payload1));

  mixHash(RE);
  mixKey(RE);
  mixKey(x25519.getSharedSecret(re, E));
  mixKey(x25519.getSharedSecret(re, S));
  const out = hkdf(sha256, inputs.psk, ck, none, 96);
  ck = out.slice(0, 32);
  mixHash(out.slice(32, 64));
  [k, n] = [out.slice(64), 0];
  const message2 = join(RE, seal(inputs.payload2));

  const keys = hkdf(sha256, none, ck, none, 64);
  return { message1, message2, h, first: keys.slice(0, 32), second: keys.slice(32) };
}

async function handshake(inputs: Inputs) {
  const identity = await importIdentity(inputs.rs);
  const initiator = new NoiseInitiator({
    identity: await importIdentity(inputs.s),
    remotePublic: identity.publicKey,
    prologue: inputs.prologue,
    psk: inputs.psk,
    ephemeral: await importIdentity(inputs.e),
  });
  const responder = new NoiseResponder({
    identity,
    prologue: inputs.prologue,
    ephemeral: await importIdentity(inputs.re),
  });
  const message1 = await initiator.writeMessage1(inputs.payload1);
  const read1 = await responder.readMessage1(message1);
  const { message: message2, result } = await responder.writeMessage2({
    psk: inputs.psk,
    payload: inputs.payload2,
  });
  const read2 = await initiator.readMessage2(message2);
  return { message1, read1, message2, result, read2 };
}

for (const vector of file.vectors) {
  Deno.test(`NoiseInitiator and NoiseResponder agree with the published vector of ${vector.protocol_name}`, async () => {
    const [m1, m2, ...transport] = vector.messages;
    assert.ok(m1 && m2 && transport.length === 4);
    assert.equal(vector.init_prologue, vector.resp_prologue);
    const { message1, read1, message2, result, read2 } = await handshake({
      s: unhex(vector.init_static),
      e: unhex(vector.init_ephemeral),
      rs: unhex(vector.resp_static),
      re: unhex(vector.resp_ephemeral),
      prologue: unhex(vector.init_prologue),
      psk: unhex(vector.init_psks[0]!),
      payload1: unhex(m1.payload),
      payload2: unhex(m2.payload),
    });
    assert.equal(message1.toHex(), m1.ciphertext);
    assert.equal(message2.toHex(), m2.ciphertext);
    assert.equal(read1.payload.toHex(), m1.payload);
    assert.equal(read2.payload.toHex(), m2.payload);
    assert.equal(result.handshakeHash.toHex(), vector.handshake_hash);
    assert.equal(read2.handshakeHash.toHex(), vector.handshake_hash);

    // Transport messages alternate, the initiator first, each direction with its own counter.
    transport.forEach(({ payload, ciphertext }, index) => {
      const key = index % 2 === 0 ? read2.sendKey : result.sendKey;
      const sealed = gcm(key, nonce(Math.floor(index / 2))).encrypt(unhex(payload));
      assert.equal(sealed.toHex(), ciphertext);
    });
  });
}

Deno.test("NoiseInitiator and NoiseResponder agree with another implementation for any keys and payloads", async () => {
  const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
  const payload = fc.uint8Array({ maxLength: 200 });
  const inputs = fc.record({
    s: key,
    e: key,
    rs: key,
    re: key,
    prologue: payload,
    psk: key,
    payload1: payload,
    payload2: payload,
  });
  await fc.assert(
    fc.asyncProperty(inputs, async (one) => {
      const ours = await handshake(one);
      const theirs = handshakeByNoble(one);
      assert.equal(ours.message1.toHex(), theirs.message1.toHex());
      assert.equal(ours.message2.toHex(), theirs.message2.toHex());
      assert.equal(ours.read1.remotePublic.toHex(), x25519.getPublicKey(one.s).toHex());
      for (const side of [ours.result, ours.read2]) {
        assert.equal(side.handshakeHash.toHex(), theirs.h.toHex());
      }
      assert.equal(ours.read2.sendKey.toHex(), theirs.first.toHex());
      assert.equal(ours.read2.receiveKey.toHex(), theirs.second.toHex());
      assert.equal(ours.result.sendKey.toHex(), theirs.second.toHex());
      assert.equal(ours.result.receiveKey.toHex(), theirs.first.toHex());
    }),
    { numRuns: 15 },
  );
});

const prologue = utf8("sealift/1");
const psk = new Uint8Array(32);
const opening = new Uint8Array(17).fill(1);
const refused = { name: "MigrationError", code: "handshake", message: AUTHENTICATION_FAILED };

async function pair(
  changes: { remotePublic?: Uint8Array; prologue?: Uint8Array; psk?: Uint8Array },
) {
  const [source, destination] = [await generateIdentity(), await generateIdentity()];
  const initiator = new NoiseInitiator({
    identity: source,
    remotePublic: destination.publicKey,
    prologue,
    psk,
    ...changes,
  });
  const responder = new NoiseResponder({ identity: destination, prologue });
  return { source, destination, initiator, responder };
}

Deno.test("writeMessage1() and writeMessage2() have the fixed sizes of PROTOCOL.md section 2", async () => {
  const { source, initiator, responder } = await pair({});
  const message1 = await initiator.writeMessage1(opening);
  assert.equal(message1.length, 113);
  const { remotePublic, payload } = await responder.readMessage1(message1);
  assert.deepEqual(remotePublic, source.publicKey);
  assert.deepEqual(payload, opening);
  const { message, result } = await responder.writeMessage2({ psk });
  assert.equal(message.length, 48);
  const answer = await initiator.readMessage2(message);
  assert.deepEqual(answer.sendKey, result.receiveKey);
  assert.deepEqual(answer.receiveKey, result.sendKey);
  assert.notDeepEqual(answer.sendKey, answer.receiveKey);
  assert.equal(answer.payload.length, 0);
});

Deno.test("writeMessage1() never sends the same bytes twice", async () => {
  const { initiator, source, destination } = await pair({});
  const again = new NoiseInitiator({
    identity: source,
    remotePublic: destination.publicKey,
    prologue,
    psk,
  });
  const [a, b] = [await initiator.writeMessage1(opening), await again.writeMessage1(opening)];
  assert.notEqual(a.toHex().slice(0, 64), b.toHex().slice(0, 64));
});

Deno.test("readMessage1() refuses message 1 when any of its bytes was changed", async () => {
  const { destination, initiator } = await pair({});
  const message1 = await initiator.writeMessage1(opening);
  for (let at = 0; at < message1.length; at++) {
    const changed = message1.slice();
    // X25519 ignores the highest bit of a key, the hash does not.
    changed[at]! ^= at === 31 ? 0x80 : 1 << (at % 8);
    const responder = new NoiseResponder({ identity: destination, prologue });
    await assert.rejects(responder.readMessage1(changed), refused, `byte ${at}`);
  }
});

Deno.test("readMessage2() refuses message 2 when any of its bytes was changed", async () => {
  const keys = { source: await generateIdentity(), destination: await generateIdentity() };
  const ephemeral: Identity = await generateIdentity();
  const initiate = () =>
    new NoiseInitiator({
      identity: keys.source,
      remotePublic: keys.destination.publicKey,
      prologue,
      psk,
      ephemeral,
    });
  const responder = new NoiseResponder({ identity: keys.destination, prologue });
  await responder.readMessage1(await initiate().writeMessage1(opening));
  const { message } = await responder.writeMessage2({ psk });
  for (let at = 0; at < message.length; at++) {
    const changed = message.slice();
    changed[at]! ^= at === 31 ? 0x80 : 1 << (at % 8);
    const initiator = initiate();
    await initiator.writeMessage1(opening);
    await assert.rejects(initiator.readMessage2(changed), refused, `byte ${at}`);
  }
  // The very message is fine: it was the change.
  const initiator = initiate();
  await initiator.writeMessage1(opening);
  await initiator.readMessage2(message);
});

Deno.test("readMessage1() refuses message 1 when it was made for another key or prologue", async () => {
  const other = await generateIdentity();
  for (const changes of [{ remotePublic: other.publicKey }, { prologue: utf8("sealift/2") }]) {
    const { initiator, responder } = await pair(changes);
    const message1 = await initiator.writeMessage1(opening);
    await assert.rejects(responder.readMessage1(message1), refused);
  }
});

Deno.test("readMessage2() refuses message 2 when the psk is another", async () => {
  const { initiator, responder } = await pair({ psk: new Uint8Array(32).fill(7) });
  await responder.readMessage1(await initiator.writeMessage1(opening));
  const { message } = await responder.writeMessage2({ psk });
  await assert.rejects(initiator.readMessage2(message), refused);
});

Deno.test("readMessage1() and readMessage2() refuse a message when it is cut or too long", async () => {
  for (const length of [0, 31, 95, 65_536]) {
    const { responder } = await pair({});
    await assert.rejects(responder.readMessage1(new Uint8Array(length).fill(9)), refused);
  }
  for (const length of [0, 31, 47, 65_536]) {
    const { initiator } = await pair({});
    await initiator.writeMessage1(opening);
    await assert.rejects(initiator.readMessage2(new Uint8Array(length).fill(9)), refused);
  }
});

Deno.test("readMessage1() refuses an ephemeral key when it is of small order", async () => {
  const { initiator, responder } = await pair({});
  const message1 = await initiator.writeMessage1(opening);
  message1.fill(0, 0, 32);
  await assert.rejects(responder.readMessage1(message1), refused);
});

Deno.test("NoiseInitiator and NoiseResponder make one handshake, in order", async () => {
  const { initiator, responder } = await pair({});
  await assert.rejects(initiator.readMessage2(new Uint8Array(48)), TypeError);
  await assert.rejects(responder.writeMessage2({ psk }), TypeError);
  const message1 = await initiator.writeMessage1(opening);
  await assert.rejects(initiator.writeMessage1(opening), TypeError);
  await responder.readMessage1(message1);
  await assert.rejects(responder.readMessage1(message1), TypeError);
  const { message } = await responder.writeMessage2({ psk });
  await assert.rejects(responder.writeMessage2({ psk }), TypeError);
  await initiator.readMessage2(message);
  await assert.rejects(initiator.readMessage2(message), TypeError);
});

Deno.test("NoiseResponder stays failed when message 1 was refused", async () => {
  const { initiator, responder } = await pair({});
  const message1 = await initiator.writeMessage1(opening);
  await assert.rejects(responder.readMessage1(message1.with(60, message1[60]! ^ 1)), refused);
  await assert.rejects(responder.readMessage1(message1), TypeError);
  await assert.rejects(responder.writeMessage2({ psk }), TypeError);
});

Deno.test("NoiseInitiator and NoiseResponder refuse a key or payload when its length cannot be", async () => {
  await assert.rejects(pair({ remotePublic: new Uint8Array(31) }), { code: "usage" });
  await assert.rejects(pair({ psk: new Uint8Array(33) }), { code: "usage" });
  const { initiator } = await pair({});
  await assert.rejects(initiator.writeMessage1(new Uint8Array(65_535 - 95)), RangeError);
});
