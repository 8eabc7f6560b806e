/**
 * What page tables say about each page of RAM.
 *
 * @module
 */

import { NO_SLOT, type PhysicalLayout, type SlottedRange } from "./guest_physical.ts";
import { HUGE_PAGES, LARGE_PAGES } from "./page_tables_format.ts";

/** Bits of a page's byte. The algorithm in `migration/` has them too, as `pagingFlags`. */
export const pageMarks = {
  /** An address space maps it for ring 3. */
  user: 1,
  /** The kernel maps it, and runs it as code. */
  kernelExecutable: 2,
  /** The kernel maps it. */
  kernel: 4,
  /** The guest sees it: without this bit nothing can be told. */
  known: 8,
} as const;

/** A range, and where its pages of 2 MiB and of 1 GiB begin in the arrays of them. */
interface MarkedRange extends SlottedRange {
  large: number;
  huge: number;
}

/**
 * A byte for each page of RAM, and for each 2 MiB and each 1 GiB of it: an entry that maps a big page is one write, however many
 * pages a guest maps that way, and however often.
 */
export class PageMarks {
  readonly #layout: PhysicalLayout;
  readonly #ranges: MarkedRange[];
  readonly #pages: Uint8Array;
  readonly #large: Uint8Array;
  readonly #huge: Uint8Array;

  constructor(layout: PhysicalLayout) {
    this.#layout = layout;
    let [large, huge] = [0, 0];
    this.#ranges = layout.ranges.map((range) => {
      const marked = { ...range, large, huge };
      large += unitsOf(range, LARGE_PAGES);
      huge += unitsOf(range, HUGE_PAGES);
      return marked;
    });
    this.#pages = new Uint8Array(layout.slotCount);
    this.#large = new Uint8Array(large);
    this.#huge = new Uint8Array(huge);
  }

  /** Forgets everything. */
  clear(): void {
    for (const marks of [this.#pages, this.#large, this.#huge]) marks.fill(0);
  }

  /** Marks a page of 4 KiB; one that is not RAM is left out. */
  markPage(page: number, marks: number): void {
    const slot = this.#layout.slotOf(page);
    if (slot !== NO_SLOT) this.#pages[slot]! |= marks;
  }

  /** Marks the pages of the 2 MiB that `page` is in. */
  markLarge(page: number, marks: number): void {
    const unit = Math.floor(page / LARGE_PAGES);
    for (const range of this.#ranges) {
      const index = unit - Math.floor(range.page / LARGE_PAGES);
      if (index < 0 || index >= unitsOf(range, LARGE_PAGES)) continue;
      this.#large[range.large + index]! |= marks;
    }
  }

  /** Marks the pages of the 1 GiB that `page` is in. */
  markHuge(page: number, marks: number): void {
    const unit = Math.floor(page / HUGE_PAGES);
    for (const range of this.#ranges) {
      const index = unit - Math.floor(range.page / HUGE_PAGES);
      if (index < 0 || index >= unitsOf(range, HUGE_PAGES)) continue;
      this.#huge[range.huge + index]! |= marks;
    }
  }

  /** Writes the marks of every page to its place in its block's map; null for a block that was not located. */
  copyTo(blocks: readonly (Uint8Array | null)[]): void {
    for (const map of blocks) map?.fill(0);
    for (const range of this.#ranges) {
      const map = blocks[range.block] ?? null;
      if (map !== null) this.#copyRange(range, map);
    }
  }

  #copyRange(range: MarkedRange, map: Uint8Array): void {
    const firstLarge = Math.floor(range.page / LARGE_PAGES);
    const firstHuge = Math.floor(range.page / HUGE_PAGES);
    for (let page = range.page; page < range.page + range.pageCount;) {
      const unit = Math.floor(page / LARGE_PAGES);
      const end = Math.min((unit + 1) * LARGE_PAGES, range.page + range.pageCount);
      const around = pageMarks.known | this.#large[range.large + unit - firstLarge]! |
        this.#huge[range.huge + Math.floor(page / HUGE_PAGES) - firstHuge]!;
      const [from, to] = [range.slot - range.page, range.blockPage - range.page];
      // A page that the guest sees at two addresses has the marks of both.
      for (; page < end; page++) map[to + page]! |= around | this.#pages[from + page]!;
    }
  }
}

/** How many units of `pages` pages a range touches. */
function unitsOf(range: SlottedRange, pages: number): number {
  return Math.floor((range.page + range.pageCount - 1) / pages) - Math.floor(range.page / pages) +
    1;
}
