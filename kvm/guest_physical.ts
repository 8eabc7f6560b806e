/**
 * Guest-physical memory as page tables see it: pages by number, with holes between the ranges of RAM.
 *
 * @module
 */

import type { LocatedBlock } from "./guest_memory.ts";
import { PAGE_BYTES } from "./stream_format.ts";

/** The legacy video and BIOS area, in pages: whether RAM is there depends on chipset registers. */
const LEGACY_FIRST = 0xa0;
const LEGACY_END = 0x100;

/** A range of guest-physical pages with one block of RAM behind it. */
export interface PhysicalRange {
  /** Index of the block. */
  block: number;
  /** Page in the block of the range's first page. */
  blockPage: number;
  /** Guest-physical number of the first page. */
  page: number;
  /** Pages of 4 KiB. */
  pageCount: number;
}

/** A range whose pages are numbered without holes. */
export interface SlottedRange extends PhysicalRange {
  /** Slot of the first page. */
  slot: number;
}

/** No slot. */
export const NO_SLOT = -1;

/** Numbers the pages of RAM without holes: such a number is a slot. */
export class PhysicalLayout {
  /** By address. */
  readonly ranges: readonly SlottedRange[];
  /** Pages in all ranges. */
  readonly slotCount: number;
  #last: SlottedRange | undefined;

  /** @param ranges not overlapping, in any order */
  constructor(ranges: readonly PhysicalRange[]) {
    let slot = 0;
    this.ranges = ranges.toSorted((a, b) => a.page - b.page).map((range) => {
      const slotted = { ...range, slot };
      slot += range.pageCount;
      return slotted;
    });
    this.slotCount = slot;
    this.#last = this.ranges[0];
  }

  /** The slot of a guest-physical page; {@linkcode NO_SLOT} where no RAM is. */
  slotOf(page: number): number {
    const last = this.#last;
    // Neighbours come one after the other.
    if (last !== undefined && page >= last.page && page < last.page + last.pageCount) {
      return last.slot + page - last.page;
    }
    for (const range of this.ranges) {
      if (page < range.page || page >= range.page + range.pageCount) continue;
      this.#last = range;
      return range.slot + page - range.page;
    }
    return NO_SLOT;
  }

  /** The slot of a block's page; {@linkcode NO_SLOT} where the guest does not see it. */
  slotInBlock(block: number, page: number): number {
    for (const range of this.ranges) {
      const index = page - range.blockPage;
      if (range.block === block && index >= 0 && index < range.pageCount) return range.slot + index;
    }
    return NO_SLOT;
  }

  /** The range that a slot is in. @throws {RangeError} when there is no such slot */
  rangeOf(slot: number): SlottedRange {
    const range = this.ranges.find((range) =>
      slot >= range.slot && slot < range.slot + range.pageCount
    );
    if (range === undefined) throw new RangeError(`Cannot find slot ${slot}: there is none`);
    return range;
  }
}

/** Pages of one block, as they were read. */
export interface MemoryPiece {
  /** Index of the block. */
  block: number;
  /** Number of the first page in the block. */
  first: number;
  /** Whole pages, valid until the next piece. */
  words: Uint32Array;
}

/** Whether a page of a block need not be read. */
export type SkipPage = (block: number, page: number) => boolean;

/** Guest memory to read page tables from. */
export interface PhysicalMemory {
  /** Where the guest sees it. */
  readonly layout: PhysicalLayout;
  /** Reads the page of `slots[i]` to word `1024 i` of `into`. @throws {KvmError} when the VM is gone or cannot be read */
  readPages(slots: readonly number[], into: Uint32Array<ArrayBuffer>): void;
  /**
   * All of it but pages that were never touched, which are zeros, and most of those that `skip` is true for.
   *
   * @throws {KvmError} as `readPages`
   */
  pieces(skip?: SkipPage): Iterable<MemoryPiece>;
}

/** The ranges of located blocks; without the legacy area, whose pages may be elsewhere than the block says. */
export function physicalRanges(blocks: readonly (LocatedBlock | null)[]): PhysicalRange[] {
  return blocks.flatMap((block, index) =>
    (block?.ranges ?? []).flatMap(({ address, bytes, offset }) => {
      const range = {
        block: index,
        blockPage: offset / PAGE_BYTES,
        page: address / PAGE_BYTES,
        pageCount: Math.floor(bytes / PAGE_BYTES),
      };
      return [clip(range, { from: 0, to: LEGACY_FIRST }), clip(range, { from: LEGACY_END })];
    })
  ).filter(({ pageCount, page, blockPage }) =>
    pageCount > 0 && Number.isInteger(page) && Number.isInteger(blockPage)
  );
}

/** The part of a range from page `from` on and before page `to`. */
function clip(range: PhysicalRange, { from, to = Infinity }: { from: number; to?: number }) {
  const first = Math.max(range.page, from);
  const end = Math.min(range.page + range.pageCount, to);
  return {
    ...range,
    page: first,
    blockPage: range.blockPage + first - range.page,
    pageCount: Math.max(0, end - first),
  };
}
