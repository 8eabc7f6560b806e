/**
 * The source's way out before SHUT(0): whatever fails, the VM is seen to run here again before anybody is told.
 *
 * @see PROTOCOL.md section 7.2
 * @module
 */

import { MigrationError } from "./errors.ts";
import { abortMessage, asError, messageOf, unknownOutcome } from "./failure.ts";
import { unlessHung } from "./hang.ts";
import { DISCARD_WAIT_MS } from "./limits.ts";
import type { SourceVm } from "./ports.ts";
import type { SourceCopy } from "./source_copy.ts";
import type { SourceDialogue } from "./source_dialogue.ts";
import type { SourceJournal } from "./source_journal.ts";
import type { SourceLink } from "./source_link.ts";
import type { SourceOptions } from "./source_options.ts";
import type { SourceSteps } from "./source_steps.ts";
import type { SourceSwitchover } from "./source_switchover.ts";
import type { StopBudget } from "./stop_budget.ts";
import { Waiter } from "./waiter.ts";
import type { Whereabouts } from "./whereabouts.ts";

/** What {@linkcode abortMigration} works with. */
export interface AbortParts {
  options: Pick<SourceOptions, "vm" | "clock" | "signal" | "operatorSignal">;
  waiter: Waiter;
  steps: SourceSteps;
  journal: SourceJournal;
  budget: StopBudget;
  whereabouts: Whereabouts;
  link: Pick<SourceLink, "started">;
  dialogue: SourceDialogue;
  /** Null where it failed before there was one. */
  copy: Pick<SourceCopy, "close" | "readToEnd"> | null;
  /** Likewise. */
  switchover: Pick<SourceSwitchover, "goForward"> | null;
}

/**
 * Closes QEMU's socket, sees the VM run, and only then says ABORT.
 *
 * @returns when QEMU is gone once all of it was read: forward is the only way then
 * @throws `error`, or that nobody knows where the VM is
 */
export async function abortMigration(error: unknown, parts: AbortParts): Promise<"forward"> {
  const { options, waiter, steps, journal, whereabouts, dialogue, copy } = parts;
  const { clock } = options;
  await steps.enter("aborting");
  parts.budget.end();
  copy?.close();
  const end = await cancel(options).catch(asError);
  if (end instanceof Error) {
    // Nobody saw it run, so nobody says ABORT.
    await steps.enter("failed");
    throw unknownOutcome(end);
  }
  if (end === "gone") {
    whereabouts.source = "gone";
    if (copy?.readToEnd) {
      try {
        await parts.switchover!.goForward();
      } catch (cause) {
        await steps.enter("failed");
        throw unknownOutcome(cause);
      }
      await steps.enter("finishing");
      return "forward";
    }
    await journal.appendAborted();
    dialogue.abort(abortMessage(error));
    await steps.enter("failed");
    throw goneEarly(error, whereabouts);
  }
  whereabouts.source = end === "goneAfterResume" ? "gone" : end;
  await journal.appendAborted();
  dialogue.abort(abortMessage(error));
  const late = clock.timer(DISCARD_WAIT_MS, () => waiter.wake());
  const deadlineMs = clock.now() + DISCARD_WAIT_MS;
  waiter.shield();
  await waiter.until(() =>
    // Where nothing was received yet, nothing was sent that could be discarded.
    !parts.link.started || dialogue.discarded || dialogue.lost !== null ||
    clock.now() >= deadlineMs
  );
  late.clear();
  if (dialogue.discarded) whereabouts.destination = "discarded";
  else if (dialogue.finishSaid) {
    whereabouts.doubts.push(
      "the destination may still hold a stopped copy: end its QEMU (QMP `quit`), and never `cont` it",
    );
  }
  await steps.enter("aborted");
  throw error;
}

/** The VM has died here, and nowhere else is enough of it. @returns the error to leave with */
export function goneEarly(cause: unknown, whereabouts: Whereabouts): MigrationError {
  whereabouts.source = "gone";
  return new MigrationError(
    "unknownOutcome",
    `Cannot go on: the source's QEMU is gone (${messageOf(cause)})`,
    { hint: "start the VM again here; the destination holds nothing of it", cause },
  );
}

/** As `vm.cancel()`. @throws also when QEMU hangs, and the operator does not want to wait for it any more */
async function cancel(
  { vm, clock, signal: any, operatorSignal: signal = any }: AbortParts["options"],
): Promise<Awaited<ReturnType<SourceVm["cancel"]>>> {
  // The migration's own throws what ended it.
  const waiter = new Waiter();
  const wake = () => waiter.wake();
  signal.addEventListener("abort", wake);
  try {
    const end = await unlessHung(vm.cancel(), { waiter, clock, unwanted: () => signal.aborted });
    if (end === "hung") throw new Error("the source's QEMU hangs while it takes the VM back");
    return end;
  } finally {
    signal.removeEventListener("abort", wake);
  }
}
