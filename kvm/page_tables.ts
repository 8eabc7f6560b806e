/**
 * Which pages of a guest its processes have, and which its kernel: read from its page tables, with no symbols and no agent in it.
 *
 * A page is
 * - **user** when some address space maps it with the user bit set at every level;
 * - **kernel text** when no address space does, and the kernel maps it executable at ffff_fe00_0000_0000 or above: its image, its
 *   modules, generated code. The direct map and vmalloc lie below;
 * - **kernel data** when the kernel maps it in any other way. The direct map has nearly all RAM, so everything that is neither a
 *   process's nor code is here: slab, stacks, page tables, the page cache as far as no process has mapped it, pipes, and
 *   pages that are free. No page table tells these apart;
 * - **unmapped** when nothing maps it: memory that the firmware reserved, or that the kernel took out of its direct map.
 *
 * What is mapped by a process for the time being without any right (`PROT_NONE`) is user as well.
 *
 * @see Intel SDM volume 3A, sections 4.5 and 4.6
 * @see https://docs.kernel.org/arch/x86/x86_64/mm.html
 * @see https://docs.kernel.org/arch/x86/pti.html
 * @module
 */

import { KvmError } from "./errors.ts";
import { locateBlocks, type LocatedBlock } from "./guest_memory.ts";
import type { MemoryPiece, PhysicalMemory } from "./guest_physical.ts";
import { ProcessPhysicalMemory } from "./guest_physical_process.ts";
import { parseMaps } from "./memory_map.ts";
import { type PagingMode, readPagingMode } from "./page_tables_registers.ts";
import { PageMarks, pageMarks } from "./page_tables_marks.ts";
import { confirmRoot, findRoots, isRoot, type RootEntry } from "./page_tables_roots.ts";
import { PageTableWalk } from "./page_tables_walk.ts";
import type { QemuVm } from "./qemu_vm.ts";
import { PAGE_BYTES } from "./stream_format.ts";

/** How long the first reading may take, which nobody waits for yet. */
const FIRST_READING_MS = 2000;

/** What was read of a guest's page tables. */
export interface GuestPagingReading {
  /** Why nothing can be told of any page; null when `marks` can be used. */
  why: string | null;
  /** Address spaces that map anything for processes. */
  addressSpaces: number;
  /**
   * For each block one byte per page, bits of `pageMarks`; null for a block that the guest does not see. Valid until the next
   * reading.
   */
  marks: readonly (Uint8Array | null)[];
}

/** How the guest's tables are read: found out once, while it runs. */
interface Tables {
  memory: PhysicalMemory;
  levels: 4 | 5;
  entry: RootEntry;
  walk: PageTableWalk;
  pages: PageMarks;
  marks: (Uint8Array | null)[];
  /** Slots of the top-level tables that the last reading found. */
  roots: number[];
}

/** What reading needs of a VM: a `QemuVm` has it. */
export type PagingVm = Pick<QemuVm, "qmp" | "process" | "facts">;

/**
 * A guest's page tables. Nothing in the VM is changed, and it is not stopped.
 *
 * Where they cannot be read (no paging, 32 bits, another system than Linux, a guest's guest, encrypted memory, no permission),
 * there is an object all the same, and every reading says why.
 *
 * @example
 * ```ts
 * import { GuestPaging, type PagingVm } from "./page_tables.ts";
 *
 * export async function countAddressSpaces(vm: PagingVm): Promise<number> {
 *   using paging = await GuestPaging.attach(vm);
 *   return paging.read(1000).addressSpaces;
 * }
 * ```
 */
export class GuestPaging implements Disposable {
  /** Blocks that were not located, and why. */
  readonly notes: readonly string[];
  /** Levels of paging; null when they cannot be read. */
  readonly levels: 4 | 5 | null;
  /** Whether the kernel and the processes have tables of their own (page table isolation). */
  readonly isolated: boolean;
  readonly #memory: PhysicalMemory | null;
  readonly #tables: Tables | null;
  readonly #resources: DisposableStack;
  #why: string | null;

  private constructor(
    parts: { notes: readonly string[]; resources: DisposableStack } & FoundTables,
  ) {
    this.notes = parts.notes;
    this.#resources = parts.resources;
    this.#why = parts.why;
    this.#memory = parts.memory;
    this.#tables = parts.tables;
    this.levels = parts.tables?.levels ?? null;
    this.isolated = parts.isolated;
  }

  /**
   * Finds the VM's memory and how its CPUs translate addresses now.
   *
   * @param vm a running or stopped QEMU with a monitor that answers
   * @throws {QmpError} when QEMU does not answer
   */
  static async attach(vm: PagingVm): Promise<GuestPaging> {
    using resources = new DisposableStack();
    const { qmp, process, facts } = vm;
    const { blocks, notes } = await locateBlocks(qmp, facts.blocks);
    const mode = await readPagingMode(qmp);
    const found = openTables({ pid: process.pid, blocks, mode }, resources);
    const paging = new GuestPaging({ ...found, notes, resources: resources.move() });
    // Another system may start there, with tables that nobody has confirmed.
    const off = qmp.on(({ name }) => {
      if (name === "RESET") paging.#why = "the guest was reset";
    });
    paging.#resources.defer(off);
    // The first reading is several times slower than those after it, for want of compiled code and of known tables.
    paging.read(FIRST_READING_MS);
    return paging;
  }

  /** As {@linkcode GuestPaging.attach}, of memory that is at hand. */
  static of(memory: PhysicalMemory, mode: PagingMode): GuestPaging {
    const found = prepare(memory, mode, {
      blockPages: memory.layout.ranges.reduce<number[]>((pages, range) => {
        const end = range.blockPage + range.pageCount;
        pages[range.block] = Math.max(pages[range.block] ?? 0, end);
        return pages;
      }, []),
    });
    return new GuestPaging({ ...found, notes: [], resources: new DisposableStack() });
  }

  /**
   * Reads the page tables as they are now. Never throws: where something goes wrong the reading says what.
   *
   * @param budgetMs after this time it gives up; a reading that is not complete says nothing
   */
  read(budgetMs: number): GuestPagingReading {
    const tables = this.#tables;
    if (this.#why !== null || tables === null) return nothing(this.#why ?? "");
    try {
      return readTables(tables, budgetMs);
    } catch (error) {
      // The VM may be gone; whatever it is, a page must not be taken for the kernel's for it.
      return nothing(error instanceof Error ? error.message : String(error));
    }
  }

  /** Whether a block was located: only then its pages can be read. */
  covers(block: number): boolean {
    return this.#memory?.layout.ranges.some((range) => range.block === block) ?? false;
  }

  /**
   * All RAM that was ever touched, block by block; null when it cannot be read.
   *
   * @throws {KvmError} on the way, when the VM is gone
   */
  pieces(): Iterable<MemoryPiece> | null {
    return this.#memory?.pieces() ?? null;
  }

  /** Closes what it holds; the VM is not touched. */
  [Symbol.dispose](): void {
    this.#resources.dispose();
  }
}

/** Tables, or why there are none. */
interface FoundTables {
  why: string | null;
  memory: PhysicalMemory | null;
  tables: Tables | null;
  isolated: boolean;
}

function openTables(
  vm: { pid: number; blocks: readonly (LocatedBlock | null)[]; mode: PagingMode },
  resources: DisposableStack,
): FoundTables {
  const fail = (why: string) => ({ why, memory: null, tables: null, isolated: false });
  try {
    const mappings = parseMaps(Deno.readTextFileSync(`/proc/${vm.pid}/maps`));
    const memory = resources.use(ProcessPhysicalMemory.open({ ...vm, mappings }));
    return prepare(memory, vm.mode, {
      blockPages: vm.blocks.map((block) => Math.floor((block?.bytes ?? 0) / PAGE_BYTES)),
    });
  } catch (error) {
    if (error instanceof KvmError) return fail(error.message);
    if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotFound) {
      return fail(`Cannot read the memory of process ${vm.pid}: it is gone, or not ours to read`);
    }
    throw error;
  }
}

function prepare(
  memory: PhysicalMemory,
  mode: PagingMode,
  { blockPages }: { blockPages: readonly (number | undefined)[] },
): FoundTables {
  const fail = (why: string) => ({ why, memory, tables: null, isolated: false });
  if (mode.why !== null) return fail(mode.why);
  const { levels } = mode;
  let isolated = false;
  let entry: RootEntry | null = null;
  for (const { cpu, page } of mode.topPages) {
    const root = confirmRoot(page, { memory, levels });
    if (root.why !== null) return fail(`vCPU ${cpu}: ${root.why}`);
    if (entry !== null && (entry.low !== root.entry.low || entry.high !== root.entry.high)) {
      return fail(`vCPU ${cpu}: its page tables are of another kernel than those before`);
    }
    entry = root.entry;
    isolated ||= root.isolated;
  }
  if (entry === null) return fail("no vCPU uses page tables");
  const pages = new PageMarks(memory.layout);
  const walk = new PageTableWalk({ memory, marks: pages, levels });
  const marks = Array.from(blockPages, (pages) => pages ? new Uint8Array(pages) : null);
  return {
    why: null,
    memory,
    isolated,
    tables: { memory, levels, entry, walk, pages, marks, roots: [] },
  };
}

function readTables(tables: Tables, budgetMs: number): GuestPagingReading {
  const { memory, entry, walk, pages, marks } = tables;
  const deadlineMs = performance.now() + budgetMs;
  const late = () => nothing(`the page tables were not read within ${budgetMs} ms`);
  pages.clear();
  walk.clear();
  // Those known before come first: no table is in memory that a process has, which is most of it as a rule.
  const known = tables.roots.filter((slot) => isRoot(slot, { memory, entry }));
  for (const slot of known) walk.addRoot(slot);
  if (!walk.run(deadlineMs)) return late();
  pages.copyTo(marks);
  const roots: number[] = [];
  for (const piece of memory.pieces((block, page) => isUser(marks[block]?.[page]))) {
    if (performance.now() >= deadlineMs) return late();
    findRoots(piece, { memory, entry, slots: roots });
  }
  tables.roots = roots;
  for (const slot of roots) walk.addRoot(slot);
  if (!walk.run(deadlineMs)) return late();
  // Every guest that runs has one; without it, another system has taken the guest over.
  if (walk.userRoots === 0) return nothing("no address space was found");
  pages.copyTo(marks);
  return { why: null, addressSpaces: walk.userRoots, marks };
}

function isUser(marks: number | undefined): boolean {
  return marks !== undefined && (marks & pageMarks.user) !== 0;
}

function nothing(why: string): GuestPagingReading {
  return { why, addressSpaces: 0, marks: [] };
}
