/**
 * Where the source is: its machine, moved one step at a time.
 *
 * @module
 */

import { type EnteredHook, type SourceState, sourceTransitions, StateMachine } from "./states.ts";
import type { StopBudget } from "./stop_budget.ts";

/** How a migration ends that did not go well. */
const WAYS_OUT = { aborting: 1, failed: 1, aborted: 1, unknown: 1 };

/** See the module. */
export class SourceSteps {
  readonly #machine: StateMachine<SourceState>;
  readonly #budget: StopBudget;
  readonly #released: () => boolean;
  #lastState: SourceState = "connecting";

  constructor(options: {
    entered: EnteredHook<SourceState> | undefined;
    budget: StopBudget;
    /** Whether the VM was let go: `--max-stop` cannot bring it back. */
    released: () => boolean;
  }) {
    this.#machine = new StateMachine<SourceState>("connecting", {
      transitions: sourceTransitions,
      entered: options.entered,
    });
    this.#budget = options.budget;
    this.#released = options.released;
  }

  /** Where the migration is. */
  get state(): SourceState {
    return this.#machine.state;
  }

  /** Where it was before it took a way out. */
  get lastState(): SourceState {
    return this.#lastState;
  }

  /** Moves on; what a hook holds while the VM is stopped counts as `holdMs` and nowhere else. */
  async enter(state: SourceState): Promise<void> {
    const over = this.#budget.pause();
    if (state in WAYS_OUT && !(this.state in WAYS_OUT)) this.#lastState = this.state;
    const held = await this.#machine.enter(state);
    if (state !== "aborting") over?.({ held, goOn: !this.#released() });
  }
}
