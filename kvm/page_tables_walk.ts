/**
 * Walks page tables, all of them at once, level by level.
 *
 * A guest can make any graph of its tables: loops, tables that are their own parents, a million parents of one. A table is
 * therefore looked at once for each level at which it is used and each set of rights with which it is reached, so that the work is
 * bounded by the size of RAM; a deadline bounds it further.
 *
 * @see Intel SDM volume 3A, sections 4.5 (translation) and 4.6.1 (access rights)
 * @module
 */

import { NO_SLOT, type PhysicalLayout, type PhysicalMemory } from "./guest_physical.ts";
import {
  entryBits,
  EXECUTE_DISABLE,
  FIRST_CODE_ENTRY,
  invertedPageOf,
  KERNEL_HALF,
  LAST_ENTRY,
  pageOf,
  TABLE_ENTRIES,
  TABLE_WORDS,
} from "./page_tables_format.ts";
import { type PageMarks, pageMarks } from "./page_tables_marks.ts";

/** Tables read with one system call; between two of them the clock is looked at. */
const BATCH_TABLES = 128;
/** Levels of a walk: top-level tables are at 4 or 5. */
const MAX_LEVEL = 5;

/** With which rights a table is reached, as bits. */
const reached = {
  /** Every entry on the way has the user bit. */
  user: 1,
  /** In the lower half of addresses: the processes'. */
  lowerHalf: 2,
  /** Where the kernel has code, and executable on the whole way. */
  code: 4,
} as const;
/** Bits of {@linkcode reached}. */
const REACHED_BITS = 3;
const REACHED_MASK = (1 << REACHED_BITS) - 1;

/** What a {@linkcode PageTableWalk} writes to and reads from. */
export interface WalkOptions {
  /** The guest's memory. */
  memory: PhysicalMemory;
  /** Gets what the entries say. */
  marks: PageMarks;
  /** Levels of paging. */
  levels: 4 | 5;
}

/** A walk from one or several top-level tables. */
export class PageTableWalk {
  readonly #memory: PhysicalMemory;
  readonly #layout: PhysicalLayout;
  readonly #marks: PageMarks;
  readonly #levels: number;
  /** For each level and slot: a bit for each set of rights with which that table was reached. */
  readonly #seen: Uint8Array[];
  /** For each level: tables to look at, as slot and rights. */
  readonly #queues: number[][];
  readonly #tables = new Uint32Array(BATCH_TABLES * TABLE_WORDS);
  #userRoots = 0;

  constructor({ memory, marks, levels }: WalkOptions) {
    this.#memory = memory;
    this.#layout = memory.layout;
    this.#marks = marks;
    this.#levels = levels;
    const all = Array.from({ length: MAX_LEVEL + 1 }, (_, level) => level);
    this.#seen = all.map((level) =>
      new Uint8Array(level === 0 || level > levels ? 0 : memory.layout.slotCount)
    );
    this.#queues = all.map(() => []);
  }

  /** Top-level tables walked so far that map anything for ring 3. */
  get userRoots(): number {
    return this.#userRoots;
  }

  /** Forgets which tables were seen. */
  clear(): void {
    for (const seen of this.#seen) seen.fill(0);
    for (const queue of this.#queues) queue.length = 0;
    this.#userRoots = 0;
  }

  /** Queues a top-level table. */
  addRoot(slot: number): void {
    this.#push(this.#levels, slot, reached.user | reached.code);
  }

  /**
   * Walks everything that is queued.
   *
   * @param deadlineMs on `performance.now()`
   * @returns false when the deadline came first
   * @throws {KvmError} when the VM is gone or cannot be read
   */
  run(deadlineMs: number): boolean {
    // Entries lead one level down and nowhere else: one pass from the top sees all.
    for (let level = this.#levels; level > 0; level--) {
      const queue = this.#queues[level]!;
      for (let at = 0; at < queue.length; at += BATCH_TABLES) {
        if (performance.now() >= deadlineMs) return false;
        const batch = queue.slice(at, at + BATCH_TABLES);
        const tables = this.#tables.subarray(0, batch.length * TABLE_WORDS);
        this.#memory.readPages(batch.map((item) => Math.floor(item / (REACHED_MASK + 1))), tables);
        for (const [index, item] of batch.entries()) {
          const table = tables.subarray(index * TABLE_WORDS, (index + 1) * TABLE_WORDS);
          if (level === this.#levels) this.#walkRoot(table);
          else this.#walkTable(table, { level, rights: item & REACHED_MASK });
        }
      }
      queue.length = 0;
    }
    return true;
  }

  #walkRoot(table: Uint32Array): void {
    const level = this.#levels;
    let hasUser = false;
    for (let index = 0; index < TABLE_ENTRIES; index++) {
      const [low, high] = [table[index * 2]!, table[index * 2 + 1]!];
      if ((low & entryBits.present) === 0 || (low & entryBits.large) !== 0) continue;
      const isLower = index < KERNEL_HALF;
      const firstCode = level === 4 ? FIRST_CODE_ENTRY : LAST_ENTRY;
      const rights = (low & entryBits.user ? reached.user : 0) |
        (isLower ? reached.lowerHalf : 0) |
        (index >= firstCode && high < EXECUTE_DISABLE ? reached.code : 0);
      if (isLower && (rights & reached.user) !== 0) hasUser = true;
      this.#push(level - 1, this.#layout.slotOf(pageOf(low, high)), rights);
    }
    if (hasUser) this.#userRoots++;
  }

  #walkTable(table: Uint32Array, { level, rights }: { level: number; rights: number }): void {
    // Below the last entry of a level 5 table is one level 4 table, and only its end has code.
    const firstCode = level === 4 ? FIRST_CODE_ENTRY : 0;
    for (let index = 0; index < TABLE_ENTRIES; index++) {
      const [low, high] = [table[index * 2]!, table[index * 2 + 1]!];
      if ((low & entryBits.present) === 0) {
        if (low !== 0) this.#markUnreachable(low, high, { level, rights });
        continue;
      }
      let below = rights;
      if ((low & entryBits.user) === 0) below &= ~reached.user;
      if (high >= EXECUTE_DISABLE || index < firstCode) below &= ~reached.code;
      const isLarge = (low & entryBits.large) !== 0;
      if (level === 1) this.#marks.markPage(pageOf(low, high), marksOf(below));
      else if (!isLarge) this.#push(level - 1, this.#layout.slotOf(pageOf(low, high)), below);
      else if (level === 2) this.#marks.markLarge(pageOf(low, high), marksOf(below));
      else if (level === 3) this.#marks.markHuge(pageOf(low, high), marksOf(below));
      // The bit is reserved at level 4: the CPU does not translate by such an entry.
    }
  }

  /**
   * A page that a process has mapped without any right (`PROT_NONE`), or that Linux looks at the use of by taking the rights away for
   * a while: it is the process's all the same. No entry for swapped memory has these bits.
   *
   * @see Linux, arch/x86/include/asm/pgtable_64.h, "Encode and de-code a swap entry"
   */
  #markUnreachable(low: number, high: number, at: { level: number; rights: number }): void {
    const ofProcess = reached.user | reached.lowerHalf;
    if ((at.rights & ofProcess) !== ofProcess || at.level > 3) return;
    const isPage = (low & entryBits.protNone) !== 0 ||
      (at.level > 1 && (low & entryBits.large) !== 0);
    if (!isPage) return;
    // Kernels from before August 2018 do not invert. One of the two is most often beyond all RAM.
    for (const page of [invertedPageOf(low, high), pageOf(low, high)]) {
      if (at.level === 1) this.#marks.markPage(page, pageMarks.user);
      else if (at.level === 2) this.#marks.markLarge(page, pageMarks.user);
      else this.#marks.markHuge(page, pageMarks.user);
    }
  }

  #push(level: number, slot: number, rights: number): void {
    if (slot === NO_SLOT) return;
    const seen = this.#seen[level]!;
    const bit = 1 << rights;
    if ((seen[slot]! & bit) !== 0) return;
    seen[slot]! |= bit;
    this.#queues[level]!.push(slot * (REACHED_MASK + 1) + rights);
  }
}

/** What a page is that was reached with these rights. */
function marksOf(rights: number): number {
  if ((rights & reached.user) !== 0) return pageMarks.user;
  if ((rights & reached.code) !== 0) return pageMarks.kernel | pageMarks.kernelExecutable;
  return pageMarks.kernel;
}
