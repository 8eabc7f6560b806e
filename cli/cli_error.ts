/**
 * The error of the command line: what a person did, or what the state directory holds, does not do.
 *
 * @module
 */

/**
 * What went wrong:
 *
 * - `usage`: an argument that cannot be right, a peer that is not known: exit 2
 * - `exists`: it is there already and is not overwritten
 * - `missing`: a file that has to be there is not
 * - `permission`: the system does not allow it, or a secret lies open
 * - `malformed`: a file does not hold what it should
 * - `io`: the system failed to read or write
 */
export type CliErrorCode = "usage" | "exists" | "missing" | "permission" | "malformed" | "io";

/** What a {@linkcode CliError} can carry besides its code and message. */
export interface CliErrorOptions {
  /** The next step, without the word "hint". */
  hint?: string | undefined;
  /** What was caught. */
  cause?: unknown;
}

/**
 * A command that cannot do what it was asked to.
 *
 * @example
 * ```ts
 * const error = new CliError("missing", "Cannot read the identity: no such file", {
 *   hint: "make one with `sealift key generate`",
 * });
 * console.error(error.message, error.hint);
 * ```
 */
export class CliError extends Error {
  override readonly name = "CliError";
  /** What to act upon. */
  readonly code: CliErrorCode;
  /** The next step for a person, if there is one to suggest. */
  readonly hint: string | undefined;

  /** `message` reads "Cannot <verb> <object>: <state>". */
  constructor(code: CliErrorCode, message: string, options: CliErrorOptions = {}) {
    super(message, "cause" in options ? { cause: options.cause } : {});
    this.code = code;
    this.hint = options.hint;
  }
}

/** What the system's error means for a path, in few words: `no such file`, `permission denied`. */
export function systemReason(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file or directory";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  if (error instanceof Deno.errors.AlreadyExists) return "it exists already";
  if (error instanceof Deno.errors.NotADirectory) return "a part of its path is no directory";
  if (error instanceof Deno.errors.IsADirectory) return "it is a directory";
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/ \(os error \d+\)/, "");
}

/** The code for the system's error. */
export function systemCode(error: unknown): CliErrorCode {
  if (error instanceof Deno.errors.NotFound) return "missing";
  if (error instanceof Deno.errors.PermissionDenied) return "permission";
  if (error instanceof Deno.errors.AlreadyExists) return "exists";
  return "io";
}
