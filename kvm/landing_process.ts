/**
 * Landing in QEMU's address space, whatever its memory is.
 *
 * @module
 */

import type { LocatedBlock } from "./guest_memory.ts";
import type { Landing } from "./landing.ts";
import { type Backing, findBacking, type ProcessMapping } from "./memory_map.ts";
import { checkPages, forEachRun, type PageAccess, PageEraser, type PageRun } from "./page_runs.ts";
import { ProcessMemory, RemoteRanges } from "./process_memory.ts";
import { PAGE_BYTES } from "./stream_format.ts";

/** Pages at the start of a block among which data is looked for: its page map alone is 8 bytes a page. */
const SEARCHED_PAGES = 65_536;

/** A block, and what its memory is. */
interface BlockMemory extends PageAccess {
  base: number;
  pageCount: number;
  backing: Backing;
}

/** The RAM blocks in the memory of a QEMU. */
export class ProcessLanding implements Landing {
  /** `process`. */
  readonly name = "process";
  /** Why nothing better was taken. */
  readonly notes: string[];
  readonly #memory: ProcessMemory;
  readonly #blocks: (BlockMemory | null)[];
  readonly #ranges = new RemoteRanges();
  readonly #eraser = new PageEraser();

  private constructor(
    vm: { memory: ProcessMemory; blocks: (BlockMemory | null)[]; notes: string[] },
  ) {
    this.#memory = vm.memory;
    this.#blocks = vm.blocks;
    this.notes = vm.notes;
  }

  /**
   * Opens the memory of a QEMU.
   *
   * @param vm the blocks and `/proc/PID/maps` of that process
   * @throws {KvmError} `landing` when a block is not writable memory, `denied`, `gone`
   */
  static open(
    vm: {
      pid: number;
      blocks: readonly (LocatedBlock | null)[];
      mappings: readonly ProcessMapping[];
      notes: string[];
    },
  ): ProcessLanding {
    using resources = new DisposableStack();
    const memory = resources.use(ProcessMemory.open(vm.pid));
    const blocks = vm.blocks.map((block): BlockMemory | null => {
      if (block === null) return null;
      const { base } = block;
      return {
        base,
        pageCount: block.bytes / PAGE_BYTES,
        backing: findBacking(vm.mappings, block),
        read: (first, into) => memory.read(base + first * PAGE_BYTES, into),
        write: (first, bytes) => memory.write(base + first * PAGE_BYTES, bytes),
      };
    });
    resources.move();
    return new ProcessLanding({ memory, blocks, notes: vm.notes });
  }

  /** Whether that block was found. */
  covers(block: number): boolean {
    return (this.#blocks[block] ?? null) !== null;
  }

  /** Writes pages, neighbours at once. @throws as `Landing.pages` */
  pages(block: number, pages: Uint32Array, bytes: Uint8Array): void {
    const { base, pageCount } = this.#block(block);
    checkPages(pages, bytes);
    this.#memory.assertAlive();
    const ranges = this.#ranges;
    ranges.clear();
    let from = 0;
    forEachRun(pages, pageCount, ({ first, count }, index) => {
      if (ranges.isFull) {
        this.#memory.writeRanges(bytes.subarray(from, index * PAGE_BYTES), ranges);
        ranges.clear();
        from = index * PAGE_BYTES;
      }
      ranges.add(base + first * PAGE_BYTES, count * PAGE_BYTES);
    });
    this.#memory.writeRanges(bytes.subarray(from), ranges);
  }

  /** Makes pages zero. @throws as `Landing.pages` */
  zeros(block: number, pages: Uint32Array): void {
    const memory = this.#block(block);
    this.#memory.assertAlive();
    forEachRun(pages, memory.pageCount, (run) => {
      this.#forEachNonZeroRun(memory, run, (touched) => this.#eraser.erase(touched, memory));
    });
  }

  /** Reads whole pages from page `first` on. @throws as {@linkcode ProcessLanding.pages} */
  read(block: number, first: number, into: Uint8Array): void {
    this.#block(block).read(first, into);
  }

  /** The first pages of the runs that are not known to be zero, at most `limit`. */
  dataPages(block: number, limit: number): number[] {
    const memory = this.#block(block);
    const found: number[] = [];
    const count = Math.min(memory.pageCount, SEARCHED_PAGES);
    this.#forEachNonZeroRun(memory, { first: 0, count }, ({ first }) => {
      if (found.length < limit) found.push(first);
    });
    return found;
  }

  /** Closes what it holds; the VM is not touched. */
  close(): void {
    this.#memory[Symbol.dispose]();
  }

  /**
   * Visits what is not known to be zero in `run`. Only private memory without a file behind it is zero where it was
   * never touched; and asking that makes no page resident.
   */
  #forEachNonZeroRun(memory: BlockMemory, run: PageRun, visit: (run: PageRun) => void): void {
    if (!memory.backing.anonymous) return visit(run);
    this.#memory.forEachTouched(
      memory.base + run.first * PAGE_BYTES,
      run.count,
      ({ first, count }) => visit({ first: run.first + first, count }),
    );
  }

  #block(block: number): BlockMemory {
    const memory = this.#blocks[block] ?? null;
    if (memory === null) throw new RangeError(`Cannot land in block ${block}: it is not covered`);
    return memory;
  }
}
