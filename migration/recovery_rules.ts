/**
 * What `recover` does in which situation: the third table of PROTOCOL.md section 7.4, as a function of where the VM stands
 * on either side. Nothing here acts.
 *
 * @module
 */

import {
  type DestinationStanding,
  isUnclear,
  mayRunThere,
  ranHereSince,
  type SourceRecord,
  type SourceStanding,
  wentOn,
} from "./recovery_standing.ts";

const UNREACHABLE_RELEASED =
  "read its journal first (`recover --listen` there); if its host is fenced *and the VM never ran there*: `recover --declare-dead destination` here";

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
      if (options.record.stopped) return stoppedAndGone(destination, options);
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

/** What is lost where somebody ran it at the source, and the destination has it now. */
export const RAN_AND_LOST =
  "what it did at the source, where somebody ran it after it was released, is lost with its QEMU: if both ran at once, check its disks";

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

/** It ended before its `cont` was seen to work: nobody knows whether it did, or somebody else's. */
function stoppedAndGone(
  destination: DestinationStanding,
  { declared }: { declared: boolean },
): Verdict {
  const where = "nobody saw the VM go on at the source, and its QEMU has ended since";
  switch (destination) {
    case "running":
      return done("gone");
    case "loaded":
    case "taking":
      return {
        act: "unknown",
        text: `${where}: the copy at the destination is the only one, or older than what was lost`,
        hint:
          "if the VM has not run here since it stopped for this migration: `recover --declare-dead source` at the destination; if it has: QMP `quit` there, and start the VM anew",
      };
    case "neverRan":
    case "takingGone":
      return { act: "lost", text: `${where}; nothing else is left: start the VM anew` };
    case "unreachable":
      if (declared) {
        return {
          act: "lost",
          text: `${where}; the destination is sworn to be dead: start the VM anew`,
        };
      }
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
