/**
 * `recover` on either host of a simulated migration, after its agents have ended or were killed.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { JournalEntry, TransportListener } from "../../migration/ports.ts";
import {
  recover,
  type RecoveryOptions,
  type RecoveryResult,
  type RecoveryVm,
} from "../../migration/recovery.ts";
import type { DestinationState, SourceState } from "../../migration/states.ts";
import { Loopback } from "./loopback.ts";
import {
  identities,
  SimulatedMigration,
  type SimulatedMigrationOptions,
} from "./simulated_migration.ts";

/** How the two sides meet: who dials; the other listens, as `recover` or as a `receive` that is still there. */
export interface RecoverySide {
  declareDead?: boolean;
  dryRun?: boolean;
  meet: RecoveryOptions["meet"];
  signal?: AbortSignal;
  /** Instead of the one that the simulated world gives. */
  vm?: RecoveryVm;
}

/** The source's QEMU, as `recover` sees it. */
export function sourceRecoveryVm({ world, sourceVm }: SimulatedMigration): RecoveryVm {
  const ranBefore = world.sourceRanOn;
  return {
    get hasRun() {
      return world.sourceRanOn && !ranBefore;
    },
    onRun: null,
    status: async () => {
      await Promise.resolve();
      const runState = world.source;
      if (runState === "gone") return { runState, migration: null, counters: null };
      const counters = await sourceVm.counters();
      // A reset leaves query-migrate as it was.
      const reset = runState === "prelaunch" && world.before !== "prelaunch";
      const migration = reset || (runState === "postmigrate" && !world.sourceStandsAgain)
        ? "completed"
        : runState === "finish-migrate"
        ? "device"
        : world.captured === null
        ? null
        : "failed";
      return { runState, migration, counters };
    },
    resume: () => sourceVm.resume(),
    announce: () => Promise.resolve(),
    quit: () => sourceVm.quit(),
  };
}

/** The destination's. */
export function destinationRecoveryVm({ world, destinationVm }: SimulatedMigration): RecoveryVm {
  const ranBefore = world.destinationRan;
  return {
    get hasRun() {
      return world.destinationRan && !ranBefore;
    },
    onRun: null,
    status: async () => {
      await Promise.resolve();
      const runState = world.destination;
      const migration = runState === "gone"
        ? null
        : runState === "inmigrate"
        ? destinationVm.touched ? "active" : null
        : "completed";
      return { runState, migration, counters: null };
    },
    resume: async () => {
      await destinationVm.run();
    },
    announce: () => destinationVm.announce(),
    quit: () => destinationVm.quit(),
  };
}

/** A migration whose agents are killed when the source or the destination enters a state. */
export async function crashed(
  at: {
    source?: SourceState;
    destination?: DestinationState;
    also?: (run: SimulatedMigration) => void;
  },
  options: SimulatedMigrationOptions = {},
): Promise<SimulatedMigration> {
  const run = new SimulatedMigration({
    pageCounts: [4],
    seed: 3,
    source: { liveRounds: 1 },
    ...options,
    sourceEntered: (state, run) => {
      if (state === at.source) kill(run);
    },
    destinationEntered: (state, run) => {
      if (state === at.destination) kill(run);
    },
  });
  const kill = (run: SimulatedMigration) => {
    at.also?.(run);
    run.killSourceAgent();
    run.killDestinationAgent();
  };
  run.start();
  await Promise.race([run.sourceAgent.died, run.tooLong()]);
  await run.clock.sleep(100);
  await run.sourceVm.settled();
  return run;
}

/** `recover` on one host. */
export async function recoverSide(
  run: SimulatedMigration,
  side: "source" | "destination",
  options: RecoverySide,
): Promise<RecoveryResult> {
  const source = side === "source";
  const id = run.source.id;
  const { entries, journal } = (source ? run.sourceJournals : run.destinationJournals)
    .reopen(id, side);
  const note = (text: string) => run.world.note(`recover at the ${side}: ${text}`);
  const result = await recover({
    id,
    side,
    vm: options.vm ?? (source ? sourceRecoveryVm(run) : destinationRecoveryVm(run)),
    entries: entries as readonly JournalEntry[],
    journal,
    identity: source ? identities.source : identities.destination,
    peerKey: (source ? identities.destination : identities.source).publicKey,
    meet: options.meet,
    clock: run.clock,
    signal: options.signal ?? new AbortController().signal,
    declareDead: options.declareDead,
    dryRun: options.dryRun,
    onNote: note,
  });
  note(`${result.outcome} ${result.error?.message ?? ""}`);
  return result;
}

/** The other host does not answer. */
export const unreachable: RecoveryOptions["meet"] = {
  dial: () => Promise.reject(new Error("Cannot dial: no route to host")),
};

/** Nobody dials the host that listens. */
export function silence(): RecoveryOptions["meet"] {
  return { listener: new Loopback() };
}

/** `recover` on both hosts: one listens, the other dials. */
export async function recoverBoth(
  run: SimulatedMigration,
  listens: "source" | "destination",
  vms: { source?: RecoveryVm; destination?: RecoveryVm } = {},
): Promise<{ source: RecoveryResult; destination: RecoveryResult }> {
  const listener = new Loopback();
  const ends = new AbortController();
  const meets = (side: string): RecoveryOptions["meet"] =>
    side === listens
      ? { listener: listener as TransportListener }
      : { dial: () => Promise.resolve(listener.dial()) };
  const other = listens === "source" ? "destination" : "source";
  const of = (side: "source" | "destination") => ({
    meet: meets(side),
    ...(vms[side] === undefined ? {} : { vm: vms[side] }),
  });
  const listening = recoverSide(run, listens, { ...of(listens), signal: ends.signal });
  const dialled = await recoverSide(run, other, of(other));
  // One that found nothing to ask for has left the other waiting.
  ends.abort();
  const listened = await listening;
  if (!listener.closed) listener.close();
  const results = { [listens]: listened, [other]: dialled };
  assert.ok(results["source"] !== undefined && results["destination"] !== undefined);
  return { source: results["source"], destination: results["destination"] };
}
