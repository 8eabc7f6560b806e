/**
 * Finds the top-level page tables of a Linux guest, of every process that it has.
 *
 * Linux copies the upper half of the kernel's own top-level table into that of every process, so the last entry, below which the
 * kernel's image and its modules lie, is the same in all of them and in nothing else. CR3 shows one such table; the rest is found
 * by that entry.
 *
 * @see https://docs.kernel.org/arch/x86/x86_64/mm.html
 * @see https://docs.kernel.org/arch/x86/pti.html
 * @see Linux, arch/x86/mm/pgtable.c, `pgd_ctor`
 * @module
 */

import { type MemoryPiece, NO_SLOT, type PhysicalMemory } from "./guest_physical.ts";
import {
  entryBits,
  EXECUTE_DISABLE,
  IMAGE_ENTRY,
  KERNEL_HALF,
  LAST_ENTRY,
  pageOf,
  pointsToSame,
  TABLE_ENTRIES,
  TABLE_WORDS,
} from "./page_tables_format.ts";

/** The entry by which top-level tables are known, as two words. */
export interface RootEntry {
  low: number;
  high: number;
}

/** A top-level table in use: what to look for, or why it is not one of Linux. */
export type ConfirmedRoot =
  | {
    /** Null. */
    why: null;
    /** The entry that all of them share. */
    entry: RootEntry;
    /** Whether the kernel has a second table for ring 3 beside each (page table isolation). */
    isolated: boolean;
  }
  | { why: string };

/**
 * Looks whether a table that CR3 points to is one of Linux.
 *
 * @param page guest-physical page in CR3
 * @throws {KvmError} when the VM is gone or cannot be read
 */
export function confirmRoot(
  page: number,
  options: { memory: PhysicalMemory; levels: 4 | 5 },
): ConfirmedRoot {
  const tables = new TableReader(options.memory);
  const own = tables.read(page);
  if (own === null) return { why: "CR3 does not point into RAM" };
  // With page table isolation, the kernel's table is the even one of two, and CR3 is the odd one in ring 3.
  const isOdd = page % 2 === 1;
  const other = tables.read(isOdd ? page - 1 : page + 1);
  const [kernel, user] = isOdd ? [other, own] : [own, other];
  const isolated = kernel !== null && user !== null && areIsolated(kernel, user);
  const found = isolated && kernel !== null
    ? { table: kernel, page: isOdd ? page - 1 : page }
    : { table: own, page };
  const fault = faultOf(found.table, { ...options, page: found.page, tables });
  if (fault !== null) return { why: fault };
  return { why: null, entry: entryAt(found.table, LAST_ENTRY), isolated };
}

/** Adds the slots of the top-level tables in a piece of memory to `slots`. */
export function findRoots(
  piece: MemoryPiece,
  options: { memory: PhysicalMemory; entry: RootEntry; slots: number[] },
): void {
  const { memory, entry, slots } = options;
  const { block, first, words } = piece;
  for (let at = LAST_ENTRY * 2, page = first; at < words.length; at += TABLE_WORDS, page++) {
    if (!pointsToSame(entry, words[at]!, words[at + 1]!)) continue;
    const slot = memory.layout.slotInBlock(block, page);
    if (slot !== NO_SLOT) slots.push(slot);
  }
}

/** Whether a table found before still is a top-level one. @throws {KvmError} when the VM is gone or cannot be read */
export function isRoot(
  slot: number,
  options: { memory: PhysicalMemory; entry: RootEntry },
): boolean {
  const table = new Uint32Array(TABLE_WORDS);
  options.memory.readPages([slot], table);
  const { low, high } = entryAt(table, LAST_ENTRY);
  return pointsToSame(options.entry, low, high);
}

/** Why a table is not a top-level one of Linux; null when it is. */
function faultOf(
  table: Uint32Array,
  options: { memory: PhysicalMemory; levels: 4 | 5; page: number; tables: TableReader },
): string | null {
  const { memory, levels, page, tables } = options;
  let kernelEntries = 0;
  for (let index = 0; index < TABLE_ENTRIES; index++) {
    const { low, high } = entryAt(table, index);
    if ((low & entryBits.present) === 0) continue;
    if ((low & entryBits.large) !== 0 || memory.layout.slotOf(pageOf(low, high)) === NO_SLOT) {
      return "CR3 does not point to a page table";
    }
    // Other systems look at their tables through a table that is its own child; Linux has none.
    if (pageOf(low, high) === page) return "the page tables are not those of Linux";
    if (index >= KERNEL_HALF) kernelEntries++;
  }
  // The direct map, and the image.
  if (kernelEntries < 2) return "the kernel's half of the page tables is empty";
  let level3 = tables.follow(table, LAST_ENTRY);
  if (level3 !== null && levels === 5) level3 = tables.follow(level3, LAST_ENTRY);
  const level2 = level3 === null ? null : tables.follow(level3, IMAGE_ENTRY);
  const hasImage = level2 !== null && hasExecutable(level2) &&
    entryAt(level3!, IMAGE_ENTRY).high < EXECUTE_DISABLE;
  return hasImage ? null : "no kernel image is where Linux has it";
}

/**
 * Whether the two are the kernel's and the processes' table of one address space: the same tables below for processes (which
 * the kernel's marks as not executable), others for the kernel.
 *
 * @see Linux, arch/x86/mm/pti.c, `__pti_set_user_pgtbl`
 */
function areIsolated(kernel: Uint32Array, user: Uint32Array): boolean {
  let shared = 0;
  for (let index = 0; index < KERNEL_HALF; index++) {
    const { low, high } = entryAt(user, index);
    if (!pointsToSame(entryAt(kernel, index), low, high)) return false;
    if ((low & entryBits.present) !== 0) shared++;
  }
  const [ofKernel, ofUser] = [entryAt(kernel, LAST_ENTRY), entryAt(user, LAST_ENTRY)];
  return shared > 0 && (ofKernel.low & ofUser.low & entryBits.present) !== 0 &&
    !pointsToSame(ofKernel, ofUser.low, ofUser.high);
}

function hasExecutable(table: Uint32Array): boolean {
  for (let index = 0; index < TABLE_ENTRIES; index++) {
    const { low, high } = entryAt(table, index);
    if ((low & entryBits.present) !== 0 && high < EXECUTE_DISABLE) return true;
  }
  return false;
}

function entryAt(table: Uint32Array, index: number): RootEntry {
  return { low: table[index * 2]!, high: table[index * 2 + 1]! };
}

/** Reads single tables. */
class TableReader {
  readonly #memory: PhysicalMemory;

  constructor(memory: PhysicalMemory) {
    this.#memory = memory;
  }

  /** Null where no RAM is. */
  read(page: number): Uint32Array | null {
    const slot = this.#memory.layout.slotOf(page);
    if (slot === NO_SLOT) return null;
    const table = new Uint32Array(TABLE_WORDS);
    this.#memory.readPages([slot], table);
    return table;
  }

  /** The table that an entry points to; null when it points to none. */
  follow(table: Uint32Array, index: number): Uint32Array | null {
    const { low, high } = entryAt(table, index);
    if ((low & entryBits.present) === 0 || (low & entryBits.large) !== 0) return null;
    return this.read(pageOf(low, high));
  }
}
