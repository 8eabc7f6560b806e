/**
 * Where the source knows the VM to be.
 *
 * @module
 */

import type { MigrationResult } from "./result.ts";

/** Kept up to date by every step that sees, or hears of, one of the two copies. */
export class Whereabouts {
  /** The source's QEMU is gone, and with it the VM here. */
  gone = false;
  /** Where the VM was last seen to stand here; null before. */
  source: MigrationResult["sourceState"] = null;
  /** Where it stands over there, as the destination said; null before. */
  destination: MigrationResult["destinationState"] = null;
  /** What somebody has to look at. */
  readonly doubts: string[] = [];

  /** The source's QEMU was looked for, and is gone. */
  seenGone(): void {
    this.gone = true;
    this.source = "gone";
  }
}
