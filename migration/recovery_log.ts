/**
 * What one side of `recover` says and writes while it settles.
 *
 * @module
 */

import type { DestinationJournalState, SourceJournalState } from "./ports.ts";
import type { RecoveryOptions } from "./recovery_options.ts";
import { Turns } from "./turns.ts";

/** Its notes, and the states of its journal: those that were found, and those that were added. */
export class RecoveryLog<State extends SourceJournalState | DestinationJournalState> {
  /** What was found and what was done, in order. */
  readonly notes: string[] = [];
  readonly #options: RecoveryOptions;
  readonly #states: State[];
  readonly #entries: Record<string, unknown>[];
  readonly #turns = new Turns();

  /** Begins with what the journal holds. */
  constructor(options: RecoveryOptions) {
    this.#options = options;
    this.#states = options.entries.map(({ state }) => state as State);
    this.#entries = [...options.entries];
  }

  /** In the order in which they were written; at least `open`. */
  get states(): readonly State[] {
    return this.#states;
  }

  /** The last of them. */
  get last(): State {
    return this.#states.at(-1)!;
  }

  /** Whether the last line says why the VM was not seen to go on, though it should (`stopped`). */
  get stopped(): boolean {
    return this.#entries.at(-1)!["stopped"] !== undefined;
  }

  /** Whether the last `taking` says that the source was met, and that its VM went on there (`sourceWentOn`). */
  get sourceWentOn(): boolean {
    return this.#entries.findLast(({ state }) => state === "taking")?.["sourceWentOn"] === true;
  }

  /** Whether the source was met, and its VM had run there, or stood there to be run (`sourceRan`): this copy is older. */
  get sourceRan(): boolean {
    return this.#entries.some((entry) => entry["sourceRan"] === true);
  }

  /** Tells whoever runs it. */
  note(text: string): void {
    this.notes.push(text);
    this.#options.onNote?.(text);
  }

  /** Adds a line, with `facts`. @throws when it is not on disk: then the step it guards is not taken */
  async append(state: State, facts: Record<string, unknown> = {}): Promise<void> {
    await this.#turns.run(() => this.#append(state, facts));
  }

  /** The same, unless the last line is none of `behind`; nothing in a dry run. */
  async appendBehind(
    behind: readonly State[],
    state: State,
    facts: Record<string, unknown> = {},
  ): Promise<void> {
    if (this.#options.dryRun) return;
    await this.#turns.run(async () => {
      if (behind.includes(this.last)) await this.#append(state, facts);
    });
  }

  async #append(state: State, facts: Record<string, unknown>): Promise<void> {
    const { journal, clock } = this.#options;
    await journal.append({ ...facts, state, time: clock.date().toISOString(), by: "recover" });
    this.#states.push(state);
    this.#entries.push({ ...facts, state });
  }
}
