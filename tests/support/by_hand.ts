/**
 * Somebody's hand on a simulated VM, when neither agent asked for it, and stories to put it into.
 *
 * @module
 */

import type { RecoveryVm } from "../../migration/recovery.ts";
import type { SourceState } from "../../migration/states.ts";
import type { SimulatedMigration, SimulatedMigrationOptions } from "./simulated_migration.ts";

/** A migration of one round. */
export const small = { pageCounts: [4], seed: 5, source: { liveRounds: 1 } };

/** Everything that happened. */
export function storyOf(run: SimulatedMigration): string {
  return run.world.log.join("\n");
}

/** Somebody's `cont` at the destination, of which its agent hears. */
export function runAtDestination(
  run: SimulatedMigration,
  then: "running" | "paused" = "running",
): void {
  run.meddled = true;
  run.world.destination = then;
  run.world.destinationRan = true;
  run.destinationVm.onEnd?.({ kind: "resumed", text: "somebody else made the VM run" });
}

/** What the source says in `state` is lost with its connection, once; `meanwhile` is called before the first dial that follows. */
export function cutAt(
  state: SourceState,
  options: {
    kind?: "truncate" | "cutAfter";
    meanwhile: (run: SimulatedMigration) => void;
    dialFails?: boolean;
  },
): Pick<SimulatedMigrationOptions, "prepare" | "fault" | "dialFails"> {
  const { kind = "truncate", meanwhile, dialFails = false } = options;
  let run: SimulatedMigration;
  let cut = false;
  let meddled = false;
  return {
    prepare: (made) => run = made,
    fault: ({ direction }) => {
      if (direction !== "there" || run.source.state !== state || cut) return undefined;
      cut = true;
      return kind === "cutAfter" ? { kind } : { kind, bytes: 0 };
    },
    dialFails: (run) => {
      if (cut && !meddled) {
        meddled = run.meddled = true;
        meanwhile(run);
      }
      return cut && dialFails;
    },
  };
}

/** A QEMU of `recover` that `meddle` is done to at its `at`th look. */
export function meddledVm(
  real: RecoveryVm,
  { at, meddle }: { at: number; meddle: () => void },
): RecoveryVm {
  let looks = 0;
  const vm: RecoveryVm = {
    get hasRun() {
      return real.hasRun;
    },
    onRun: null,
    status: async () => {
      if (++looks === at) {
        meddle();
        if (real.hasRun) vm.onRun?.();
      }
      return await real.status();
    },
    resume: () => real.resume(),
    announce: () => real.announce(),
    quit: () => real.quit(),
  };
  return vm;
}
