/**
 * A cipher suite of a third party, worked out: AES-256-GCM-SIV from @noble/ciphers, which stays safe when a
 * nonce repeats by accident. It is pure JavaScript, so much slower than the built-in suites.
 *
 * `sealift ciphers --measure --plugin scripts/suites/aes_256_gcm_siv.ts` checks and measures it. To move a
 * VM with it, give `--plugin` to both sides, and `--cipher example.com/aes-256-gcm-siv` to the source.
 *
 * What a suite of one's own has to provide is all here: metadata with an id of one's own domain, a sealer
 * and an opener that do their work before they return. Sizes of messages, order of calls, nonces and limits
 * are the guard's; the suite checks the lengths that keep its own memory safe.
 *
 * @see {@link https://www.rfc-editor.org/rfc/rfc8452 RFC 8452}
 * @module
 */

import { gcmsiv } from "@noble/ciphers/aes.js";
import type { CipherSuite, Opener, Sealer } from "../../mod.ts";

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** AES-256-GCM-SIV: AEAD_AES_256_GCM_SIV of RFC 8452 section 6. */
const suite: CipherSuite = {
  id: "example.com/aes-256-gcm-siv",
  profile: "sealed",
  keyBytes: KEY_BYTES,
  nonceBytes: NONCE_BYTES,
  tagBytes: TAG_BYTES,
  // As for AES-GCM (NIST SP 800-38D section 8.3, RFC 8446 section 5.5). Keys derived for each nonce make
  // GCM-SIV safe for more (RFC 8452 section 9); nothing here needs more.
  maxMessagesPerKey: 2 ** 32,
  maxBytesPerKey: 2 ** 38,
  backend: "@noble/ciphers",
  createSealer: (key) => new SivSealer(key),
  createOpener: (key) => new SivOpener(key),
};

export default suite;

/** A piece of a message, where it is and where it goes. */
interface Piece {
  from: Uint8Array;
  to: Uint8Array;
}

/**
 * The message that is under way. GCM-SIV reads all of the plaintext before it has the first byte of
 * ciphertext (RFC 8452 section 4), so the pieces are kept; `from` and `to` stay as they are until `finish`.
 */
class SivMessage {
  readonly #key: Uint8Array;
  #nonce: Uint8Array | null = null;
  #associatedData = new Uint8Array();
  #pieces: Piece[] = [];

  constructor(key: Uint8Array) {
    checkLength("key", key, KEY_BYTES);
    this.#key = key.slice();
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array): void {
    checkLength("nonce", nonce, NONCE_BYTES);
    this.#nonce = nonce.slice();
    this.#associatedData = associatedData.slice();
    this.#pieces = [];
  }

  add(from: Uint8Array, to: Uint8Array): void {
    checkLength("piece", to, from.length);
    this.#pieces.push({ from, to });
  }

  /** The cipher and the whole message, with `spare` bytes of room behind; the message ends with it. */
  take(spare: number): { cipher: ReturnType<typeof gcmsiv>; bytes: Uint8Array; pieces: Piece[] } {
    if (this.#nonce === null) throw new Error("Cannot use piece: no message was begun");
    const pieces = this.#pieces;
    const cipher = gcmsiv(this.#key, this.#nonce, this.#associatedData);
    this.#nonce = null;
    this.#pieces = [];
    const length = pieces.reduce((sum, { from }) => sum + from.length, 0);
    const bytes = new Uint8Array(length + spare);
    let at = 0;
    for (const { from } of pieces) {
      bytes.set(from, at);
      at += from.length;
    }
    return { cipher, bytes, pieces };
  }

  /** Puts what was made of the message where its pieces go. */
  static deliver(bytes: Uint8Array, pieces: readonly Piece[]): void {
    let at = 0;
    for (const { to } of pieces) to.set(bytes.subarray(at, at += to.length));
  }

  [Symbol.dispose](): void {
    this.#key.fill(0);
    this.#nonce = null;
    this.#pieces = [];
  }
}

class SivSealer implements Sealer {
  readonly #message: SivMessage;

  constructor(key: Uint8Array) {
    this.#message = new SivMessage(key);
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array): void {
    this.#message.begin(nonce, associatedData);
  }

  update(from: Uint8Array, to: Uint8Array): void {
    this.#message.add(from, to);
  }

  finish(tag: Uint8Array): void {
    checkLength("tag", tag, TAG_BYTES);
    const { cipher, bytes, pieces } = this.#message.take(0);
    const sealed = cipher.encrypt(bytes);
    bytes.fill(0);
    SivMessage.deliver(sealed, pieces);
    tag.set(sealed.subarray(-TAG_BYTES));
  }

  [Symbol.dispose](): void {
    this.#message[Symbol.dispose]();
  }
}

class SivOpener implements Opener {
  readonly #message: SivMessage;
  readonly #tag = new Uint8Array(TAG_BYTES);

  constructor(key: Uint8Array) {
    this.#message = new SivMessage(key);
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array, tag: Uint8Array): void {
    checkLength("tag", tag, TAG_BYTES);
    this.#message.begin(nonce, associatedData);
    this.#tag.set(tag);
  }

  update(from: Uint8Array, to: Uint8Array): void {
    this.#message.add(from, to);
  }

  finish(): boolean {
    const { cipher, bytes, pieces } = this.#message.take(TAG_BYTES);
    bytes.set(this.#tag, bytes.length - TAG_BYTES);
    let opened: Uint8Array;
    try {
      opened = cipher.decrypt(bytes);
    } catch {
      // With lengths checked `decrypt` throws for one reason: the tag does not match (RFC 8452 section 5).
      return false;
    }
    SivMessage.deliver(opened, pieces);
    opened.fill(0);
    return true;
  }

  [Symbol.dispose](): void {
    this.#message[Symbol.dispose]();
  }
}

function checkLength(what: string, bytes: Uint8Array, expected: number): void {
  if (bytes.length !== expected) {
    throw new RangeError(
      `Cannot use ${what}: it has ${bytes.length} bytes instead of ${expected}`,
    );
  }
}
