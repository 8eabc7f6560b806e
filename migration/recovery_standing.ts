/**
 * Where the VM stands for `recover`: on either side what its QEMU says of itself, and its journal, together (PROTOCOL.md
 * section 7.4, the first two tables). Nothing here acts.
 *
 * @module
 */

import type {
  DestinationJournalState,
  MigrationCounters,
  SourceJournalState,
  StateBefore,
} from "./ports.ts";

/** What a QEMU says of itself; `gone` when its process is. */
export interface VmStatus {
  /** Run state, or `gone`. */
  runState: string;
  /** Status in query-migrate; null for none. */
  migration: string | null;
}

/** Where the VM stands, seen from the source's own QEMU. */
export type SourceStanding =
  /** It runs here, or stands as before: the VM is at the source. */
  | "here"
  /** Its agent is gone and its socket closed: QEMU is on its way to one of the others. */
  | "waiting"
  /** Stopped for good by this migration. */
  | "postmigrate"
  /** Stopped for good by another migration: it went on from here. */
  | "elsewhere"
  /** Stopped for good by this migration, and then reset: its memory is gone, and nobody knows whether it ran before that. */
  | "reset"
  | "gone";

/** What is known of the destination's copy. */
export type DestinationStanding =
  /** Loaded and stopped; whether it may run depends on the source. */
  | "loaded"
  /** Its QEMU is gone, or it was discarded, and it never got as far as `taking`. */
  | "neverRan"
  /** It was about to run, and its QEMU is there. */
  | "taking"
  /** It was about to run, or seen to, and its QEMU is gone: nobody knows what became of it. */
  | "takingGone"
  /** It runs, or ran and went on from here in another migration. */
  | "running"
  /** Nobody answers. */
  | "unreachable";

/** What the source's journal says, in all. */
export interface SourceRecord {
  /** In the order in which they were written. */
  states: readonly SourceJournalState[];
  /** Counters of the line `releasing`; null when it was never reached. */
  counters: MigrationCounters | null;
  /** The last line is an `aborted` with `stopped`: it was about to go on, and nobody saw it do so. */
  stopped: boolean;
}

/** Where the VM stands at the source: **run state first**, then query-migrate. */
export function sourceStanding(
  vm: VmStatus & { counters: MigrationCounters | null },
  record: SourceRecord,
): SourceStanding {
  if (vm.runState === "gone") return "gone";
  if (vm.runState === "finish-migrate") return "waiting";
  if (vm.runState === "postmigrate") {
    if (vm.migration === "failed" || vm.migration === "cancelled") return "here";
    if (vm.migration !== "completed") return "waiting";
    // Without them nobody knows whose this is.
    if (vm.counters === null) return "waiting";
    return isOurs(vm.counters, record) ? "postmigrate" : "elsewhere";
  }
  // QEMU leaves postmigrate for it at system_reset.
  const reset = vm.runState === "prelaunch" && vm.migration === "completed" &&
    vm.counters !== null && (isOurs(vm.counters, record) || isUnclear(record)) &&
    (record.stopped || !wentOn(record.states));
  return reset ? "reset" : "here";
}

/** Whether it was this migration that QEMU completed last. */
function isOurs(counters: MigrationCounters, record: SourceRecord): boolean {
  return !record.states.includes("ran") && !ranHereSince(record.states) &&
    record.counters !== null &&
    counters.dirtySyncCount === record.counters.dirtySyncCount &&
    counters.normal === record.counters.normal &&
    counters.duplicate === record.counters.duplicate;
}

/** What the destination's journal and QEMU say together. */
export function destinationStanding(
  vm: VmStatus,
  { journal: state, before }: { journal: DestinationJournalState; before: StateBefore },
): DestinationStanding {
  // One that was reset holds nothing any more, either.
  const gone = vm.runState === "gone" || (vm.runState === "prelaunch" && before !== "prelaunch");
  if (state === "discarded") return "neverRan";
  if (state === "running" || hasLeft(vm)) return "running";
  if (state === "taking") {
    return gone ? "takingGone" : vm.runState === "running" ? "running" : "taking";
  }
  // Not released, as far as this side knows: it is a copy like any other, but for one that has ended.
  if (state === "ranEarly") {
    return gone ? "takingGone" : vm.runState === "running" ? "running" : "loaded";
  }
  if (gone) return "neverRan";
  if (vm.runState === "running") return "running";
  // EOF is written only after every check: a QEMU that completed is loaded, whatever the journal missed.
  return state === "loaded" || vm.migration === "completed" ? "loaded" : "neverRan";
}

/** Whether it went on from here: a QEMU that a VM came to is in these run states only when that VM leaves it. */
function hasLeft({ runState, migration }: VmStatus): boolean {
  return runState === "finish-migrate" ||
    (runState === "postmigrate" && migration === "completed");
}

/** Whether the source's STATUS says that its VM went on there, or stands there as before. */
export function saysWentOn(
  { journal, runState, migration }: VmStatus & { journal: string },
): boolean {
  if (journal in { aborted: 1, ran: 1, ranHere: 1 }) return true;
  if (runState === "postmigrate") return migration === "failed" || migration === "cancelled";
  return !(runState in { gone: 1, "finish-migrate": 1, prelaunch: 1 });
}

/** Whether the VM went on at the source, and was released to nobody since: every copy is stale, or about to be. */
export function wentOn(states: readonly SourceJournalState[]): boolean {
  const back = states.findLastIndex((state) => state in { aborted: 1, ran: 1, ranHere: 1 });
  return back > states.lastIndexOf("released");
}

/** Whether somebody ran it at the source since it was released: what is in postmigrate since went on from here. */
export function ranHereSince(states: readonly SourceJournalState[]): boolean {
  return states.lastIndexOf("ranHere") > states.lastIndexOf("released");
}

/** Whether QEMU shows that the VM went on from here after this migration had stopped it, or may have. */
export function wentOnFrom(standing: SourceStanding, record: SourceRecord): boolean {
  return standing === "here" || (standing === "elsewhere" && !isUnclear(record));
}

/** Whether the journal lacks what tells this migration from others: a line of it is damaged. */
export function isUnclear({ states, counters }: SourceRecord): boolean {
  return counters === null && states.includes("released") &&
    !states.some((state) => state in { ran: 1, ranHere: 1 });
}

/** Whether it was released, and no line since says that the copy is gone: it may run over there, too. */
export function mayRunThere(states: readonly SourceJournalState[]): boolean {
  return states.lastIndexOf("released") > states.lastIndexOf("aborted");
}
