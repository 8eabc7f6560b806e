/**
 * What a migration came to, as its source tells it.
 *
 * @module
 */

import type { StateBefore } from "./ports.ts";
import type { Repair } from "./repair.ts";
import type { commonResult, MigrationResult } from "./result.ts";
import type { Sending } from "./sending.ts";
import type { SourceState } from "./states.ts";

/** What a source knows at its end. */
export interface SourceFacts {
  common: ReturnType<typeof commonResult>;
  /** 32 hex digits; null when no journal was begun. */
  id: string | null;
  dryRun: boolean;
  /** How the VM stood before. */
  before: StateBefore;
  /** CPU seconds of QEMU before it was ended; null when it was not. */
  qemuSeconds: number | null;
  /** Monotonic milliseconds; null for what never came. */
  times: {
    startedAtMs: number;
    firstPageAtMs: number | null;
    stoppedAtMs: number | null;
    endedAtMs: number;
  };
  /** Time that hooks held the stopped VM. */
  holdMs: number;
  /** What was sent; null when nothing could be yet. */
  sent:
    | Pick<Sending, "rounds" | "monitor" | "hits" | "mostUsedSuite"> & {
      repair: Pick<Repair, "mistakes" | "repairedPages">;
    }
    | null;
  wireBytes: number;
  reconnects: number;
  /** What the destination said that it landed; null when it never did. */
  loaded: { pages: number; records: number } | null;
  /** What it said when the VM ran there; null when it never did. */
  running: { atMs: number; sinceResumeUs: number } | null;
  /** Where the VM is known to stand; null where nothing was seen of it. */
  sourceState: MigrationResult["sourceState"];
  destinationState: MigrationResult["destinationState"];
  /** Whether journal `released` was written. */
  released: boolean;
  /** The machine's last state, before how it ended if it failed. */
  lastState: SourceState;
  /** Warnings of the end. */
  doubts: readonly string[];
}

/** The report. */
export function sourceResult(facts: SourceFacts): MigrationResult {
  const { common, dryRun, sent, times } = facts;
  const rounds = sent?.rounds ?? null;
  return {
    ...common,
    id: facts.id,
    side: "source",
    dryRun,
    suite: sent?.mostUsedSuite() ?? common.suite,
    cpuSeconds: { ...common.cpuSeconds, qemu: facts.qemuSeconds ?? common.cpuSeconds.qemu },
    rounds,
    monitor: sent?.monitor ?? null,
    setupMs: times.firstPageAtMs === null ? null : times.firstPageAtMs - times.startedAtMs,
    totalMs: times.endedAtMs - times.startedAtMs - facts.holdMs,
    downtimeMs: downtimeMs(facts),
    holdMs: facts.holdMs,
    bytes: {
      guest: (rounds ?? []).reduce((sum, round) => sum + round.bytes, 0),
      wire: facts.wireBytes,
    },
    mistakes: {
      detected: sent?.repair.mistakes ?? 0,
      repaired: sent?.repair.repairedPages ?? 0,
      hits: sent?.hits ?? [],
    },
    reconnects: facts.reconnects,
    verified: facts.loaded ?? { pages: 0, records: 0 },
    sourceState: facts.sourceState ?? (dryRun || facts.id === null ? facts.before : "unknown"),
    destinationState: facts.destinationState ?? (facts.released ? "unknown" : null),
    lastState: facts.lastState,
    warnings: [...common.warnings, ...facts.doubts],
  };
}

/** An upper bound by one way: RUNNING received - STOP received - (RUNNING sent - RESUME, measured over there). */
function downtimeMs({ running, times, before, holdMs }: SourceFacts): number | null {
  const { stoppedAtMs } = times;
  if (running === null || stoppedAtMs === null || before !== "running") return null;
  return running.atMs - stoppedAtMs - running.sinceResumeUs / 1000 - holdMs;
}
