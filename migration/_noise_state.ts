/**
 * The symmetric half of a Noise handshake, as `noise.ts` uses it.
 *
 * @module
 * @see https://noiseprotocol.org/noise.html section 5
 */

import { sha256 } from "../ciphers/digest.ts";
import { guardOpener, guardSealer } from "../ciphers/guard.ts";
import { defaultRegistry } from "../ciphers/registry.ts";
import type { CipherSuite } from "../ciphers/suite.ts";
import { hkdfExpand, hkdfExtract } from "./_hkdf.ts";
import { AUTHENTICATION_FAILED, MigrationError } from "./errors.ts";
import { KEY_BYTES } from "./identity.ts";
import { TAG_BYTES } from "./limits.ts";

/** `Noise_<pattern>_<DH>_<cipher>_<hash>` (Noise section 8): just as long as a hash. */
const PROTOCOL_NAME = "Noise_IKpsk2_25519_AESGCM_SHA256";

/** Noise section 5.2, with the CipherState of section 5.1 inside: `key` and `nonce`. */
export class SymmetricState {
  /** InitializeSymmetric: the name fits a hash exactly, so it is not hashed. */
  #hash: Uint8Array<ArrayBuffer> = new TextEncoder().encode(PROTOCOL_NAME);
  #chainingKey = this.#hash.slice();
  #key = new Uint8Array(0);
  #nonce = 0;

  /** MixHash: data that both sides must have seen alike. */
  mixHash(data: Uint8Array): void {
    this.#hash = sha256(concat([this.#hash, data]));
  }

  /** Token `e`; with a psk in the pattern the ephemeral key goes into the key too (section 9.2). */
  mixEphemeral(publicKey: Uint8Array): void {
    this.mixHash(publicKey);
    this.#mixKey(publicKey);
  }

  /** The DH tokens: MixKey, after which the secret is wiped. */
  mixSecret(secret: Uint8Array): void {
    this.#mixKey(secret);
    secret.fill(0);
  }

  /** Token `psk` (section 9.2). */
  mixKeyAndHash(psk: Uint8Array): void {
    const [chainingKey, forHash, key] = this.#derive(psk);
    this.#setKey(chainingKey, key);
    this.mixHash(forHash);
    forHash.fill(0);
  }

  /** EncryptAndHash. */
  encryptAndHash(plaintext: Uint8Array): Uint8Array<ArrayBuffer> {
    using sealer = guardSealer(aesGcm(), this.#key);
    const ciphertext = new Uint8Array(plaintext.length + TAG_BYTES);
    sealer.begin(this.#nextNonce(), this.#hash);
    if (plaintext.length > 0) sealer.update(plaintext, ciphertext.subarray(0, plaintext.length));
    sealer.finish(ciphertext.subarray(plaintext.length));
    this.mixHash(ciphertext);
    return ciphertext;
  }

  /** DecryptAndHash. @throws {MigrationError} `handshake` when it does not authenticate */
  decryptAndHash(ciphertext: Uint8Array): Uint8Array<ArrayBuffer> {
    const length = ciphertext.length - TAG_BYTES;
    if (length < 0) throw new MigrationError("handshake", AUTHENTICATION_FAILED);
    using opener = guardOpener(aesGcm(), this.#key);
    const plaintext = new Uint8Array(length);
    opener.begin(this.#nextNonce(), this.#hash, ciphertext.subarray(length));
    if (length > 0) opener.update(ciphertext.subarray(0, length), plaintext);
    if (!opener.finish()) throw new MigrationError("handshake", AUTHENTICATION_FAILED);
    this.mixHash(ciphertext);
    return plaintext;
  }

  /** Split: the first key seals what the initiator sends. Nothing can be done with this state after it. */
  split(): {
    handshakeHash: Uint8Array<ArrayBuffer>;
    first: Uint8Array<ArrayBuffer>;
    second: Uint8Array<ArrayBuffer>;
  } {
    const [first, second, unused] = this.#derive(new Uint8Array(0));
    unused.fill(0);
    this.#chainingKey.fill(0);
    this.#key.fill(0);
    return { handshakeHash: this.#hash, first, second };
  }

  #mixKey(inputKey: Uint8Array): void {
    const [chainingKey, key, unused] = this.#derive(inputKey);
    unused.fill(0);
    this.#setKey(chainingKey, key);
  }

  #setKey(chainingKey: Uint8Array<ArrayBuffer>, key: Uint8Array<ArrayBuffer>): void {
    this.#chainingKey.fill(0);
    this.#chainingKey = chainingKey;
    this.#key.fill(0);
    this.#key = key;
    this.#nonce = 0;
  }

  /** HKDF of section 4.3 is RFC 5869 with the chaining key as salt and no info; output n does not depend on how many follow. */
  #derive(inputKey: Uint8Array) {
    const pseudorandomKey = hkdfExtract(this.#chainingKey, inputKey);
    const output = hkdfExpand(pseudorandomKey, new Uint8Array(0), { length: 3 * KEY_BYTES });
    pseudorandomKey.fill(0);
    const outputs = [
      output.slice(0, KEY_BYTES),
      output.slice(KEY_BYTES, 2 * KEY_BYTES),
      output.slice(2 * KEY_BYTES),
    ] as const;
    output.fill(0);
    return outputs;
  }

  /** Section 12.4: 32 zero bits, then the counter big-endian. It counts to one here: a DH follows every seal but one. */
  #nextNonce(): Uint8Array {
    const nonce = new Uint8Array(12);
    new DataView(nonce.buffer).setUint32(8, this.#nonce++);
    return nonce;
  }
}

/** Noise's AESGCM (section 12.4). */
function aesGcm(): CipherSuite {
  return defaultRegistry().get("aes-256-gcm");
}

/** One after another. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
