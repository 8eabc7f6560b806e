/**
 * How long the VM has been stopped, and how long it may be: `--max-stop`.
 *
 * @module
 */

import { MigrationError } from "./errors.ts";
import type { Clock } from "./ports.ts";

/** Counts from the VM's stop on, less what hooks held it meanwhile. */
export class StopBudget {
  readonly #clock: Clock;
  readonly #maxStopMs: number;
  readonly #giveUp: (reason: MigrationError) => void;
  #timer: { clear(): void } | null = null;
  #stoppedAtMs: number | null = null;
  #holdMs = 0;

  /** `giveUp` is called when the budget is used up. */
  constructor(options: {
    clock: Clock;
    maxStopMs: number;
    giveUp: (reason: MigrationError) => void;
  }) {
    this.#clock = options.clock;
    this.#maxStopMs = options.maxStopMs;
    this.#giveUp = options.giveUp;
  }

  /** Monotonic ms of the VM's stop; null before. */
  get stoppedAtMs(): number | null {
    return this.#stoppedAtMs;
  }

  /** Time that hooks held the stopped VM. */
  get holdMs(): number {
    return this.#holdMs;
  }

  /** The VM has stopped: the budget counts. */
  begin(stoppedAtMs: number): void {
    this.#stoppedAtMs = stoppedAtMs;
    this.#arm();
  }

  /** It counts no more: the VM runs again, or there is no way back that it could force. */
  end(): void {
    this.#timer?.clear();
    this.#timer = null;
  }

  /** Stands still for a hook. @returns what says that it is over, null when nothing was counted anyway */
  pause(): ((over: { held: boolean; goOn: boolean }) => void) | null {
    if (this.#timer === null) return null;
    const fromMs = this.#clock.now();
    this.end();
    return ({ held, goOn }) => {
      if (held) this.#holdMs += this.#clock.now() - fromMs;
      if (goOn) this.#arm();
    };
  }

  #arm(): void {
    const usedMs = this.#clock.now() - this.#stoppedAtMs! - this.#holdMs;
    this.#timer = this.#clock.timer(Math.max(0, this.#maxStopMs - usedMs), () =>
      this.#giveUp(
        new MigrationError(
          "timeout",
          `Cannot finish within --max-stop: the VM was stopped for ${this.#maxStopMs} ms`,
          { hint: "raise --max-stop, or lower --downtime-limit so that less is left for the stop" },
        ),
      ));
  }
}
