/**
 * `recover`: settles where the VM is after a crash (PROTOCOL.md section 7.4). Asks its own journal and QEMU,
 * then the other side over RECOVER. The source's side decides; the destination reports, discards on
 * DISCARD, and runs only on RELEASE or on the operator's word.
 *
 * @module
 */

import { MigrationError, type MigrationErrorCode } from "./errors.ts";
import { unknownOutcome } from "./failure.ts";
import { DestinationRecovery } from "./recovery_destination.ts";
import type { RecoveryOptions, RecoveryResult } from "./recovery_options.ts";
import { SourceRecovery } from "./recovery_source.ts";
import type { Outcome } from "./result.ts";

export type { RecoveryOptions, RecoveryResult, RecoveryVm } from "./recovery_options.ts";

const outcomes: Partial<Record<MigrationErrorCode, Outcome>> = {
  refused: "refused",
  vm: "aborted",
};

/**
 * Settles one migration from this side. Never throws for what may be found: the result says it.
 *
 * @throws {TypeError} when a side is to be taken for dead where it would not be heard: a `receive` that lives does not
 * dial, and a `send` that lives does nothing else
 */
export async function recover(options: RecoveryOptions): Promise<RecoveryResult> {
  const { side, meet, declareDead } = options;
  if (declareDead && side === "source" && "listener" in meet) {
    throw new TypeError("Cannot take the destination for dead: it was not dialled");
  }
  if (declareDead && side === "destination" && "dial" in meet) {
    throw new TypeError("Cannot take the source for dead: nobody has listened for it");
  }
  using recovery = side === "source"
    ? new SourceRecovery(options)
    : new DestinationRecovery(options);
  const result = (outcome: Outcome, error: MigrationError | null): RecoveryResult => ({
    outcome,
    notes: recovery.log.notes,
    sourceState: recovery.sourceState,
    destinationState: recovery.destinationState,
    error,
  });
  try {
    await recovery.settle();
    return result("completed", null);
  } catch (error) {
    // What cannot be settled stays unknown, whatever stood in the way; only what was found out says more.
    if (!(error instanceof MigrationError)) return result("unknown", unknownOutcome(error));
    return result(outcomes[error.code] ?? "unknown", error);
  }
}
