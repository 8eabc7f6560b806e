/**
 * What really happens to the one VM that two simulated QEMUs hold copies of. No agent can see it; every rule of
 * PROTOCOL.md section 7 that is broken is noted here the moment it happens.
 *
 * @module
 */

import type { JournalEntry, StateBefore } from "../../migration/ports.ts";

/** State of a simulated QEMU. */
export type SimulatedState =
  | "running"
  | "paused"
  | "prelaunch"
  | "finish-migrate"
  | "postmigrate"
  | "inmigrate"
  | "gone";

/** Memory, block by block, and what stands for the devices. */
export interface Snapshot {
  blocks: Uint8Array[];
  state: Uint8Array;
}

/** See the module. */
export class SimulatedWorld {
  readonly before: StateBefore;
  /** Rules broken. */
  readonly violations: string[] = [];
  /** Everything that happened, for a person. */
  readonly log: string[] = [];
  source: SimulatedState;
  /** `io-error`: it ran, and stopped by itself. */
  destination: SimulatedState | "io-error" = "inmigrate";
  /** The VM as it was when it stopped for the last round; null before. */
  captured: Snapshot | null = null;
  /** The source ran on after that: what the destination holds is stale. */
  sourceRanOn = false;
  /** The source's QEMU went back to how its VM stood before: its owner may run it. */
  sourceStandsAgain = false;
  destinationRan = false;
  /** The destination's QEMU has everything and holds it. */
  destinationLoaded = false;
  #taken = false;
  #released = false;

  constructor(before: StateBefore) {
    this.before = before;
    this.source = before;
  }

  note(what: string): void {
    this.log.push(`${what}  [source ${this.source}, destination ${this.destination}]`);
  }

  violate(rule: string): void {
    this.note(`VIOLATION ${rule}`);
    this.violations.push(rule);
  }

  /** The source's VM runs (again). */
  sourceRuns(how: string): void {
    this.source = "running";
    if (this.captured !== null) this.sourceRanOn = true;
    this.note(`the source runs: ${how}`);
    if (this.destination === "running") this.violate("both run");
    if (this.destinationRan) this.violate("a stale copy runs at the source");
  }

  /** The destination's VM runs. */
  destinationRuns(copy: Snapshot): void {
    this.destination = "running";
    this.destinationRan = true;
    this.note("the destination runs");
    if (this.source === "running") this.violate("both run");
    if (this.sourceRanOn) this.violate("a stale copy runs at the destination");
    if (!this.#neverAgain()) this.violate("the destination runs, and the source may");
    this.checkCopy(copy);
  }

  /** Whether the source's QEMU can never run the VM by itself, and has not since the capture. */
  #neverAgain(): boolean {
    if (this.sourceRanOn) return false;
    return this.source === "gone" || (this.source === "postmigrate" && !this.sourceStandsAgain);
  }

  /** Whether the copy is the VM as it was captured. */
  checkCopy(copy: Snapshot): void {
    if (this.captured === null) return this.violate("a copy of a VM that was never captured");
    const same = this.captured.blocks.every((block, i) => equal(block, copy.blocks[i]!)) &&
      equal(this.captured.state, copy.state);
    if (!same) this.violate("the copy is not the VM");
  }

  /** A line on the source's disk. */
  sourceJournals({ state }: JournalEntry): void {
    this.note(`source journals ${state}`);
    if (state === "released") this.#released = true;
    if (state === "released" && this.captured === null) {
      this.violate("journal released for a VM that never stopped");
    }
    if (state === "released" && !this.#neverAgain()) {
      this.violate("journal released, and the source may run");
    }
    if (state === "done" && !this.#taken) {
      this.violate("journal done before the other side took it");
    }
    if (state === "aborted" && this.source === "finish-migrate") {
      this.violate("journal aborted before the VM was seen to be back");
    }
  }

  /** A line on the destination's disk. */
  destinationJournals({ state, ...rest }: JournalEntry): void {
    this.note(`destination journals ${state}`);
    if (state === "loaded" && !this.destinationLoaded) {
      this.violate("journal loaded, and it is not");
    }
    if (state === "ranEarly" && !this.destinationRan) {
      this.violate("journal ranEarly, and it never ran");
    }
    // The second one takes nothing: it says what the source said.
    if (state === "taking" && rest["sourceWentOn"] !== true) {
      this.#taken = true;
      if (!this.#released && rest["declaredDead"] === undefined) {
        this.violate("journal taking, and the source's does not say released");
      }
      if (!this.#neverAgain()) this.violate("journal taking, and the source may run");
    }
    if (state === "discarded" && this.destination !== "gone" && this.destination !== "inmigrate") {
      this.violate("journal discarded, and QEMU still holds a copy");
    }
  }
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
