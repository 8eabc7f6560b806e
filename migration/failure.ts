/**
 * What was caught, as what is said: errors of ours, ABORT messages, words.
 *
 * @module
 */

import { MigrationError } from "./errors.ts";
import { abortCodes, type AbortMessage } from "./messages.ts";

/** The words of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Anything that was thrown, as an error. */
export function asError(cause: unknown): Error {
  return cause instanceof Error ? cause : new Error(String(cause));
}

/** The error that a failed migration reports; null for none. */
export function asMigrationError(failure: unknown): MigrationError | null {
  if (failure === null || failure instanceof MigrationError) return failure;
  return new MigrationError("vm", messageOf(failure), { cause: failure });
}

/** Nobody can know which copy holds the VM. */
export function unknownOutcome(cause: unknown): MigrationError {
  if (cause instanceof MigrationError && cause.code === "unknownOutcome") return cause;
  return new MigrationError("unknownOutcome", `Cannot know where the VM is: ${messageOf(cause)}`, {
    cause,
  });
}

/** What a journal threw, as ours. */
export function journalError(cause: unknown): MigrationError {
  if (cause instanceof MigrationError) return cause;
  return new MigrationError("journal", `Cannot write the journal: ${messageOf(cause)}`, { cause });
}

/** An error as the ABORT that tells the other side. */
export function abortMessage(error: unknown): AbortMessage {
  const code = error instanceof MigrationError ? error.code : "vm";
  const known = abortCodes.find((abortCode) => abortCode === code);
  return { type: "ABORT", code: known ?? "vm", text: messageOf(error).slice(0, 500) };
}
