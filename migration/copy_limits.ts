/**
 * How long the VM may be copied while it runs: `--max-rounds` and `--max-time`.
 *
 * @module
 */

import { MigrationError } from "./errors.ts";
import type { Clock, SourceVm } from "./ports.ts";
import type { RoundStatistics } from "./rounds.ts";

/** What {@linkcode CopyLimits} work with. */
export interface CopyLimitsOptions {
  clock: Clock;
  vm: Pick<SourceVm, "tune">;
  /** See `SourceOptions.maxRounds`. */
  maxRounds: number | undefined;
  /** See `SourceOptions.maxTimeMs`. */
  maxTimeMs: number | undefined;
  /** What the VM may be stopped for, once the rounds are through. */
  maxStopMs: number;
  /** Whether the VM has yet to stop for the last round. */
  copying: () => boolean;
  /** A limit is reached. */
  giveUp: (reason: MigrationError) => void;
}

/** See the module. */
export class CopyLimits {
  readonly #options: CopyLimitsOptions;
  #timer: { clear(): void } | null = null;
  /** The VM's side has answered: the longest stop is allowed, or cannot be. */
  #tuned = false;

  constructor(options: CopyLimitsOptions) {
    this.#options = options;
  }

  /** The time counts from `startedAtMs` on. */
  begin(startedAtMs: number): void {
    const { clock, maxTimeMs, copying, giveUp } = this.#options;
    if (maxTimeMs === undefined) return;
    this.#timer = clock.timer(maxTimeMs - (clock.now() - startedAtMs), () => {
      if (!copying()) return;
      giveUp(
        new MigrationError(
          "timeout",
          `Cannot finish in ${maxTimeMs} ms: the VM writes faster than it is copied`,
          {
            hint: "raise --max-time, --max-bandwidth or --downtime-limit, or give --auto-converge",
          },
        ),
      );
    });
  }

  /** A round was closed, by the VM's stop or by the next one. */
  roundClosed({ round }: Pick<RoundStatistics, "round">, vmStopped: boolean): void {
    const { vm, maxRounds, maxStopMs, giveUp } = this.#options;
    if (maxRounds === undefined || vmStopped) return;
    if (round + 1 === maxRounds) {
      // The paper's N: no more rounds, as soon as the rest fits into the stop that is allowed at most.
      const answered = () => {
        this.#tuned = true;
      };
      vm.tune({ downtimeLimitMs: maxStopMs }).then(answered, answered);
    } else if (this.#tuned) {
      // Rounds that were closed before the answer had no chance to be the last: tiny ones may be many.
      giveUp(
        new MigrationError(
          "timeout",
          `Cannot finish in ${maxRounds} rounds: what is left does not fit into --max-stop`,
          {
            hint: "raise --max-rounds, --max-stop or --max-bandwidth, or give --auto-converge",
          },
        ),
      );
    }
  }

  /** The time counts no more. */
  end(): void {
    this.#timer?.clear();
  }
}
