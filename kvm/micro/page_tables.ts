/**
 * The guest's page tables.
 *
 * @see Intel SDM volume 3, section 4.5 (4-level paging)
 * @module
 */

import {
  addresses,
  HIGH_MEMORY_ADDRESS,
  LARGE_PAGE_BYTES,
  LOW_MEMORY_BYTES,
  MAX_VCPUS,
} from "./layout.ts";

const PAGE_BYTES = 4096;
const PRESENT = 1n << 0n, WRITABLE = 1n << 1n, USER = 1n << 2n, LARGE = 1n << 7n;
const NO_EXECUTE = 1n << 63n;
/** 512 GiB, 1 GiB, 2 MiB: below them is one table of pages of 4 KiB. */
const TABLES = { pml4: 0, pdpt: 1, pages: 2, directories: 3 } as const;

/** Guest-physical address of a byte of RAM. */
export function physicalAddress(offset: number): number {
  return offset < LOW_MEMORY_BYTES ? offset : offset - LOW_MEMORY_BYTES + HIGH_MEMORY_ADDRESS;
}

/**
 * Writes the tables into RAM. A virtual address is an offset in RAM. Below 2 MiB each page gets the rights that it needs; everything
 * above is for ring 3, in pages of 2 MiB.
 *
 * @param memory RAM, zeros where the tables go
 * @returns the guest-physical address for CR3
 */
export function writePageTables(memory: Uint8Array<ArrayBuffer>): number {
  const base = addresses.pageTables;
  const table = (index: number) => base + index * PAGE_BYTES;
  const view = new DataView(memory.buffer, memory.byteOffset);
  const set = (at: number, index: number, entry: bigint) =>
    view.setBigUint64(at + index * 8, entry, true);
  const pointer = PRESENT | WRITABLE | USER;

  set(table(TABLES.pml4), 0, BigInt(table(TABLES.pdpt)) | pointer);
  for (let gib = 0; gib * 2 ** 30 < memory.length; gib++) {
    set(table(TABLES.pdpt), gib, BigInt(table(TABLES.directories + gib)) | pointer);
  }
  set(table(TABLES.directories), 0, BigInt(table(TABLES.pages)) | pointer);
  for (let offset = LARGE_PAGE_BYTES; offset < memory.length; offset += LARGE_PAGE_BYTES) {
    const entry = BigInt(physicalAddress(offset)) | PRESENT | WRITABLE | USER | LARGE | NO_EXECUTE;
    // The directories lie one behind the other: one array of 2 MiB pages.
    set(table(TABLES.directories), offset / LARGE_PAGE_BYTES, entry);
  }

  const page = (address: number, rights: bigint) =>
    set(table(TABLES.pages), address / PAGE_BYTES, BigInt(address) | PRESENT | rights);
  page(addresses.kernelText, 0n);
  page(addresses.kernelData, WRITABLE | NO_EXECUTE);
  page(addresses.userText, USER);
  for (let cpu = 0; cpu < MAX_VCPUS; cpu++) {
    page(addresses.stacks[cpu]!, WRITABLE | NO_EXECUTE);
    page(addresses.information[cpu]!, WRITABLE | USER | NO_EXECUTE);
  }
  page(addresses.secret, WRITABLE | USER | NO_EXECUTE);
  return base;
}
