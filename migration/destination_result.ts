/**
 * What a migration came to, as the destination reports it.
 *
 * @module
 */

import type { DestinationOptions } from "./destination_options.ts";
import type { AcceptMessage } from "./messages.ts";
import type { ProfileId } from "./profile.ts";
import { commonResult, type MigrationResult } from "./result.ts";
import type { DestinationState } from "./states.ts";

/** What came of one migration, over all its connections. */
export interface Arrived {
  /** 32 hex digits. */
  migrationId: string;
  accept: AcceptMessage;
  sensitivity: string | null;
  /** Guest bytes, zero pages not included. */
  guestBytes: number;
  /** What came for them, and beside them. */
  wireBytes: number;
  /** Pages landed, zero pages included. */
  pages: number;
  /** Records that opened, and those that did not. */
  records: number;
  damaged: number;
  hits: { time: string; what: string }[];
  /** Connections after the first. */
  reconnects: number;
}

/** The report of the destination. */
export function destinationResult(facts: {
  options: Pick<DestinationOptions, "vm" | "clock" | "registry" | "agentCpuSeconds">;
  profile: ProfileId;
  startedAtMs: number;
  /** What ended it; null when nothing did. */
  failure: unknown;
  /** Of the migration that was bound; null when none was. */
  arrived: Arrived | null;
  /** The source gave up because of damage. */
  tampered: boolean;
  destinationState: MigrationResult["destinationState"];
  /** The last state before how it ended. */
  lastState: DestinationState;
  /** What was noticed about the landing. */
  notes: string[];
}): MigrationResult {
  const { failure, profile, arrived } = facts;
  const { vm, clock, registry, agentCpuSeconds } = facts.options;
  const common = commonResult({
    failure,
    accept: arrived?.accept ?? null,
    profile,
    registry,
    vm,
    sensitivity: arrived?.sensitivity ?? null,
    agentCpuSeconds,
  });
  return {
    ...common,
    outcome: common.outcome === "aborted" && facts.tampered ? "tampered" : common.outcome,
    id: arrived?.migrationId ?? null,
    side: "destination",
    dryRun: false,
    rounds: null,
    monitor: null,
    setupMs: null,
    totalMs: clock.now() - facts.startedAtMs,
    downtimeMs: null,
    holdMs: 0,
    bytes: { guest: arrived?.guestBytes ?? 0, wire: arrived?.wireBytes ?? 0 },
    mistakes: { detected: arrived?.damaged ?? 0, repaired: 0, hits: arrived?.hits ?? [] },
    reconnects: arrived?.reconnects ?? 0,
    verified: { pages: arrived?.pages ?? 0, records: arrived?.records ?? 0 },
    sourceState: null,
    destinationState: facts.destinationState,
    lastState: facts.lastState,
    notes: facts.notes,
  };
}
