/**
 * What a cipher suite is: metadata, and `create(key)` giving a synchronous, incremental sealer and opener.
 *
 * @module
 */

/** Which profile a suite may be used in: `sealed` is for use, `paper` for the lab. */
export type SuiteProfile = "sealed" | "paper";

/**
 * Seals one message at a time: `begin`, any number of `update`, `finish`.
 *
 * `to` holds ciphertext only after `finish`; `from` and `to` stay untouched by the caller until then
 * (suites such as GCM-SIV read the plaintext twice). `from` and `to` may be the same view, or disjoint.
 */
export interface Sealer extends Disposable {
  /** Starts a message. `nonce` has the suite's length and is never used twice under one key. */
  begin(nonce: Uint8Array, associatedData: Uint8Array): void;
  /** Takes the next piece of plaintext, of any length; `to` has the same length. */
  update(from: Uint8Array, to: Uint8Array): void;
  /** Ends the message and writes its tag; `tag` has the suite's tag length. */
  finish(tag: Uint8Array): void;
}

/** Opens one message at a time. Plaintext in `to` must not be used before `finish` has returned true. */
export interface Opener extends Disposable {
  /** Starts a message; `tag` is what `finish` compares with. All three have the suite's lengths. */
  begin(nonce: Uint8Array, associatedData: Uint8Array, tag: Uint8Array): void;
  /** Takes the next piece of ciphertext, of any length; `to` has the same length. */
  update(from: Uint8Array, to: Uint8Array): void;
  /** Whether the message is authentic. False burns nothing but this message: the next may be opened. */
  finish(): boolean;
}

/** A cipher suite. */
export interface CipherSuite {
  /** Wire id, lower case; third parties prefix a domain: `example.com/name`. */
  readonly id: string;
  /** Where it may be used. */
  readonly profile: SuiteProfile;
  /** Length of a key, in bytes. */
  readonly keyBytes: number;
  /** Length of a nonce, in bytes. */
  readonly nonceBytes: number;
  /** Length of a tag, in bytes. */
  readonly tagBytes: number;
  /** Messages that one key may seal. */
  readonly maxMessagesPerKey: number;
  /** Bytes that one key may seal. */
  readonly maxBytesPerKey: number;
  /** What computes it, for the report: `libcrypto 3.0.17`, `node:crypto`. */
  readonly backend: string;
  /** The key is copied; the caller may wipe its own. */
  createSealer(key: Uint8Array): Sealer;
  /** The key is copied; the caller may wipe its own. */
  createOpener(key: Uint8Array): Opener;
}
