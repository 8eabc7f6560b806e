/**
 * What `recover` does in which situation: the two tables of PROTOCOL.md section 7, as functions of what is
 * known. Nothing here acts.
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
  /** The last line is an `aborted` whose `cont` failed: it did not go on, as far as that says. */
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

const UNREACHABLE_RELEASED =
  "read its journal first (`recover --listen` there); if its host is fenced *and the VM never ran there*: `recover --declare-dead destination` here";

/** Whether the source's STATUS says that its VM went on there, or stands there as before. */
export function saysWentOn(
  { journal, runState, migration }: VmStatus & { journal: string },
): boolean {
  if (journal in { aborted: 1, ran: 1, ranHere: 1 }) return true;
  if (runState === "postmigrate") return migration === "failed" || migration === "cancelled";
  return !(runState in { gone: 1, "finish-migrate": 1, prelaunch: 1 });
}

/** What the source's side is to do. */
export type Verdict =
  /** Say DISCARD: the VM is at the source, or went on from there. */
  | { act: "discard"; text: string }
  /** Journal `released`, then say RELEASE: the VM is the destination's. */
  | { act: "release" }
  /** Journal `aborted`, then `cont` at the source, if the VM ran before. */
  | { act: "resume" }
  /** It runs at the destination: end the source's QEMU, if it is this migration's. */
  | { act: "done"; text: string }
  /** Nothing is left to do: why. */
  | { act: "settled"; text: string }
  /** Nothing is left of the VM. */
  | { act: "lost"; text: string }
  /** Nobody can know: what would settle it. */
  | { act: "unknown"; text: string; hint: string }
  /** Cannot happen by the rules: change nothing, say so loudly. */
  | { act: "conflict"; text: string };

/** The rule for what is known. `declared`: the operator's word that the destination is dead, and what goes with it. */
export function verdict(
  source: SourceStanding,
  destination: DestinationStanding,
  options: { record: SourceRecord; declared: boolean },
): Verdict {
  const { states } = options.record;
  const released = states.includes("released");
  if (states.includes("done") && source !== "waiting") {
    if (source !== "here" && source !== "reset") return done(source);
    return {
      act: "conflict",
      text:
        "the source's journal says that the VM is at the destination for good, and its QEMU holds it",
    };
  }
  switch (source) {
    case "waiting":
      return { act: "unknown", text: "QEMU is still in finish-migrate", hint: "try again" };
    case "reset":
      return wasReset(destination);
    case "here":
      return atSource(destination, { where: "the VM is at the source", ...options });
    case "elsewhere":
      if (isUnclear(options.record)) {
        return {
          act: "unknown",
          text:
            "the journal's line `releasing` is missing or damaged: nobody knows which migration stopped this QEMU",
          hint:
            "look at both VMs: QMP `quit` to the copy that must not run, only then `cont` to the other",
        };
      }
      return atSource(destination, {
        where: "the VM went on from the source in another migration",
        ...options,
      });
    case "gone":
      if (ranHereSince(states) && mayRunThere(states)) return ranAndGone(destination, options);
      if (options.record.stopped) return stoppedAndGone(destination);
      return wentOn(states)
        ? atSource(destination, {
          where: "the VM was at the source, whose QEMU has ended since",
          ...options,
        })
        : sourceGone(destination, released);
    case "postmigrate":
      return wentOn(states)
        ? comingBack(destination)
        : stopped(destination, { released, declared: options.declared });
  }
}

/** Whether the VM went on at the source, and was released to nobody since: every copy is stale, or about to be. */
function wentOn(states: readonly SourceJournalState[]): boolean {
  const back = states.findLastIndex((state) => state in { aborted: 1, ran: 1, ranHere: 1 });
  return back > states.lastIndexOf("released");
}

/** Whether somebody ran it at the source since it was released: what is in postmigrate since went on from here. */
export function ranHereSince(states: readonly SourceJournalState[]): boolean {
  return states.lastIndexOf("ranHere") > states.lastIndexOf("released");
}

/** What is lost where somebody ran it at the source, and the destination has it now. */
export const RAN_AND_LOST =
  "what it did at the source, where somebody ran it after it was released, is lost with its QEMU: if both ran at once, check its disks";

/** Whether QEMU shows that the VM went on from here after this migration had stopped it, or may have. */
export function wentOnFrom(standing: SourceStanding, record: SourceRecord): boolean {
  return standing === "here" || (standing === "elsewhere" && !isUnclear(record));
}

/** Whether the journal lacks what tells this migration from others: a line of it is damaged. */
function isUnclear({ states, counters }: SourceRecord): boolean {
  return counters === null && states.includes("released") &&
    !states.some((state) => state in { ran: 1, ranHere: 1 });
}

/** Whether it was released, and no line since says that the copy is gone: it may run over there, too. */
export function mayRunThere(states: readonly SourceJournalState[]): boolean {
  return states.lastIndexOf("released") > states.lastIndexOf("aborted");
}

function done(source: "postmigrate" | "elsewhere" | "gone"): Verdict {
  const text = "the VM is at the destination";
  switch (source) {
    case "postmigrate":
      return { act: "done", text: `${text}; the source's QEMU is ended` };
    case "elsewhere":
      return {
        act: "done",
        text: `${text}; the source's QEMU has served another migration since, and is left alone`,
      };
    case "gone":
      return { act: "done", text };
  }
}

function atSource(
  destination: DestinationStanding,
  { where, record, declared }: { where: string; record: SourceRecord; declared: boolean },
): Verdict {
  switch (destination) {
    case "loaded":
    case "neverRan":
    case "takingGone":
      return { act: "discard", text: `${where}; a copy at the destination is discarded` };
    case "unreachable":
      if (mayRunThere(record.states) && !declared) {
        return {
          act: "unknown",
          text:
            `${where}, and was released to the destination, which does not answer: it may run there, too`,
          hint: UNREACHABLE_RELEASED,
        };
      }
      return {
        act: "settled",
        text: `${where}; if the destination still holds a copy, it must be discarded: never run it`,
      };
    case "taking":
    case "running":
      return taken(where, destination);
  }
}

/** Somebody ran it at the source after it was released, and it ended: what is left is older, and nobody's to throw away. */
function ranAndGone(
  destination: DestinationStanding,
  options: { record: SourceRecord; declared: boolean },
): Verdict {
  const where = "somebody ran the VM at the source after it was released, and its QEMU has ended";
  switch (destination) {
    case "running":
      return { act: "done", text: `the VM is at the destination; ${RAN_AND_LOST}` };
    case "loaded":
    case "taking":
      return {
        act: "unknown",
        text: `${where}: the copy at the destination is older than that`,
        hint:
          "QMP `quit` there to give it up, and start the VM anew; or QMP `cont` there to go on with the older memory, if its disks allow that; then `recover` again",
      };
    case "neverRan":
    case "takingGone":
      return { act: "lost", text: `${where}; nothing else is left: start the VM anew` };
    case "unreachable":
      return atSource(destination, { where, ...options });
  }
}

/** `cont` had failed, and then it ended: nobody knows whether somebody else's `cont` did better. */
function stoppedAndGone(destination: DestinationStanding): Verdict {
  const where = "the VM did not go on at the source, and its QEMU has ended since";
  switch (destination) {
    case "running":
      return done("gone");
    case "loaded":
    case "taking":
      return {
        act: "unknown",
        text: `${where}: the destination holds the only copy, unless somebody has run it here`,
        hint:
          "if the VM has not run here since it stopped for this migration: `recover --declare-dead source` at the destination; if it has: QMP `quit` there, and start the VM anew",
      };
    case "neverRan":
    case "takingGone":
      return { act: "lost", text: `${where}; nothing else is left: start the VM anew` };
    case "unreachable":
      return {
        act: "unknown",
        text: `${where}; the destination does not answer`,
        hint: "run `recover` again when it does",
      };
  }
}

/** Nobody knows whether it ran at the source before it was reset: the memory that is left may be older than that. */
function wasReset(destination: DestinationStanding): Verdict {
  const text = "the VM at the source was reset after this migration had stopped it";
  if (destination === "neverRan" || destination === "takingGone") {
    return { act: "lost", text: `${text}, and the destination holds nothing: start the VM anew` };
  }
  const there = "if it has not run there since it stopped: QMP `quit` there, then `recover` again";
  return {
    act: "unknown",
    text,
    hint: destination === "running"
      ? there
      : `${there}, here and there; if it has: QMP \`quit\` at the destination, then \`recover\` again`,
  };
}

function taken(where: string, destination: "taking" | "running"): Verdict {
  const there = destination === "running"
    ? "the destination has it, or had it"
    : "the destination's journal says that it took it";
  return { act: "conflict", text: `${where}, and ${there}` };
}

function sourceGone(destination: DestinationStanding, released: boolean): Verdict {
  switch (destination) {
    case "loaded":
      if (released) return { act: "release" };
      return {
        act: "unknown",
        text: "the source's QEMU is gone, and it was never released: it may have run on",
        hint:
          "if it is dead for good and the VM has not run since it stopped for this migration: `recover --declare-dead source` at the destination",
      };
    case "taking":
      return { act: "release" };
    case "running":
      return done("gone");
    case "neverRan":
    case "takingGone":
      return { act: "lost", text: "both QEMUs are gone: start the VM anew" };
    case "unreachable":
      return {
        act: "unknown",
        text: "the source's QEMU is gone, and the destination does not answer",
        hint: "run `recover` again when it does",
      };
  }
}

/** `cont` was decided, and may be under way: an agent that dies does not take it back. */
function comingBack(destination: DestinationStanding): Verdict {
  switch (destination) {
    case "loaded":
    case "neverRan":
    case "takingGone":
    case "unreachable":
      return { act: "resume" };
    case "taking":
    case "running":
      return taken("the VM is about to go on at the source", destination);
  }
}

function stopped(
  destination: DestinationStanding,
  { released, declared }: { released: boolean; declared: boolean },
): Verdict {
  switch (destination) {
    case "loaded":
    case "taking":
      return { act: "release" };
    case "running":
      return done("postmigrate");
    case "neverRan":
      return { act: "resume" };
    case "takingGone":
      if (declared) return { act: "resume" };
      return {
        act: "unknown",
        text:
          "the destination was about to run the VM, or had, when its QEMU died: nobody knows what it did",
        hint: "if it never ran there: `recover --declare-dead destination` here",
      };
    case "unreachable":
      if (declared) return { act: "resume" };
      return {
        act: "unknown",
        text: released
          ? "the destination was told to run the VM, and does not answer"
          : "the destination does not answer; it was never told to run the VM",
        hint: released
          ? UNREACHABLE_RELEASED
          : "once its QEMU is fenced: `recover --declare-dead destination` here",
      };
  }
}
