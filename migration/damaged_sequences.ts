/**
 * Which records were damaged, as both sides count them: FINISH compares the two lists.
 *
 * @see PROTOCOL.md section 5, points 4 and 6
 * @module
 */

import { sha256 } from "../ciphers/digest.ts";
import { MigrationError } from "./errors.ts";
import { MIN_DAMAGE_BYTES } from "./limits.ts";
import { writeUint64 } from "./record.ts";

/** Damaged sequences of one lane, and what they cost. Bounded by the budget: each costs at least a page. */
export class DamagedSequences {
  readonly #budgetBytes: number;
  readonly #sequences = new Set<number>();
  #bytes = 0;

  /** `budgetBytes` is the total for the migration. */
  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes;
  }

  /** How many there are. */
  get count(): number {
    return this.#sequences.size;
  }

  /**
   * Counts a damaged record of `sealedBytes`. @returns false when it was counted before
   * @throws MigrationError `tampering` when that is more than the budget permits
   */
  add(sequence: number, sealedBytes: number): boolean {
    if (this.#sequences.has(sequence)) return false;
    this.#sequences.add(sequence);
    this.#bytes += Math.max(MIN_DAMAGE_BYTES, sealedBytes);
    if (this.#bytes > this.#budgetBytes) {
      throw new MigrationError(
        "tampering",
        `Cannot go on: ${this.count} records were damaged on the way, more than the repair budget permits`,
        { hint: "somebody or something changes bytes between the two hosts" },
      );
    }
    return true;
  }

  /** Those above `sequence`, ascending. */
  above(sequence: number): number[] {
    return this.#sorted().filter((damaged) => damaged > sequence);
  }

  /** Their number, and SHA-256 over them, ascending, as u64. */
  digest(): { count: number; sha256: string } {
    const bytes = new Uint8Array(8 * this.count);
    const view = new DataView(bytes.buffer);
    this.#sorted().forEach((sequence, i) => writeUint64(view, 8 * i, sequence));
    return { count: this.count, sha256: sha256(bytes).toHex() };
  }

  #sorted(): number[] {
    return [...this.#sequences].sort((a, b) => a - b);
  }
}
