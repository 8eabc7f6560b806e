/**
 * What goes wrong with ciphers, as one error class with a code.
 *
 * @module
 */

/** Every `code` of a {@linkcode CipherError}. */
export const cipherErrorCodes = [
  /** A key of the wrong length. */
  "keyLength",
  /** A nonce of the wrong length. */
  "nonceLength",
  /** A tag of the wrong length. */
  "tagLength",
  /** `from` and `to` differ in length, or a piece or a message is too long. */
  "dataLength",
  /** `from` and `to` overlap without being the same bytes. */
  "overlap",
  /** `begin`, `update` and `finish` out of order. */
  "order",
  /** A nonce that is not above the last one under this key. */
  "nonceReused",
  /** The suite's messages or bytes per key are used up. */
  "limit",
  /** Used after a failure, which ended this sealer or opener. */
  "burnt",
  /** Used after it was disposed. */
  "disposed",
  /** A suite returned something where it must work synchronously and return nothing. */
  "asynchronous",
  /** A suite threw something of its own, which is the `cause`, or the library beneath it refused. */
  "suiteFailed",
  /** A suite's id or numbers are not acceptable. */
  "invalidSuite",
  /** A suite of that id is registered already. */
  "duplicateSuite",
  /** No suite of that id is registered. */
  "unknownSuite",
  /** A check of the conformance kit found the suite at fault. */
  "nonconforming",
] as const;

/** One of {@linkcode cipherErrorCodes}. */
export type CipherErrorCode = typeof cipherErrorCodes[number];

/**
 * A cipher was misused, or failed. A message that is not authentic is no error: the opener's `finish`
 * returns false.
 *
 * @example
 * ```ts
 * import { CipherError } from "./errors.ts";
 *
 * const error = new CipherError("limit", "Cannot seal message: the key has sealed all it may");
 * console.assert(error.code === "limit");
 * ```
 */
export class CipherError extends Error {
  /** Always `CipherError`. */
  override readonly name = "CipherError";
  /** What went wrong, for programs. */
  readonly code: CipherErrorCode;

  /** `message` reads "Cannot <verb> <object>: <state>". */
  constructor(code: CipherErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
