/**
 * A policy's say in each round: asked when one is closed, while the next is under way.
 *
 * @module
 */

import type { Policy, PolicyRound } from "./policy_types.ts";
import type { LiveSettings } from "./ports.ts";
import type { RoundStatistics } from "./rounds.ts";

/** What {@linkcode PolicyRounds} works with. */
export interface PolicyRoundsOptions {
  /** Who is asked. */
  policy: Pick<Policy, "round">;
  /** Where its settings go: `SourceVm.tune`; when it fails, so has the policy. */
  tune: (settings: LiveSettings) => Promise<void>;
  /** The policy failed: it is not asked again. */
  onError: (error: unknown) => void;
}

/** Asks one question at a time; of rounds that are closed meanwhile only the newest counts. */
export class PolicyRounds {
  readonly #options: PolicyRoundsOptions;
  #bytesBefore = Infinity;
  #waiting: PolicyRound | null = null;
  #asking: Promise<void> | null = null;
  #failed = false;

  /** Asks nothing before a round is closed. */
  constructor(options: PolicyRoundsOptions) {
    this.#options = options;
  }

  /** A round was closed. */
  closed(round: RoundStatistics): void {
    if (this.#options.policy.round === undefined || this.#failed) return;
    this.#waiting = { ...round, converging: round.bytes < this.#bytesBefore };
    this.#bytesBefore = round.bytes;
    this.#asking ??= this.#ask();
  }

  /** Resolves when nothing is being asked. */
  async settled(): Promise<void> {
    await this.#asking;
  }

  async #ask(): Promise<void> {
    const { policy, tune, onError } = this.#options;
    try {
      while (this.#waiting !== null) {
        const stats = this.#waiting;
        this.#waiting = null;
        const settings = await policy.round!(stats);
        if (Object.keys(settings).length > 0) await tune(settings);
      }
    } catch (error) {
      this.#failed = true;
      onError(error);
    } finally {
      this.#asking = null;
    }
  }
}
