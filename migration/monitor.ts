/**
 * The paper's monitor function: says of each page whether it belongs to user space or to system space, and to what of it.
 *
 * @see "Monitor Function" in section 3.2 of the paper
 * @module
 */

import type { PageClass } from "./message_types.ts";
import {
  type ClassifierSummary,
  type Clock,
  type PageClassifier,
  pagingFlags,
  type PagingReader,
  type PagingReading,
} from "./ports.ts";

/** How long a look at the page tables may take while the VM stands still: all of it is downtime. */
export const DEFAULT_MONITOR_BUDGET_MS = 200;

/** So many budgets long a look may take before that: the first one meets cold code, and holds up nothing but its round. */
const LIVE_BUDGETS = 5;

/** So many times as long as a look took, nobody looks again while the VM runs. */
const REST_PER_WORK = 9;

/** Class by flags. */
const classesByFlags: readonly PageClass[] = Array.from({ length: 16 }, (_, flags) => {
  // Whatever is not known may be a process's.
  if ((flags & pagingFlags.known) === 0 || (flags & pagingFlags.user) !== 0) return "user";
  if ((flags & pagingFlags.kernelExecutable) !== 0) return "kernelText";
  return (flags & pagingFlags.kernel) !== 0 ? "kernelData" : "unmapped";
});

/** Settings of a {@linkcode Monitor}. */
export interface MonitorOptions {
  /** Where the page tables come from. */
  reader: PagingReader;
  /** For the time that it takes. */
  clock: Clock;
  /**
   * For one refresh, in milliseconds; {@linkcode DEFAULT_MONITOR_BUDGET_MS} when absent. The first one, and those
   * between live rounds, may take five times as long.
   */
  budgetMs?: number;
}

/**
 * Classes of a VM's pages, as of the last refresh. Before the first one, and whenever the page tables could not be read whole and in
 * time, every page is `user`: a page of a process is never taken for one of the system because somebody looked away.
 *
 * @example
 * ```ts
 * import { Monitor } from "./monitor.ts";
 * import { type Clock, pagingFlags } from "./ports.ts";
 *
 * export function classOfFirstPage(clock: Clock): string {
 *   const marks = [Uint8Array.of(pagingFlags.known | pagingFlags.kernel)];
 *   const reader = { read: () => ({ why: null, addressSpaces: 1, marks }) };
 *   const monitor = new Monitor({ clock, reader });
 *   monitor.refresh();
 *   return monitor.classOf(0, 0); // kernelData
 * }
 * ```
 */
export class Monitor implements PageClassifier {
  readonly #reader: PagingReader;
  readonly #clock: Clock;
  readonly #budgetMs: number;
  #reading: PagingReading = {
    why: "the page tables were not read yet",
    addressSpaces: 0,
    marks: [],
  };
  #refreshes = 0;
  #failed = 0;
  #lastWhy: string | null = null;
  #lastRefreshMs = 0;
  #refreshedAtMs = -Infinity;

  /** Reads nothing yet. */
  constructor(options: MonitorOptions) {
    this.#reader = options.reader;
    this.#clock = options.clock;
    this.#budgetMs = options.budgetMs ?? DEFAULT_MONITOR_BUDGET_MS;
  }

  /** The class of a page: of a 4 KiB page of a block, by number. */
  classOf(block: number, page: number): PageClass {
    const flags = this.#reading.marks[block]?.[page] ?? 0;
    return classesByFlags[flags] ?? "user";
  }

  /** Reads the page tables again, unless that would take more than a tenth of the time: short rounds must stay short. */
  refreshIfDue(): void {
    const restedMs = this.#clock.now() - this.#refreshedAtMs;
    if (restedMs >= REST_PER_WORK * this.#lastRefreshMs) this.#look(LIVE_BUDGETS * this.#budgetMs);
  }

  /** Reads the page tables again, now. */
  refresh(): void {
    this.#look(this.#refreshes === 0 ? LIVE_BUDGETS * this.#budgetMs : this.#budgetMs);
  }

  /** What it did so far. */
  summary(): ClassifierSummary {
    return {
      addressSpaces: this.#reading.addressSpaces,
      refreshes: this.#refreshes,
      lastRefreshMs: this.#lastRefreshMs,
      failed: this.#failed,
      why: this.#refreshes === 0 ? this.#reading.why : this.#lastWhy,
    };
  }

  #look(budgetMs: number): void {
    const startMs = this.#clock.now();
    const reading = this.#reader.read(budgetMs);
    this.#reading = reading.why === null ? reading : { ...reading, marks: [] };
    this.#refreshes++;
    if (reading.why !== null) {
      this.#failed++;
      this.#lastWhy = reading.why;
    }
    this.#refreshedAtMs = this.#clock.now();
    this.#lastRefreshMs = this.#refreshedAtMs - startMs;
  }
}
