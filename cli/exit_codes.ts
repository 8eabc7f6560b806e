/**
 * How a command ends: the outcome in its report, and the exit code that goes with it.
 *
 * @module
 */

/**
 * Outcomes and their exit codes:
 *
 * - `completed`: done
 * - `aborted`: failed; a migrating VM runs on at the source
 * - `usage`: a flag or a name that cannot be right; nothing was begun
 * - `refused`: by the other side, by policy, or because a key is not allowed here
 * - `tampered`: stopped because of tampering; the VM runs on at the source
 * - `unknown`: nobody can know yet which host holds the VM, or it is stopped on both: `recover` settles it
 */
export const exitCodes = {
  completed: 0,
  aborted: 1,
  usage: 2,
  refused: 3,
  tampered: 4,
  unknown: 5,
} as const;

/** One of {@linkcode exitCodes}' keys. */
export type Outcome = keyof typeof exitCodes;

/** Error codes that end otherwise than `aborted`. */
const outcomesByErrorCode = {
  usage: "usage",
  handshake: "refused",
  refused: "refused",
  tampering: "tampered",
  unknownOutcome: "unknown",
} as const satisfies Record<string, Outcome>;

/**
 * The outcome that an error's `code` stands for; `aborted` for every other.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(exitCodes[outcomeOf("tampering")], 4);
 * assert.equal(exitCodes[outcomeOf("journal")], 1);
 * ```
 */
export function outcomeOf(errorCode: string): Outcome {
  return Object.hasOwn(outcomesByErrorCode, errorCode)
    ? outcomesByErrorCode[errorCode as keyof typeof outcomesByErrorCode]
    : "aborted";
}

/** An error as the report shows it. */
export interface ErrorReport {
  code: string;
  message: string;
  hint: string | null;
}

/** Any thrown value as the report shows it: errors of ours have `code` and `hint`, others are `internal`. */
export function errorReport(error: unknown): ErrorReport {
  if (!(error instanceof Error)) return { code: "internal", message: String(error), hint: null };
  const { code, hint } = error as { code?: unknown; hint?: unknown };
  return {
    code: typeof code === "string" ? code : "internal",
    message: error.message,
    hint: typeof hint === "string" ? hint : null,
  };
}
