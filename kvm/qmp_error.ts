/**
 * What goes wrong on a QMP socket.
 *
 * @module
 */

/**
 * Codes of {@linkcode QmpError}:
 * `missing` no such socket; `denied` no permission to it; `refused` nobody listens there any more;
 * `busy` no greeting came: QEMU serves one client a socket, and another holds it; `closed` the connection has ended;
 * `timeout` QEMU does not answer now; `command` QEMU answered with an error; `protocol` it is not QMP that is spoken there.
 */
export type QmpErrorCode =
  | "missing"
  | "denied"
  | "refused"
  | "busy"
  | "closed"
  | "timeout"
  | "command"
  | "protocol";

/** A QMP connection or command that did not work. */
export class QmpError extends Error {
  /** Its class. */
  override readonly name = "QmpError";
  /** What kind of failure, for code that decides by it. */
  readonly code: QmpErrorCode;
  /** QEMU's own words, for the code `command`. */
  readonly description: string | null;

  /** With QEMU's own words, if it has any. */
  constructor(
    code: QmpErrorCode,
    message: string,
    options: ErrorOptions & { description?: string } = {},
  ) {
    super(message, options);
    this.code = code;
    this.description = options.description ?? null;
  }
}

/**
 * QEMU's own words of what it refused; of any other error, its message.
 *
 * @example
 * ```ts
 * import { QmpError, wordsOf } from "./qmp_error.ts";
 * import { equal } from "node:assert/strict";
 *
 * equal(wordsOf(new QmpError("command", "Cannot cont: image in use", { description: "image in use" })), "image in use");
 * ```
 */
export function wordsOf(error: unknown): string {
  if (error instanceof QmpError && error.description !== null) return error.description;
  return error instanceof Error ? error.message : String(error);
}
