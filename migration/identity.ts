/**
 * Static keys: one X25519 key pair per host, known to its peers by its public half, as in WireGuard.
 *
 * @module
 * @see https://www.rfc-editor.org/rfc/rfc7748
 */

import { AUTHENTICATION_FAILED, MigrationError } from "./errors.ts";

/** Length of an X25519 key, public or private, and of a shared secret. */
export const KEY_BYTES = 32;
/** Length of a key in padded base64. */
export const ENCODED_KEY_LENGTH = 44;

/** A key pair whose private half stays inside. */
export interface Identity {
  /** 32 bytes. */
  readonly publicKey: Uint8Array<ArrayBuffer>;
  /**
   * The X25519 shared secret with `remotePublic`, 32 bytes.
   *
   * @throws {MigrationError} `handshake` when it would be all zeros: the other key has a small order
   */
  dh(remotePublic: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  /** The private half as 32 raw bytes, for storage. The caller wipes them. */
  exportPrivateKey(): Promise<Uint8Array<ArrayBuffer>>;
}

// PKCS #8 around a raw X25519 private key (RFC 8410 section 7): WebCrypto imports no raw private keys.
const pkcs8Prefix = Uint8Array.fromHex("302e020100300506032b656e04220420");

const basePoint = new Uint8Array(KEY_BYTES);
basePoint[0] = 9;

/** Makes a new key pair. */
export async function generateIdentity(): Promise<Identity> {
  const pair = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  if (!("privateKey" in pair)) throw new TypeError("Cannot generate key: no key pair came back");
  return await fromPrivateKey(pair.privateKey);
}

/**
 * The key pair of a stored private key.
 *
 * @param privateKey 32 raw bytes; copied
 * @throws {MigrationError} `usage` when it has another length
 */
export async function importIdentity(privateKey: Uint8Array): Promise<Identity> {
  if (privateKey.length !== KEY_BYTES) {
    throw new MigrationError(
      "usage",
      `Cannot import private key: it is not ${KEY_BYTES} bytes long`,
    );
  }
  const pkcs8 = new Uint8Array(pkcs8Prefix.length + KEY_BYTES);
  pkcs8.set(pkcs8Prefix);
  pkcs8.set(privateKey, pkcs8Prefix.length);
  try {
    return await fromPrivateKey(
      await crypto.subtle.importKey("pkcs8", pkcs8, { name: "X25519" }, true, ["deriveBits"]),
    );
  } finally {
    pkcs8.fill(0);
  }
}

async function fromPrivateKey(key: CryptoKey): Promise<Identity> {
  return {
    // RFC 7748 section 6.1: the public key is X25519(private key, 9).
    publicKey: await sharedSecret(key, basePoint),
    dh: (remotePublic) => sharedSecret(key, remotePublic),
    async exportPrivateKey() {
      const pkcs8 = new Uint8Array(await crypto.subtle.exportKey("pkcs8", key));
      const raw = pkcs8.slice(pkcs8Prefix.length);
      pkcs8.fill(0);
      return raw;
    },
  };
}

async function sharedSecret(
  key: CryptoKey,
  remotePublic: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  let secret: Uint8Array<ArrayBuffer>;
  try {
    const remote = await crypto.subtle.importKey(
      "raw",
      new Uint8Array(remotePublic),
      { name: "X25519" },
      false,
      [],
    );
    const bits = await crypto.subtle.deriveBits({ name: "X25519", public: remote }, key, 256);
    secret = new Uint8Array(bits);
  } catch (cause) {
    throw new MigrationError("handshake", AUTHENTICATION_FAILED, { cause });
  }
  // RFC 7748 section 6.1: an all-zero secret means that the other side contributed nothing.
  if (secret.every((byte) => byte === 0)) {
    throw new MigrationError("handshake", AUTHENTICATION_FAILED);
  }
  return secret;
}

/**
 * A key of 32 bytes as 44 characters of padded base64 (RFC 4648 section 4).
 *
 * @throws {MigrationError} `usage` when it has another length
 */
export function encodeKey(key: Uint8Array): string {
  if (key.length !== KEY_BYTES) {
    throw new MigrationError("usage", `Cannot encode key: it is not ${KEY_BYTES} bytes long`);
  }
  return key.toBase64();
}

/**
 * Reads what {@linkcode encodeKey} writes, and nothing else: no whitespace, no other alphabet, no bits
 * set in the padding.
 *
 * @throws {MigrationError} `usage`
 *
 * @example
 * ```ts
 * import { decodeKey, encodeKey } from "./identity.ts";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const text = encodeKey(key);
 * console.assert(text.length === 44 && decodeKey(text)[31] === key[31]);
 * ```
 */
export function decodeKey(text: string): Uint8Array<ArrayBuffer> {
  if (!isEncodedKey(text)) {
    throw new MigrationError(
      "usage",
      `Cannot read key: it is not ${ENCODED_KEY_LENGTH} characters of base64`,
    );
  }
  return Uint8Array.fromBase64(text);
}

/** Whether {@linkcode decodeKey} accepts `text`. */
export function isEncodedKey(text: string): boolean {
  // 42 digits, one that leaves its two low bits zero, and the padding: exactly one text per key.
  return /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/.test(text);
}
