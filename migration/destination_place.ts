/**
 * The place of the one migration that a destination takes: who has it, and whether for good.
 *
 * @see PROTOCOL.md section 2.5
 * @module
 */

import { type Admitted, equal } from "./admission.ts";
import type { Candidate } from "./candidate.ts";
import { MigrationError } from "./errors.ts";

/** First claimed, when ACCEPT is decided on; then a candidate's; bound once the first record of that has opened. */
export class Place implements Disposable {
  #claim: Admitted | null = null;
  /** That of the claim, once its keys are derived. */
  #candidate: Candidate | null = null;
  #bound = false;
  #closed = false;

  /** Whose it is now; null when nobody's keys are derived. */
  get candidate(): Candidate | null {
    return this.#candidate;
  }

  /** Whose it is for good; null before. */
  get bound(): Candidate | null {
    return this.#bound ? this.#candidate : null;
  }

  /** Over, however it went: nobody is let in, nothing more lands. */
  get closed(): boolean {
    return this.#closed;
  }

  /** See {@linkcode closed}. */
  close(): void {
    this.#closed = true;
  }

  /** Whether this key has to be told that another migration is under way. A source whose ACCEPT was lost may offer again. */
  isTakenFor(publicKey: Uint8Array): boolean {
    const other = this.#claim;
    const present = other !== null && (this.#candidate?.link.connected ?? true);
    return this.#bound || (present && !equal(other.publicKey, publicKey));
  }

  /** Takes it from whoever had it. Nothing may be awaited since `isTakenFor` was asked: two sources cannot both be let in. */
  claim(admitted: Admitted): void {
    this.#empty();
    this.#claim = admitted;
  }

  /** Whether it is still theirs. */
  isClaimedBy(admitted: Admitted): boolean {
    return this.#claim === admitted;
  }

  /** The candidate of the claim. @returns it */
  seat(candidate: Candidate): Candidate {
    return this.#candidate = candidate;
  }

  /** Its first record has opened: nobody else gets the place any more. @throws MigrationError `protocol` when another has it, or nobody may */
  bind(candidate: Candidate): void {
    if (this.#candidate !== candidate || this.#closed) {
      throw new MigrationError(
        "protocol",
        "Cannot go on: another connection took this one's place",
      );
    }
    this.#bound = true;
  }

  /** Frees the place, if it is theirs and not for good. */
  giveUp(admitted: Admitted): void {
    if (!this.#bound && this.#claim === admitted) this.#empty();
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#candidate?.[Symbol.dispose]();
  }

  #empty(): void {
    const claim = this.#claim;
    this.#claim = null;
    claim?.connection[Symbol.dispose]();
    this.#candidate?.[Symbol.dispose]();
    this.#candidate = null;
  }
}
