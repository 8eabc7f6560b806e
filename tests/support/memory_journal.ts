/**
 * Journals in memory, on a disk that can be full.
 *
 * @module
 */

import type { Journal, JournalEntry, JournalStore } from "../../migration/ports.ts";

/** See the module. */
export class MemoryJournals implements JournalStore {
  /** Lines by `id.side`, in order. */
  readonly lines = new Map<string, JournalEntry[]>();
  /** Journals not closed yet. */
  open = 0;
  /** Waited for before each line. */
  beforeLine: (entry: JournalEntry) => Promise<void> = () => Promise.resolve();
  #appends = 0;
  readonly #fails: (append: number) => boolean;
  readonly #onLine: (entry: JournalEntry) => void;

  /** `fails` gets the number of each append, from 0; `onLine` each line that is written. */
  constructor(
    options: { fails?: (append: number) => boolean; onLine?: (entry: JournalEntry) => void } = {},
  ) {
    this.#fails = options.fails ?? (() => false);
    this.#onLine = options.onLine ?? (() => {});
  }

  /** States written, all journals together. */
  get states(): string[] {
    return [...this.lines.values()].flat().map(({ state }) => state);
  }

  has(id: string, side: string): Promise<boolean> {
    return Promise.resolve(this.lines.has(`${id}.${side}`));
  }

  check(): Promise<void> {
    return Promise.resolve();
  }

  async create(id: string, side: string, entry: JournalEntry): Promise<Journal> {
    const lines: JournalEntry[] = [];
    await this.#append(lines, entry);
    this.lines.set(`${id}.${side}`, lines);
    this.open++;
    let closed = false;
    return {
      append: async (next) => {
        if (closed) throw new Error("Cannot write: the journal is closed");
        await this.#append(lines, next);
      },
      close: () => {
        if (!closed) this.open--;
        closed = true;
      },
    };
  }

  /** Goes on with a journal that is there. */
  reopen(
    id: string,
    side: "source" | "destination",
  ): { entries: JournalEntry[]; journal: Journal } {
    const lines = this.lines.get(`${id}.${side}`)!;
    return {
      entries: [...lines],
      journal: { append: (next) => this.#append(lines, next), close: () => {} },
    };
  }

  async #append(lines: JournalEntry[], entry: JournalEntry): Promise<void> {
    // Whatever is written has to survive being written.
    const line: JournalEntry = JSON.parse(JSON.stringify(entry));
    await this.beforeLine(line);
    if (this.#fails(this.#appends++)) throw new Error("no space left on device");
    lines.push(line);
    this.#onLine(line);
  }
}
