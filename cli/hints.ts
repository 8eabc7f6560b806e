/**
 * What a person should do next: for errors of the host and of QEMU, and for each way a migration can end.
 *
 * @module
 */

import { KvmError } from "../kvm/errors.ts";
import { QmpError } from "../kvm/qmp_error.ts";
import { MigrationError } from "../migration/errors.ts";
import type { MigrationResult } from "../migration/result.ts";

const qmpHints: Partial<Record<QmpError["code"], string>> = {
  missing: "give the path of QEMU's -qmp unix:PATH,server=on,wait=off",
  denied: "run as root, or as the user that QEMU runs as",
  refused: "the QEMU that made this socket is gone: start it again",
  busy:
    "QEMU serves one client a socket: start it with a second -qmp unix:PATH2,server=on,wait=off and give PATH2",
};

const kvmHints: Partial<Record<KvmError["code"], string>> = {
  denied: "run as root, or as the user that QEMU runs as",
  locked: "wait for the other command, or end it",
  capability: "switch it off with migrate-set-capabilities, then try again",
  landing:
    "see --land, or start QEMU with -object memory-backend-memfd,id=ID,size=SIZE,share=on -machine memory-backend=ID",
};

/** An error of the host or of QEMU as one of the migration, with a hint; any other as it is. */
export function explained(error: unknown, side: "source" | "destination"): unknown {
  if (error instanceof QmpError) {
    return new MigrationError("vm", error.message, { hint: qmpHints[error.code], cause: error });
  }
  if (error instanceof KvmError) {
    const hint = error.code === "state" ? stateHint(error.message, side) : kvmHints[error.code];
    return new MigrationError("vm", error.message, { hint, cause: error });
  }
  return error;
}

function stateHint(message: string, side: "source" | "destination"): string {
  if (side === "destination") return "start it with the source's command line and -incoming defer";
  if (message.includes("was not carried out")) return "QMP `cont` here, then `stop`, first";
  if (message.includes("postmigrate")) {
    return "its memory went elsewhere already; only if it does not run there: QMP `cont` here first";
  }
  return "the VM must be running, paused or never started";
}

/** What to do next when a migration did not complete; null when its error says it already. */
export function resultHint(result: MigrationResult): string | null {
  const { error } = result;
  if (error === null) return null;
  return settleHint(result) ?? (error.hint === null ? failureHint(result, error) : null);
}

function failureHint(
  { side, destinationState }: MigrationResult,
  { code }: { code: string },
): string | null {
  if (code === "handshake") {
    return "--peer must be what `sealift key show` prints on the destination, and --allow there what it prints here";
  }
  if (side === "destination") {
    return destinationState === "discarded"
      ? "`send` says where the VM is; to try again start QEMU anew with -incoming defer, then `sealift receive`"
      : null;
  }
  switch (code) {
    case "cut":
    case "protocol":
      return "look at the network between the hosts and at what `receive` says there, then start both again";
    case "refused":
    case "vm":
      return "look at what `receive` says on the destination";
    default:
      return null;
  }
}

/** How to settle what nobody can know; null when there is nothing to settle. */
function settleHint(result: MigrationResult): string | null {
  const { id, side, lastState, outcome } = result;
  if (outcome !== "unknown" || id === null) return null;
  const recover = `sealift recover --id ${id}`;
  if (side === "source") {
    // Later the destination may hold all of it.
    const early = { starting: 1, setup: 1, copying: 1, stopping: 1 };
    if (result.sourceState === "gone" && lastState in early) {
      return "start the VM again here; the destination discards what it got";
    }
    return `\`${recover} --to HOST:PORT\` here while \`receive\` waits there; once that has ended, ` +
      `\`${recover} --listen [::]:PORT\` there first. ${BY_HAND}`;
  }
  const dead = lastState === "loaded"
    ? "; if that host is dead for good and the VM has not run since it stopped for this migration: with --declare-dead source"
    : "";
  return `\`${recover} --listen [::]:PORT\` here, then \`${recover} --to THIS-HOST:PORT\` at the source${dead}. ` +
    BY_HAND;
}

const BY_HAND =
  "By hand: `sealift status` on both hosts, QMP `quit` to the copy that must not run, only then `cont` to the other";
