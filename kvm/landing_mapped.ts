/**
 * Landing in the file that the VM's memory is: a memfd, a file, or shared anonymous memory.
 *
 * Pages are written with pwrite(2), not through a mapping. QEMU sees them at once either way, but here the kernel fills a fresh page
 * without zeroing it first, an agent's memory does not grow with the VM, and a full file system is an error instead of a SIGBUS.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { isWritable, nextData, readAt, writeAt } from "./file_io.ts";
import type { LocatedBlock } from "./guest_memory.ts";
import type { Landing } from "./landing.ts";
import { FileDescriptor, openFlags } from "./libc.ts";
import { type Backing, findBacking, type ProcessMapping } from "./memory_map.ts";
import { checkPages, forEachRun, PageEraser, type PageRun, PIECE_PAGES } from "./page_runs.ts";
import { PAGE_BYTES } from "./stream_format.ts";

/** The files behind a VM's RAM blocks. */
export class MappedLanding implements Landing {
  /** `mapped`. */
  readonly name = "mapped";
  /** Why nothing better was taken. */
  readonly notes: string[];
  readonly #blocks: (BlockFile | null)[];
  readonly #resources: DisposableStack;

  private constructor(
    vm: { blocks: (BlockFile | null)[]; notes: string[]; resources: DisposableStack },
  ) {
    this.#blocks = vm.blocks;
    this.notes = vm.notes;
    this.#resources = vm.resources;
  }

  /**
   * Opens the file of every block in `vm.blocks`.
   *
   * @param vm the blocks and `/proc/PID/maps` of one QEMU
   * @throws {KvmError} `landing` with the reason when one of them is private or cannot be written to, `denied`, `system`
   */
  static open(
    vm: {
      pid: number;
      blocks: readonly (LocatedBlock | null)[];
      mappings: readonly ProcessMapping[];
      notes: string[];
    },
  ): MappedLanding {
    using resources = new DisposableStack();
    const eraser = new PageEraser();
    const blocks = vm.blocks.map((block) => {
      if (block === null) return null;
      const backing = findBacking(vm.mappings, block);
      if (!backing.shared) {
        throw new KvmError(
          "landing",
          `Cannot land: block ${block.name} is private memory; start QEMU with memory-backend-memfd,share=on`,
        );
      }
      const file = resources.use(openBacking(vm.pid, backing));
      return new BlockFile(block, { backing, file, eraser });
    });
    return new MappedLanding({ blocks, notes: vm.notes, resources: resources.move() });
  }

  /** Whether that block was found. */
  covers(block: number): boolean {
    return (this.#blocks[block] ?? null) !== null;
  }

  /** Writes pages, neighbours at once. @throws as `Landing.pages` */
  pages(block: number, pages: Uint32Array, bytes: Uint8Array): void {
    const file = this.#file(block);
    checkPages(pages, bytes);
    forEachRun(pages, file.pageCount, ({ first, count }, index) => {
      file.write(first, bytes.subarray(index * PAGE_BYTES, (index + count) * PAGE_BYTES));
    });
  }

  /** Makes pages zero. @throws as `Landing.pages` */
  zeros(block: number, pages: Uint32Array): void {
    const file = this.#file(block);
    forEachRun(pages, file.pageCount, (run) => file.erase(run));
  }

  /** Reads whole pages from page `first` on. @throws as {@linkcode MappedLanding.pages} */
  read(block: number, first: number, into: Uint8Array): void {
    this.#file(block).read(first, into);
  }

  /** Pages that are not in a hole: the first of each piece, at most `limit`. */
  dataPages(block: number, limit: number): number[] {
    const file = this.#file(block);
    const found: number[] = [];
    for (let page = file.nextData(0); page !== null && found.length < limit;) {
      found.push(page);
      page = file.nextData(page + PIECE_PAGES);
    }
    return found;
  }

  /** Closes what it holds; the VM is not touched. */
  close(): void {
    this.#resources.dispose();
  }

  #file(block: number): BlockFile {
    const file = this.#blocks[block] ?? null;
    if (file === null) throw new RangeError(`Cannot land in block ${block}: it is not covered`);
    return file;
  }
}

/** One block in its file, in pages. */
class BlockFile {
  readonly pageCount: number;
  readonly #file: FileDescriptor;
  readonly #offset: number;
  readonly #what: string;
  readonly #eraser: PageEraser;

  constructor(
    block: LocatedBlock,
    options: { backing: Backing; file: FileDescriptor; eraser: PageEraser },
  ) {
    this.pageCount = block.bytes / PAGE_BYTES;
    this.#file = options.file;
    this.#eraser = options.eraser;
    this.#offset = options.backing.offset;
    this.#what = `block ${block.name}`;
    const { size } = statOf(this.#file);
    // Writing past the end would make the file longer without QEMU seeing any of it.
    if (size < this.#offset + block.bytes || !isWritable(this.#file)) {
      throw new KvmError(
        "landing",
        `Cannot land: ${this.#what} is in a file that cannot be written to (${options.backing.path})`,
      );
    }
  }

  read(first: number, into: Uint8Array): void {
    readAt(this.#file, into, { offset: this.#offset + first * PAGE_BYTES, what: this.#what });
  }

  write(first: number, bytes: Uint8Array): void {
    writeAt(this.#file, bytes, { offset: this.#offset + first * PAGE_BYTES, what: this.#what });
  }

  /** The first page from `page` on that is not in a hole; null when there is none. */
  nextData(page: number): number | null {
    if (page >= this.pageCount) return null;
    const data = nextData(this.#file, {
      offset: this.#offset + page * PAGE_BYTES,
      what: this.#what,
    });
    const found = data === null ? this.pageCount : Math.floor((data - this.#offset) / PAGE_BYTES);
    return found < this.pageCount ? found : null;
  }

  /** Holes stay holes: reading them here allocates nothing, and they are not read at all where the file says so. */
  erase(run: PageRun): void {
    const end = run.first + run.count;
    for (let page = this.nextData(run.first); page !== null && page < end;) {
      const count = Math.min(PIECE_PAGES, end - page);
      this.#eraser.erase({ first: page, count }, this);
      page = this.nextData(page + count);
    }
  }
}

/**
 * Opens the file behind a mapping: `map_files` is that file by definition, but only for root; else the descriptor that QEMU
 * has for it, told by device and inode.
 *
 * @throws {KvmError} `denied`
 */
export function openBacking(pid: number, backing: Backing): FileDescriptor {
  const candidates = [`/proc/${pid}/map_files/${backing.mapFile}`, ...openFiles(pid, backing)];
  let cause: unknown = null;
  for (const path of candidates) {
    try {
      const file = FileDescriptor.open(path, { flags: openFlags.O_RDWR });
      if (String(statOf(file).ino) === backing.inode) return file;
      file[Symbol.dispose]();
    } catch (error) {
      cause ??= error;
    }
  }
  throw new KvmError(
    "denied",
    `Cannot open ${backing.path} of process ${pid}: no descriptor of it is open to this user`,
    { cause },
  );
}

function openFiles(pid: number, backing: Backing): string[] {
  const folder = `/proc/${pid}/fd`;
  try {
    return Array.from(Deno.readDirSync(folder), ({ name }) => `${folder}/${name}`).filter(
      (path) => {
        const found = statOrNull(path);
        return found !== null && String(found.ino) === backing.inode &&
          deviceText(found.dev) === backing.device;
      },
    );
  } catch {
    // Another user's process: its descriptors are not ours to see.
    return [];
  }
}

/** `st_dev` as `/proc/PID/maps` writes it. @see makedev(3) */
function deviceText(device: number): string {
  const low = device >>> 0;
  const high = Math.floor(device / 2 ** 32);
  const major = ((low >>> 8) & 0xfff) + (high & 0xfffff000);
  const minor = (low & 0xff) + ((low >>> 12) & 0xfff00);
  return [major, minor].map((part) => part.toString(16).padStart(2, "0")).join(":");
}

function statOf(file: FileDescriptor): Deno.FileInfo {
  return Deno.statSync(`/proc/self/fd/${file.unsafeFd}`);
}

function statOrNull(path: string): Deno.FileInfo | null {
  try {
    return Deno.statSync(path);
  } catch {
    // Closed since the folder was read.
    return null;
  }
}
