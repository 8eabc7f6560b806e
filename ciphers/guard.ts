/**
 * The guard: every suite is used only through it. It makes sizes, order, nonces and limits the same for
 * all suites, whoever wrote them, and costs a few nanoseconds a piece.
 *
 * Sealift's nonces are sequences (PROTOCOL.md section 4): read as big-endian integers they only grow
 * under one key. So "never used twice" needs no memory of past nonces: a sealer refuses every nonce
 * that is not above its last one. An opener does not: a record may be opened again, for repair.
 *
 * @module
 */

import { checkLength, MAX_MESSAGE_BYTES } from "./_checks.ts";
import { CipherError, type CipherErrorCode } from "./errors.ts";
import type { CipherSuite, Opener, Sealer } from "./suite.ts";

/**
 * Makes a sealer that refuses misuse. Any failure, of the caller or of the suite, burns it: the suite's
 * sealer is disposed, key wiped, and every later call throws.
 *
 * @throws {CipherError} `keyLength`, or `suiteFailed` when the suite cannot be set up
 *
 * @example
 * ```ts
 * import { guardSealer } from "./guard.ts";
 * import { nodeCryptoSuites } from "./node_crypto.ts";
 *
 * const suite = nodeCryptoSuites()[0]!;
 * using sealer = guardSealer(suite, new Uint8Array(suite.keyBytes));
 * const page = new Uint8Array(4096), tag = new Uint8Array(suite.tagBytes);
 * sealer.begin(new Uint8Array(suite.nonceBytes), new Uint8Array(24));
 * sealer.update(page, page);
 * sealer.finish(tag);
 * ```
 */
export function guardSealer(suite: CipherSuite, key: Uint8Array): Sealer {
  checkLength(key, suite.keyBytes, { code: "keyLength", what: "key" });
  return new GuardedSealer(suite, create(suite, () => suite.createSealer(key)));
}

/**
 * Makes an opener that refuses misuse, which burns it. A message that is not authentic does not: `finish`
 * returns false, and the next message may be opened.
 *
 * @throws {CipherError} `keyLength`, or `suiteFailed` when the suite cannot be set up
 */
export function guardOpener(suite: CipherSuite, key: Uint8Array): Opener {
  checkLength(key, suite.keyBytes, { code: "keyLength", what: "key" });
  return new GuardedOpener(suite, create(suite, () => suite.createOpener(key)));
}

/** The order of calls, the counters, and what ends it all; one per sealer or opener. */
class Usage {
  readonly suite: CipherSuite;
  readonly #inner: Disposable;
  #phase: "idle" | "message" | "burnt" | "disposed" = "idle";
  #messages = 0;
  #bytes = 0;
  #messageBytes = 0;

  constructor(suite: CipherSuite, inner: Disposable) {
    this.suite = suite;
    this.#inner = inner;
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array): void {
    if (this.#phase !== "idle") throw this.#misordered("begin message");
    if (nonce.length !== this.suite.nonceBytes) {
      throw this.fail("nonceLength", `use nonce: it has ${nonce.length} bytes`);
    }
    if (associatedData.length > MAX_MESSAGE_BYTES) {
      throw this.fail("dataLength", `use associated data: it has ${associatedData.length} bytes`);
    }
    if (this.#messages >= this.suite.maxMessagesPerKey) {
      throw this.fail("limit", `begin message: the key has served all ${this.#messages} it may`);
    }
    this.#messages++;
    this.#messageBytes = 0;
    this.#phase = "message";
  }

  update(from: Uint8Array, to: Uint8Array): void {
    if (this.#phase !== "message") throw this.#misordered("use piece");
    const length = from.length;
    if (length !== to.length) {
      throw this.fail("dataLength", `use piece: ${length} bytes go to a view of ${to.length}`);
    }
    if (from !== to && overlaps(from, to)) {
      throw this.fail("overlap", "use piece: its views overlap without being the same");
    }
    this.#messageBytes += length;
    if (this.#messageBytes > MAX_MESSAGE_BYTES) {
      throw this.fail("dataLength", `use piece: the message is over ${MAX_MESSAGE_BYTES} bytes`);
    }
    this.#bytes += length;
    if (this.#bytes > this.suite.maxBytesPerKey) {
      throw this.fail("limit", `use piece: the key may serve ${this.suite.maxBytesPerKey} bytes`);
    }
  }

  finish(): void {
    if (this.#phase !== "message") throw this.#misordered("finish message");
    this.#phase = "idle";
  }

  /** A tag of the wrong length burns. */
  tag(tag: Uint8Array): void {
    if (tag.length !== this.suite.tagBytes) {
      throw this.fail("tagLength", `use tag: it has ${tag.length} bytes`);
    }
  }

  /** Nothing may come back from a suite's call: a promise would mean that the work is still to be done. */
  returned(value: unknown): void {
    if (value === undefined) return;
    unheard(value);
    throw this.fail("asynchronous", "go on: the suite returned a value");
  }

  /** Burns, and makes the error to throw. */
  fail(code: CipherErrorCode, text: string, options?: ErrorOptions): CipherError {
    this.#burn();
    return new CipherError(code, `Cannot ${text} (${this.suite.id})`, options);
  }

  /** Burns after the suite threw; its own error is kept as the cause. */
  failed(cause: unknown): CipherError {
    if (!(cause instanceof CipherError)) {
      return this.fail("suiteFailed", "go on: the suite failed", { cause });
    }
    this.#burn();
    return cause;
  }

  dispose(): void {
    const phase = this.#phase;
    this.#phase = "disposed";
    if (phase === "idle" || phase === "message") this.#inner[Symbol.dispose]();
  }

  #burn(): void {
    if (this.#phase === "burnt" || this.#phase === "disposed") return;
    this.#phase = "burnt";
    this.#inner[Symbol.dispose]();
  }

  #misordered(what: string): CipherError {
    switch (this.#phase) {
      case "burnt":
        return this.fail("burnt", `${what}: an earlier failure ended it`);
      case "disposed":
        return this.fail("disposed", `${what}: it was disposed`);
      case "idle":
        return this.fail("order", `${what}: no message was begun`);
      case "message":
        return this.fail("order", `${what}: one is open`);
    }
  }
}

class GuardedSealer implements Sealer {
  readonly #usage: Usage;
  readonly #inner: Sealer;
  readonly #lastNonce: Uint8Array;
  #first = true;

  constructor(suite: CipherSuite, inner: Sealer) {
    this.#usage = new Usage(suite, inner);
    this.#inner = inner;
    this.#lastNonce = new Uint8Array(suite.nonceBytes);
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array): void {
    this.#usage.begin(nonce, associatedData);
    // A suite of the lab may have no nonce at all.
    if (!this.#first && nonce.length > 0 && !isAbove(nonce, this.#lastNonce)) {
      throw this.#usage.fail("nonceReused", "begin message: its nonce is not above the last one");
    }
    this.#first = false;
    this.#lastNonce.set(nonce);
    try {
      this.#usage.returned(this.#inner.begin(nonce, associatedData));
    } catch (cause) {
      throw this.#usage.failed(cause);
    }
  }

  update(from: Uint8Array, to: Uint8Array): void {
    this.#usage.update(from, to);
    try {
      this.#usage.returned(this.#inner.update(from, to));
    } catch (cause) {
      throw this.#usage.failed(cause);
    }
  }

  finish(tag: Uint8Array): void {
    this.#usage.tag(tag);
    this.#usage.finish();
    try {
      this.#usage.returned(this.#inner.finish(tag));
    } catch (cause) {
      throw this.#usage.failed(cause);
    }
  }

  [Symbol.dispose](): void {
    this.#usage.dispose();
  }
}

class GuardedOpener implements Opener {
  readonly #usage: Usage;
  readonly #inner: Opener;

  constructor(suite: CipherSuite, inner: Opener) {
    this.#usage = new Usage(suite, inner);
    this.#inner = inner;
  }

  begin(nonce: Uint8Array, associatedData: Uint8Array, tag: Uint8Array): void {
    this.#usage.begin(nonce, associatedData);
    this.#usage.tag(tag);
    try {
      this.#usage.returned(this.#inner.begin(nonce, associatedData, tag));
    } catch (cause) {
      throw this.#usage.failed(cause);
    }
  }

  update(from: Uint8Array, to: Uint8Array): void {
    this.#usage.update(from, to);
    try {
      this.#usage.returned(this.#inner.update(from, to));
    } catch (cause) {
      throw this.#usage.failed(cause);
    }
  }

  finish(): boolean {
    this.#usage.finish();
    let authentic: unknown;
    try {
      authentic = this.#inner.finish();
    } catch (cause) {
      throw this.#usage.failed(cause);
    }
    // A promise is truthy: taken for a verdict it would let every forgery in.
    if (typeof authentic !== "boolean") {
      unheard(authentic);
      throw this.#usage.fail("asynchronous", "finish message: the suite gave no verdict");
    }
    return authentic;
  }

  [Symbol.dispose](): void {
    this.#usage.dispose();
  }
}

/** Nobody will wait for this promise: when it rejects, that must not end the process before the refusal is told. */
function unheard(value: unknown): void {
  if (value instanceof Promise) value.catch(() => {});
}

function create<T>(suite: CipherSuite, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    if (cause instanceof CipherError) throw cause;
    throw new CipherError("suiteFailed", `Cannot set up ${suite.id}: the suite failed`, { cause });
  }
}

/** Whether two views of one length share bytes without being the same bytes. */
function overlaps(from: Uint8Array, to: Uint8Array): boolean {
  if (from.buffer !== to.buffer) return false;
  const distance = Math.abs(from.byteOffset - to.byteOffset);
  return distance > 0 && distance < from.length;
}

/** Whether `nonce` is above `last`, both big-endian integers of one length. */
function isAbove(nonce: Uint8Array, last: Uint8Array): boolean {
  for (let i = 0; i < nonce.length; i++) {
    const difference = nonce[i]! - last[i]!;
    if (difference !== 0) return difference > 0;
  }
  return false;
}
