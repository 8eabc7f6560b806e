/**
 * The source's journal: a line is on disk before the step that it guards is taken (PROTOCOL.md section 7.3).
 *
 * @module
 */

import { journalError } from "./failure.ts";
import type { Clock, Journal, JournalEntry, JournalStore } from "./ports.ts";
import { Turns } from "./turns.ts";

/** What a source writes behind `open`. */
type SourceEntry = {
  state: "releasing" | "released" | "ranHere" | "done" | "aborted";
  [key: string]: unknown;
};

/** The journal of one migration. */
export class SourceJournal {
  readonly #clock: Clock;
  readonly #damage: () => { mistakes: number; hits: readonly unknown[] };
  readonly #turns = new Turns();
  #journal: Journal | null = null;
  #released = false;
  #last: SourceEntry["state"] | "open" = "open";

  constructor(options: {
    clock: Clock;
    /** What was damaged so far, and when. */
    damage: () => { mistakes: number; hits: readonly unknown[] };
  }) {
    this.#clock = options.clock;
    this.#damage = options.damage;
  }

  /** Whether `open` is written. */
  get begun(): boolean {
    return this.#journal !== null;
  }

  /** Whether `released` is written: forward is the only way. */
  get released(): boolean {
    return this.#released;
  }

  /** Writes `open`. @throws MigrationError `journal` */
  async begin(
    journals: JournalStore,
    { id, facts }: { id: string; facts: Record<string, unknown> },
  ): Promise<void> {
    const entry: JournalEntry = { state: "open", time: this.#clock.date().toISOString(), ...facts };
    try {
      this.#journal = await journals.create(id, "source", entry);
    } catch (cause) {
      throw journalError(cause);
    }
  }

  /** Resolves when the line is on disk. @throws MigrationError `journal` */
  async append(entry: SourceEntry): Promise<void> {
    await this.#turns.run(() => this.#append(entry));
  }

  /** The last line of a migration that failed anyway: without it `recover` asks QEMU, which knows. Once is enough. */
  async appendAborted(): Promise<void> {
    await this.#turns.run(async () => {
      if (this.#last !== "aborted") await this.#append({ state: "aborted" });
    }).catch(() => {});
  }

  /**
   * Somebody else ran the VM here since it was released: no copy may be released any more, whatever becomes of it. Before
   * `released` there is nothing to take back. @throws MigrationError `journal`
   */
  async appendRanHere(): Promise<void> {
    await this.#turns.run(async () => {
      if (this.#last === "released") await this.#append({ state: "ranHere" });
    });
  }

  /** Takes no more lines. */
  close(): void {
    this.#journal?.close();
  }

  async #append(entry: SourceEntry): Promise<void> {
    try {
      const time = this.#clock.date().toISOString();
      const { mistakes, hits } = this.#damage();
      // The last line tells what was damaged and when, for whoever looks into it.
      const last = entry.state === "done" || entry.state === "aborted";
      const audit = mistakes > 0 && last ? { mistakes, hits } : {};
      await this.#journal!.append({ time, ...audit, ...entry });
    } catch (cause) {
      throw journalError(cause);
    }
    this.#last = entry.state;
    if (entry.state === "released") this.#released = true;
  }
}
