/**
 * What `recover` found and decided, in words for whoever runs it.
 *
 * @module
 */

import type { Verdict } from "./recovery_rules.ts";
import type { DestinationStanding, SourceStanding } from "./recovery_standing.ts";

/** Where the VM stands at the source. */
export const sourceWords = {
  here: "its QEMU holds the VM",
  waiting: "its QEMU is still on its way out of the migration",
  postmigrate: "its QEMU stands still for good, this migration took the VM from it",
  elsewhere: "its QEMU stands still for good, another migration took the VM from it",
  reset: "its QEMU was reset, after this migration had taken the VM from it",
  gone: "its QEMU is gone",
} as const satisfies Record<SourceStanding, string>;

/** What is known of the destination's copy. */
export const destinationWords = {
  loaded: "holds a whole copy that stands still",
  neverRan: "holds nothing that could run, and ran nothing",
  taking: "was told to run its copy, and has not yet",
  takingGone: "was about to run its copy, or did, and its QEMU has ended",
  running: "has the VM, or had it and passed it on",
  unreachable: "does not answer",
} as const satisfies Record<DestinationStanding, string>;

const acts = {
  release: "the VM belongs to the destination, which takes it now",
  resume: "no copy ran over there; the VM goes on at the source",
} as const;

/** What follows from the two. */
export function verdictWords(verdict: Verdict): string {
  return "text" in verdict ? verdict.text : acts[verdict.act];
}

/** A run state, for behind what was found; nothing for `gone`. */
export function unlessGone(runState: string): string {
  return runState === "gone" ? "" : ` (${runState})`;
}
