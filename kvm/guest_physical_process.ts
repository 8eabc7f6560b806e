/**
 * A QEMU's guest memory, read from outside while the VM runs or stands.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { nextData, readAt } from "./file_io.ts";
import {
  type MemoryPiece,
  PhysicalLayout,
  type PhysicalMemory,
  physicalRanges,
  type SkipPage,
} from "./guest_physical.ts";
import type { LocatedBlock } from "./guest_memory.ts";
import { openBacking } from "./landing_mapped.ts";
import type { FileDescriptor } from "./libc.ts";
import { type Backing, findBacking, type ProcessMapping } from "./memory_map.ts";
import type { PageRun } from "./page_runs.ts";
import { ProcessMemory, RemoteRanges } from "./process_memory.ts";
import { PAGE_BYTES } from "./stream_format.ts";

/** Pages read at once: 1 MiB is what reading went fastest with. */
const PIECE_PAGES = 256;
/** Reading a page that is not wanted costs less than a system call more. */
const WORTH_SKIPPING_PAGES = 16;
/** Pages whose use is asked for at once. */
const TOUCHED_PAGES = 8192;
const PAGE_WORDS = PAGE_BYTES / 4;

/** A block, and how to tell what of it was ever touched. */
interface ReadableBlock {
  index: number;
  block: LocatedBlock;
  /** Private memory without a file: the page map tells. */
  anonymous: boolean;
  /** Shared memory: its file tells, and reading a hole there allocates nothing. */
  file: { descriptor: FileDescriptor; offset: number } | null;
}

/** Reads go by `process_vm_readv`, or through the file that shared memory is. Memory that was never touched stays that way. */
export class ProcessPhysicalMemory implements PhysicalMemory, Disposable {
  /** Where the guest sees it. */
  readonly layout: PhysicalLayout;
  readonly #blocks: ReadableBlock[];
  readonly #memory: ProcessMemory;
  readonly #resources: DisposableStack;
  readonly #ranges = new RemoteRanges();
  readonly #piece = new Uint32Array(PIECE_PAGES * PAGE_WORDS);

  private constructor(
    vm: { blocks: ReadableBlock[]; layout: PhysicalLayout; memory: ProcessMemory },
    resources: DisposableStack,
  ) {
    this.layout = vm.layout;
    this.#blocks = vm.blocks;
    this.#memory = vm.memory;
    this.#resources = resources;
  }

  /**
   * Opens the memory of a QEMU.
   *
   * @param vm its process, its blocks, and `/proc/PID/maps`
   * @throws {KvmError} `denied`, `gone`, `landing` when a block is not where it was located
   */
  static open(
    vm: {
      pid: number;
      blocks: readonly (LocatedBlock | null)[];
      mappings: readonly ProcessMapping[];
    },
  ): ProcessPhysicalMemory {
    using resources = new DisposableStack();
    const memory = resources.use(ProcessMemory.open(vm.pid));
    const blocks = vm.blocks.flatMap((block, index) => {
      if (block === null) return [];
      const backing = findBacking(vm.mappings, block);
      const descriptor = backing.shared ? openFile(vm.pid, backing) : null;
      const file = descriptor === null
        ? null
        : { descriptor: resources.use(descriptor), offset: backing.offset };
      return [{ index, block, anonymous: backing.anonymous, file }];
    });
    const layout = new PhysicalLayout(physicalRanges(vm.blocks));
    return new ProcessPhysicalMemory({ blocks, layout, memory }, resources.move());
  }

  /** Reads whole pages. @throws {KvmError} `denied`, `gone`, `system` */
  readPages(slots: readonly number[], into: Uint32Array<ArrayBuffer>): void {
    for (let at = 0; at < slots.length; at += PIECE_PAGES) {
      const part = slots.slice(at, at + PIECE_PAGES);
      this.#ranges.clear();
      for (const slot of part) this.#ranges.add(this.#address(slot), PAGE_BYTES);
      const bytes = new Uint8Array(
        into.buffer,
        into.byteOffset + at * PAGE_BYTES,
        part.length * PAGE_BYTES,
      );
      this.#memory.readRanges(bytes, this.#ranges);
    }
  }

  /** All blocks, without what was never touched. @throws {KvmError} `denied`, `gone`, `system` */
  *pieces(skip: SkipPage = () => false): Generator<MemoryPiece> {
    for (const block of this.#blocks) {
      const all = { first: 0, count: pageCountOf(block) };
      const touched = block.file !== null
        ? this.#fileData(block, block.file)
        : block.anonymous
        ? this.#touched(block)
        : [all];
      for (const run of touched) {
        for (const wanted of wantedRuns(run, { block: block.index, skip })) {
          yield* this.#read(block, wanted);
        }
      }
    }
  }

  /** Closes what it holds; the VM is not touched. */
  [Symbol.dispose](): void {
    this.#resources.dispose();
  }

  /** Runs that are not in a hole of the file; each ends where the next piece would begin. */
  *#fileData(
    block: ReadableBlock,
    file: { descriptor: FileDescriptor; offset: number },
  ): Generator<PageRun> {
    const pageCount = pageCountOf(block);
    for (let page = 0; page < pageCount;) {
      const offset = file.offset + page * PAGE_BYTES;
      const what = `block ${block.block.name}`;
      const data = nextData(file.descriptor, { offset, what });
      if (data === null) return;
      const first = Math.floor((data - file.offset) / PAGE_BYTES);
      if (first >= pageCount) return;
      const count = Math.min(PIECE_PAGES, pageCount - first);
      yield { first, count };
      page = first + count;
    }
  }

  /** Runs that the process has touched. */
  *#touched(block: ReadableBlock): Generator<PageRun> {
    const pageCount = pageCountOf(block);
    for (let from = 0; from < pageCount; from += TOUCHED_PAGES) {
      const runs: PageRun[] = [];
      this.#memory.forEachTouched(
        block.block.base + from * PAGE_BYTES,
        Math.min(TOUCHED_PAGES, pageCount - from),
        ({ first, count }) => runs.push({ first: from + first, count }),
      );
      yield* runs;
    }
  }

  *#read({ index, block, file }: ReadableBlock, run: PageRun): Generator<MemoryPiece> {
    const end = run.first + run.count;
    for (let first = run.first; first < end; first += PIECE_PAGES) {
      const words = this.#piece.subarray(0, Math.min(PIECE_PAGES, end - first) * PAGE_WORDS);
      const offset = first * PAGE_BYTES;
      if (file === null) this.#memory.read(block.base + offset, bytesOf(words));
      else {
        const what = `block ${block.name}`;
        readAt(file.descriptor, bytesOf(words), { offset: file.offset + offset, what });
      }
      yield { block: index, first, words };
    }
  }

  #address(slot: number): number {
    const range = this.layout.rangeOf(slot);
    const block = this.#blocks.find(({ index }) => index === range.block)!;
    return block.block.base + (range.blockPage + slot - range.slot) * PAGE_BYTES;
  }
}

/** The parts of a run without what is to be skipped, as far as that is worth a system call. */
function* wantedRuns(
  run: PageRun,
  { block, skip }: { block: number; skip: SkipPage },
): Generator<PageRun> {
  const end = run.first + run.count;
  let first = run.first;
  let wantedEnd = run.first;
  for (let page = run.first; page < end; page++) {
    if (skip(block, page)) continue;
    if (page - wantedEnd >= WORTH_SKIPPING_PAGES) {
      if (wantedEnd > first) yield { first, count: wantedEnd - first };
      first = page;
    }
    wantedEnd = page + 1;
  }
  if (wantedEnd > first) yield { first, count: wantedEnd - first };
}

function pageCountOf({ block }: ReadableBlock): number {
  return Math.floor(block.bytes / PAGE_BYTES);
}

function bytesOf(words: Uint32Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

/** Null when this user cannot have it: then it is read by way of the process, and holes are filled. */
function openFile(pid: number, backing: Backing): FileDescriptor | null {
  try {
    return openBacking(pid, backing);
  } catch (error) {
    if (error instanceof KvmError && error.code === "denied") return null;
    throw error;
  }
}
