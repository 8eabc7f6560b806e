/**
 * What a migration comes to, on either side.
 *
 * @module
 */

import type { CipherRegistry } from "../ciphers/registry.ts";
import type { MigrationErrorCode } from "./errors.ts";
import { asMigrationError } from "./failure.ts";
import type { AcceptMessage, PageClass } from "./messages.ts";
import type { ClassifierSummary, VmFacts } from "./ports.ts";
import type { ProfileId } from "./profile.ts";
import type { RoundStatistics } from "./rounds.ts";
import type { DestinationState, SourceState } from "./states.ts";

/** How a migration ended: the command line's exit codes 0, 1, 3, 4 and 5. */
export const outcomes = ["completed", "aborted", "refused", "tampered", "unknown"] as const;
/** One of {@linkcode outcomes}. */
export type Outcome = typeof outcomes[number];

/** The report of one side. What only the other side knows is null. */
export interface MigrationResult {
  /** How it ended. */
  outcome: Outcome;
  /** 32 hex digits; null when none was agreed on. */
  id: string | null;
  /** Whose report this is. */
  side: "source" | "destination";
  /** Everything was checked and nothing moved. */
  dryRun: boolean;
  /** What protected it: `paper` is for the lab. */
  profile: ProfileId;
  /** The suite of each class of pages. */
  suites: Record<PageClass, string> | null;
  /** The suite that sealed most bytes. */
  suite: string | null;
  /** How pages reached the destination's memory: `mapped`, `process` or `stream`. */
  landing: string | null;
  /** What computed the suite on this side. */
  backend: string | null;
  /** Which VM. */
  vm: { name: string | null; uuid: string; memoryBytes: number; sensitivity: string | null };
  /** Every round; the last is the one with the VM stopped. */
  rounds: RoundStatistics[] | null;
  /** What told pages apart; null when nothing had to. */
  monitor: ClassifierSummary | null;
  /** From the start to the first page. */
  setupMs: number | null;
  /** From the start of this side's machine to its end. */
  totalMs: number;
  /** From the source's STOP to the destination's RESUME, an upper bound by one way; null when the VM did not run. */
  downtimeMs: number | null;
  /** Time that a test hook held the stopped VM: counted nowhere else. */
  holdMs: number;
  /** Guest bytes in pages that are not zero; and bytes from source to destination, handshakes apart, as this side saw them. */
  bytes: { guest: number; wire: number };
  /** Damaged records, pages sent again because of them, and what was hit and when (the first hundred). */
  mistakes: { detected: number; repaired: number; hits: { time: string; what: string }[] };
  /** Connections after the first. */
  reconnects: number;
  /** Processor time of this side's agent and QEMU. */
  cpuSeconds: { agent: number; qemu: number | null };
  /** What the destination authenticated and landed. */
  verified: { pages: number; records: number };
  /** Where the VM stands at the source. */
  sourceState:
    | "quit"
    | "postmigrate"
    | "running"
    | "paused"
    | "prelaunch"
    | "gone"
    | "unknown"
    | null;
  /** Where it stands at the destination. */
  destinationState: "running" | "paused" | "prelaunch" | "discarded" | "unknown" | null;
  /** The last state of this side's machine, before how it ended. */
  lastState: SourceState | DestinationState;
  /** Facts and doubts worth a person's eye. */
  notes: string[];
  /** What should worry somebody. */
  warnings: string[];
  /** Null when the outcome is `completed`. */
  error: { code: MigrationErrorCode; message: string; hint: string | null } | null;
}

/** The outcome that an error code stands for. */
export function outcomeOf(code: MigrationErrorCode): Outcome {
  switch (code) {
    case "handshake":
    case "refused":
      return "refused";
    case "tampering":
      return "tampered";
    case "unknownOutcome":
      return "unknown";
    default:
      return "aborted";
  }
}

/** What both sides' results have alike. */
export function commonResult(parts: {
  failure: unknown;
  /** Null before anything was agreed on. */
  accept: AcceptMessage | null;
  registry: CipherRegistry;
  profile: ProfileId;
  vm: { facts: VmFacts; cpuSeconds(): number | null };
  sensitivity: string | null;
  agentCpuSeconds: () => number;
}): Pick<
  MigrationResult,
  | "outcome"
  | "profile"
  | "suites"
  | "suite"
  | "landing"
  | "backend"
  | "vm"
  | "cpuSeconds"
  | "notes"
  | "warnings"
  | "error"
> {
  const { accept, profile, registry, vm, sensitivity, agentCpuSeconds } = parts;
  const { name, uuid, memoryBytes } = vm.facts;
  const error = asMigrationError(parts.failure);
  return {
    outcome: error === null ? "completed" : outcomeOf(error.code),
    profile,
    suites: accept?.suites ?? null,
    suite: accept?.suites.user ?? null,
    landing: accept?.landing ?? null,
    backend: accept === null ? null : registry.get(accept.suites.user).backend,
    vm: { name, uuid, memoryBytes, sensitivity },
    cpuSeconds: { agent: agentCpuSeconds(), qemu: vm.cpuSeconds() },
    notes: accept?.notes ?? [],
    warnings: accept?.warnings ?? [],
    error: error === null
      ? null
      : { code: error.code, message: error.message, hint: error.hint ?? null },
  };
}
