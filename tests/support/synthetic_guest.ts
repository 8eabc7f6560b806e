/**
 * Guest RAM with page tables made by hand, as Linux makes them or as nobody should.
 *
 * @module
 */

import {
  type MemoryPiece,
  PhysicalLayout,
  type PhysicalMemory,
  type SkipPage,
} from "../../kvm/guest_physical.ts";
import { GuestPaging, type GuestPagingReading } from "../../kvm/page_tables.ts";

const PAGE_WORDS = 1024;
const P = 1n, RW = 2n, US = 4n, A = 0x20n, D = 0x40n, PS = 0x80n;
const XD = 1n << 63n;
/** As Linux writes an entry that leads to another table. */
const KERNEL_TABLE = P | RW | A | D;
const USER_TABLE = KERNEL_TABLE | US;

/** Where Linux has its code, with 4 and with 5 levels. */
export const linuxAddresses = {
  image: 0xffff_ffff_8000_0000n,
  modules: 0xffff_ffff_c000_0000n,
} as const;
/** The rest is drawn at boot; this is one such draw, by levels. */
const drawnAddresses = {
  4: { directMap: 0xffff_89d3_4000_0000n, vmalloc: 0xffff_c900_0000_0000n },
  5: { directMap: 0xff11_89d3_4000_0000n, vmalloc: 0xffa0_0000_0000_0000n },
} as const;

/** What an address is mapped to. */
export interface SyntheticMapping {
  /** Guest-physical page. */
  page: number;
  user?: boolean;
  executable?: boolean;
  /** 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB. */
  level?: 1 | 2 | 3;
}

/** RAM of two ranges with a hole between them. */
export class SyntheticGuest implements PhysicalMemory {
  /** One block: pages 0 to `lowPages` at address 0, the others from `highPage` on. */
  readonly layout: PhysicalLayout;
  readonly words: Uint32Array<ArrayBuffer>;
  readonly levels: 4 | 5;
  /** Reads of tables so far. */
  tablesRead = 0;
  /** Pieces left out so far. */
  piecesSkipped = 0;
  readonly #entries: BigUint64Array;
  #nextTable = 0x200;

  constructor(
    { levels = 4, lowPages = 2048, highPage = 0x10_0000, highPages = 1024, words }: {
      levels?: 4 | 5;
      lowPages?: number;
      highPage?: number;
      highPages?: number;
      words?: Uint32Array<ArrayBuffer>;
    } = {},
  ) {
    this.levels = levels;
    this.layout = new PhysicalLayout([
      { block: 0, blockPage: lowPages, page: highPage, pageCount: highPages },
      { block: 0, blockPage: 0, page: 0, pageCount: lowPages },
    ]);
    this.words = words ?? new Uint32Array((lowPages + highPages) * PAGE_WORDS);
    this.#entries = new BigUint64Array(this.words.buffer);
  }

  readPages(slots: readonly number[], into: Uint32Array<ArrayBuffer>): void {
    this.tablesRead += slots.length;
    for (const [index, slot] of slots.entries()) {
      into.set(this.#page(slot), index * PAGE_WORDS);
    }
  }

  *pieces(skip: SkipPage = () => false): Generator<MemoryPiece> {
    const pages = 100;
    for (let first = 0; first < this.layout.slotCount; first += pages) {
      if (Array.from({ length: pages }, (_, index) => skip(0, first + index)).every(Boolean)) {
        this.piecesSkipped++;
        continue;
      }
      yield {
        block: 0,
        first,
        words: this.words.subarray(first * PAGE_WORDS, (first + pages) * PAGE_WORDS),
      };
    }
  }

  /** A page for a table; `even` for the first of a pair. */
  allocate(options: { even?: boolean } = {}): number {
    if (options.even && this.#nextTable % 2 === 1) this.#nextTable++;
    return this.#nextTable++;
  }

  entry(table: number, index: number): bigint {
    return this.#entries[this.layout.slotOf(table) * 512 + index]!;
  }

  setEntry(table: number, index: number, entry: bigint): void {
    this.#entries[this.layout.slotOf(table) * 512 + index] = entry;
  }

  /** Maps an address; makes the tables on the way. */
  map(root: number, address: bigint, to: SyntheticMapping): void {
    const { page, user = false, executable = false, level: last = 1 } = to;
    let table = root;
    for (let level: number = this.levels; level > last; level--) {
      const index = indexAt(address, level);
      let entry = this.entry(table, index);
      if ((entry & P) === 0n) {
        entry = entryOf(this.allocate()) | (user ? USER_TABLE : KERNEL_TABLE);
        this.setEntry(table, index, entry);
      }
      table = Number((entry >> 12n) & 0xff_ffff_ffffn);
    }
    const bits = P | RW | A | D | (user ? US : 0n) | (executable ? 0n : XD) |
      (last > 1 ? PS : 0n);
    this.setEntry(table, indexAt(address, last), entryOf(page) | bits);
  }

  get directMap(): bigint {
    return drawnAddresses[this.levels].directMap;
  }

  /** A kernel's own top-level table: all RAM mapped directly, an image of 2 MiB with text, a module, a page of vmalloc. */
  kernel(options: { imagePage?: number; modulePage?: number; vmallocPage?: number } = {}): number {
    const { imagePage = 0x600, modulePage = 0x100, vmallocPage = 0x101 } = options;
    const root = this.allocate({ even: true });
    this.allocate(); // its twin for ring 3, in case of isolation
    for (const range of this.layout.ranges) {
      for (let page = range.page; page < range.page + range.pageCount; page += 512) {
        this.map(root, this.directMap + BigInt(page) * 4096n, { page, level: 2 });
      }
    }
    this.map(root, linuxAddresses.image, { page: imagePage, executable: true, level: 2 });
    this.map(root, linuxAddresses.modules, { page: modulePage, executable: true });
    this.map(root, drawnAddresses[this.levels].vmalloc, { page: vmallocPage });
    return root;
  }

  /** A process: its table has the kernel's upper half. */
  process(kernel: number): number {
    const root = this.allocate({ even: true });
    this.allocate();
    for (let index = 256; index < 512; index++) {
      this.setEntry(root, index, this.entry(kernel, index));
    }
    return root;
  }

  /** Gives a process's table a twin for ring 3: its own tables, of the kernel only `entryText`. */
  isolate(root: number, entryText: { root: number }): number {
    const user = root + 1;
    for (let index = 0; index < 256; index++) {
      const entry = this.entry(root, index);
      this.setEntry(user, index, entry);
      if ((entry & P) !== 0n) this.setEntry(root, index, entry | XD);
    }
    for (let index = 256; index < 512; index++) {
      this.setEntry(user, index, this.entry(entryText.root, index));
    }
    return user;
  }

  /** Reads the tables, with these pages in the vCPUs' CR3. */
  read(pages: number[], options: { budgetMs?: number } = {}): GuestPagingReading {
    return this.paging(pages).read(options.budgetMs ?? 60_000);
  }

  paging(pages: number[]): GuestPaging {
    const topPages = pages.map((page, cpu) => ({ cpu, page }));
    return GuestPaging.of(this, { why: null, levels: this.levels, topPages });
  }

  #page(slot: number): Uint32Array {
    return this.words.subarray(slot * PAGE_WORDS, (slot + 1) * PAGE_WORDS);
  }
}

/** Address bits of an entry. */
export function entryOf(page: number): bigint {
  return BigInt(page) << 12n;
}

function indexAt(address: bigint, level: number): number {
  return Number((address >> BigInt(12 + 9 * (level - 1))) & 511n);
}
