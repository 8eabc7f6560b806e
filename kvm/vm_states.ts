/**
 * What QEMU's run states mean for a migration.
 *
 * @see https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, RunState and MigrationStatus
 * @module
 */

import { KvmError } from "./errors.ts";
import type { MigrationInfo, VmLook } from "./qemu_vm.ts";

/** Whether the VM ran before: it runs afterwards only if it did. */
export type RunStateBefore = "running" | "paused" | "prelaunch";

/** How a VM stands after its migration was cancelled. */
export type AfterCancel = RunStateBefore | "postmigrate" | "gone" | "goneAfterResume";

/** Whether QEMU has nothing more to do for a migration: it failed, was cancelled, completed, or never was. */
export function isOver({ status }: MigrationInfo): boolean {
  return status === null || ["none", "failed", "cancelled", "completed"].includes(status);
}

/** How a VM stands whose migration is over; null while it is still on its way back. */
export function afterCancel(runState: string): AfterCancel | null {
  switch (runState) {
    case "finish-migrate":
      return null;
    case "running":
    case "prelaunch":
    case "postmigrate":
      return runState;
    default:
      // Also one that met an I/O error or panicked: it stands.
      return "paused";
  }
}

/** The run state of a VM that is about to leave. @throws {KvmError} `state` when it cannot leave as it is */
export function stateBefore({ runState, migration }: VmLook): RunStateBefore {
  const what = "Cannot migrate this VM";
  if (!isOver(migration)) {
    throw new KvmError("state", `${what}: a migration of it is ${migration.status} already`);
  }
  switch (runState) {
    case "running":
    case "paused":
    case "prelaunch":
      return runState;
    case "postmigrate":
      throw new KvmError(
        "state",
        migration.status === "completed"
          ? `${what}: it is in postmigrate, its memory was migrated away`
          // QEMU 7.2 leaves a VM so that did not run before.
          : `${what}: QEMU left it in postmigrate by a migration that was not carried out`,
      );
    case "inmigrate":
      throw new KvmError("state", `${what}: it waits for an incoming migration itself`);
    default:
      throw new KvmError("state", `${what}: it is in run state ${runState}`);
  }
}

/** Refuses a VM that is not waiting for an incoming migration. @throws {KvmError} `state` */
export function checkWaiting({ runState, migration }: VmLook): void {
  const what = "Cannot take a VM in here";
  if (runState !== "inmigrate") {
    throw new KvmError(
      "state",
      `${what}: this QEMU is in run state ${runState}; start it with -incoming defer`,
    );
  }
  if (migration.status !== null && migration.status !== "none") {
    throw new KvmError(
      "state",
      `${what}: an incoming migration is ${migration.status} already; start QEMU anew with -incoming defer`,
    );
  }
}
