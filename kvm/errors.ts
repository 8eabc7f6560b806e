/**
 * What goes wrong between this agent and the host.
 *
 * @module
 */

/**
 * Codes of {@linkcode KvmError}:
 * `unsupported` this host or QEMU cannot do it; `denied` permission; `missing` no such file; `gone` no such process;
 * `locked` another command works with this VM; `state` the VM is not in the state it has to be in;
 * `capability` a migration capability is on that has to be off; `peer` somebody else than QEMU at the socket;
 * `stream` QEMU's stream is malformed or not supported; `streamCut` it ended early; `landing` pages cannot be put where they belong;
 * `failed` QEMU says that it failed; `system` any other system call.
 */
export type KvmErrorCode =
  | "unsupported"
  | "denied"
  | "missing"
  | "gone"
  | "locked"
  | "state"
  | "capability"
  | "peer"
  | "stream"
  | "streamCut"
  | "landing"
  | "failed"
  | "system";

/** An operation on the host or on QEMU that did not work: "Cannot <verb> <object>: <state>". */
export class KvmError extends Error {
  /** Its class. */
  override readonly name = "KvmError";
  /** What kind of failure, for code that decides by it. */
  readonly code: KvmErrorCode;

  /** With a message "Cannot <verb> <object>: <state>". */
  constructor(code: KvmErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
