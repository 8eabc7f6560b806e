/**
 * The portable backend: the same suites on `node:crypto`. It needs no permission and no library, and is
 * slower: each message sets up the key anew, each piece is copied once more.
 *
 * @module
 */

import type { CipherGCM, CipherGCMTypes, Cipheriv, DecipherGCM } from "node:crypto";
import { checkLength } from "./_checks.ts";
import { nodeCrypto } from "./_node.ts";
import { CipherError } from "./errors.ts";
import type { KeyStream } from "./key_stream.ts";
import { sealedSuiteIds, sealedSuites, type SuiteMetadata } from "./sealed.ts";
import type { CipherSuite, Opener, Sealer } from "./suite.ts";

/** The built-in suites on `node:crypto`, in the order of `sealedSuiteIds`. */
export function nodeCryptoSuites(): CipherSuite[] {
  return sealedSuiteIds.map((id) => ({
    ...sealedSuites[id],
    backend: "node:crypto",
    createSealer: (key) => new NodeSealer(sealedSuites[id], { key }),
    createOpener: (key) => new NodeOpener(sealedSuites[id], { key }),
  }));
}

/** AES-256 in CTR mode, for the paper's suite; the IV is the whole initial counter block, 16 bytes. */
export function nodeAes256Ctr(key: Uint8Array): KeyStream {
  return new NodeCtr(key);
}

/** Node's names are the wire ids; its types know ChaCha20-Poly1305 as one more cipher of GCM's shape. */
function algorithmOf(suite: SuiteMetadata): CipherGCMTypes {
  return suite.id as CipherGCMTypes;
}

class NodeSealer implements Sealer {
  readonly #suite: SuiteMetadata;
  readonly #key: Uint8Array;
  #message: CipherGCM | null = null;

  constructor(suite: SuiteMetadata, options: { key: Uint8Array }) {
    checkLength(options.key, suite.keyBytes, { code: "keyLength", what: "key" });
    this.#suite = suite;
    this.#key = options.key.slice();
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array): void {
    checkLength(nonce, this.#suite.nonceBytes, { code: "nonceLength", what: "nonce" });
    const options = { authTagLength: this.#suite.tagBytes };
    this.#message = nodeCrypto().createCipheriv(
      algorithmOf(this.#suite),
      this.#key,
      nonce,
      options,
    );
    this.#message.setAAD(associatedData);
  }

  update(from: Uint8Array, to: Uint8Array): void {
    checkLength(to, from.length, { code: "dataLength", what: "piece" });
    to.set(begun(this.#message).update(from));
  }

  finish(tag: Uint8Array): void {
    checkLength(tag, this.#suite.tagBytes, { code: "tagLength", what: "tag" });
    const message = begun(this.#message);
    this.#message = null;
    message.final();
    tag.set(message.getAuthTag());
  }

  [Symbol.dispose](): void {
    abandon(this.#message);
    this.#message = null;
    this.#key.fill(0);
  }
}

class NodeOpener implements Opener {
  readonly #suite: SuiteMetadata;
  readonly #key: Uint8Array;
  #message: DecipherGCM | null = null;

  constructor(suite: SuiteMetadata, options: { key: Uint8Array }) {
    checkLength(options.key, suite.keyBytes, { code: "keyLength", what: "key" });
    this.#suite = suite;
    this.#key = options.key.slice();
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array, tag: Uint8Array): void {
    checkLength(nonce, this.#suite.nonceBytes, { code: "nonceLength", what: "nonce" });
    checkLength(tag, this.#suite.tagBytes, { code: "tagLength", what: "tag" });
    const options = { authTagLength: this.#suite.tagBytes };
    this.#message = nodeCrypto().createDecipheriv(
      algorithmOf(this.#suite),
      this.#key,
      nonce,
      options,
    );
    this.#message.setAuthTag(tag.slice());
    this.#message.setAAD(associatedData);
  }

  update(from: Uint8Array, to: Uint8Array): void {
    checkLength(to, from.length, { code: "dataLength", what: "piece" });
    to.set(begun(this.#message).update(from));
  }

  finish(): boolean {
    const message = begun(this.#message);
    this.#message = null;
    try {
      message.final();
      return true;
    } catch {
      // `final` throws for one reason: the tag does not match.
      return false;
    }
  }

  [Symbol.dispose](): void {
    abandon(this.#message);
    this.#message = null;
    this.#key.fill(0);
  }
}

class NodeCtr implements KeyStream {
  readonly #key: Uint8Array;
  #message: Cipheriv | null = null;

  constructor(key: Uint8Array) {
    this.#key = key.slice();
  }

  begin(iv: Uint8Array): void {
    this.#message?.final();
    this.#message = nodeCrypto().createCipheriv("aes-256-ctr", this.#key, iv);
  }

  xor(from: Uint8Array, to: Uint8Array): void {
    to.set(begun(this.#message).update(from));
  }

  [Symbol.dispose](): void {
    this.#message?.final();
    this.#message = null;
    this.#key.fill(0);
  }
}

function begun<T>(message: T | null): T {
  if (message === null) throw new CipherError("order", "Cannot use piece: no message was begun");
  return message;
}

/** Ends a message that nobody will finish, so that the runtime frees its state now. */
function abandon(message: CipherGCM | DecipherGCM | null): void {
  try {
    message?.final();
  } catch {
    // The tag of half a message does not match; it is not wanted.
  }
}
