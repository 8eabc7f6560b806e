/**
 * What goes wrong between here and a guest that should run.
 *
 * @module
 */

/**
 * Codes of {@linkcode GuestError}:
 *
 * - `missing`: a program or package is not installed
 * - `offline`: a package could not be downloaded
 * - `build`: the guest could not be built
 * - `qemu`: QEMU did not start, or ended
 * - `timeout`: the guest did not say in time what it should have said
 */
export type GuestErrorCode = "missing" | "offline" | "build" | "qemu" | "timeout";

/** What a {@linkcode GuestError} can carry besides its code and message. */
export interface GuestErrorOptions {
  /** The next step for a person. */
  hint?: string | undefined;
  /** What was caught. */
  cause?: unknown;
}

/** A guest that cannot be built or started: "Cannot <verb> <object>: <state>". */
export class GuestError extends Error {
  /** Always `GuestError`. */
  override readonly name = "GuestError";
  /** What kind of failure; see {@linkcode GuestErrorCode}. */
  readonly code: GuestErrorCode;
  /** The next step for a person, if there is one to suggest. */
  readonly hint: string | undefined;

  /** `message` reads "Cannot <verb> <object>: <state>". */
  constructor(code: GuestErrorCode, message: string, options: GuestErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : {});
    this.code = code;
    this.hint = options.hint;
  }
}
