/**
 * Word of what may happen thousands of times a second: of the first at once, of later ones together.
 *
 * @module
 */

import type { Clock } from "./ports.ts";

/** Between two words of one kind, in milliseconds. */
const NOTE_INTERVAL_MS = 1_000;

/** Counts events of one kind. See the module. */
export class SpacedNotes {
  readonly #clock: Clock;
  #untold = 0;
  #toldAtMs = -Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** One more. @returns how many to tell of now, the last word's not among them; 0 when it is not time yet */
  count(): number {
    this.#untold++;
    const nowMs = this.#clock.now();
    if (nowMs - this.#toldAtMs < NOTE_INTERVAL_MS) return 0;
    const due = this.#untold;
    this.#untold = 0;
    this.#toldAtMs = nowMs;
    return due;
  }
}
