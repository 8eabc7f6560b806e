/**
 * The error of this layer: one class, a code to act upon, a sentence to read.
 *
 * @module
 */

/**
 * What went wrong, as a caller needs to know it:
 *
 * - `usage`: an argument that cannot be right, found before anything was sent
 * - `handshake`: the other side did not prove an allowed key, or the bytes were changed
 * - `refused`: the other side, or our own policy, said no
 * - `tampering`: more damage than the repair budget permits
 * - `cut`: the connection is lost for good
 * - `timeout`: a time budget is used up
 * - `interrupted`: somebody asked for the end
 * - `vm`: the VM, or its QEMU, failed or is in a state that does not allow this
 * - `protocol`: the other side broke the protocol
 * - `journal`: a line could not be made durable, so its step was not taken
 * - `unknownOutcome`: nobody can know which copy holds the VM; `recover` settles it
 */
export const migrationErrorCodes = [
  "usage",
  "handshake",
  "refused",
  "tampering",
  "cut",
  "timeout",
  "interrupted",
  "vm",
  "protocol",
  "journal",
  "unknownOutcome",
] as const;

/** One of {@linkcode migrationErrorCodes}. */
export type MigrationErrorCode = typeof migrationErrorCodes[number];

/**
 * The one text for every failed authentication: a wrong key, a key that is not allowed and a changed
 * byte must look the same to whoever caused them.
 */
export const AUTHENTICATION_FAILED =
  "Cannot authenticate the other side: wrong key, key not allowed, or bytes changed on the way";

/** What a {@linkcode MigrationError} can carry besides its code and message. */
export interface MigrationErrorOptions {
  /** The next step for a person, without the word "hint". */
  hint?: string | undefined;
  /** What was caught. */
  cause?: unknown;
}

/**
 * A failed migration, or a failed part of one.
 *
 * @example
 * ```ts
 * import { MigrationError } from "./errors.ts";
 *
 * const error = new MigrationError("vm", "Cannot release the VM: it runs again", { hint: "try again" });
 * console.assert(error.code === "vm" && error.hint === "try again");
 * ```
 */
export class MigrationError extends Error {
  /** The class's name. */
  override readonly name = "MigrationError";
  /** What to act upon. */
  readonly code: MigrationErrorCode;
  /** The next step for a person, if there is one to suggest. */
  readonly hint: string | undefined;

  /** `message` reads "Cannot <verb> <object>: <state>". */
  constructor(code: MigrationErrorCode, message: string, options: MigrationErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : {});
    this.code = code;
    this.hint = options.hint;
  }
}
