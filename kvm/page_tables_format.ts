/**
 * The formats of x86-64 page tables, and where Linux puts what in them.
 *
 * Entries are handled as two words of 32 bits: a bigint for each would cost more than everything else of a walk.
 *
 * @see Intel SDM volume 3A, section 4.5 (4-level paging and 5-level paging), tables 4-14 to 4-20
 * @see https://docs.kernel.org/arch/x86/x86_64/mm.html
 * @module
 */

/** Entries of a table, at every level. */
export const TABLE_ENTRIES = 512;
/** 32-bit words of a table. */
export const TABLE_WORDS = TABLE_ENTRIES * 2;
/** Bytes of a table: one page. */
export const TABLE_BYTES = TABLE_WORDS * 4;

/** Bits of an entry's low word. */
export const entryBits = {
  /** P: everything else counts only when it is set. */
  present: 1 << 0,
  /** U/S: ring 3 may get there, if it is set at every level. */
  user: 1 << 2,
  /** PS: the entry maps a page of 2 MiB or 1 GiB; reserved from level 4 up. */
  large: 1 << 7,
  /** G in a present entry. In one that is not, Linux marks with it a page without any access right (`_PAGE_PROTNONE`). */
  protNone: 1 << 8,
} as const;
/** XD, in the high word: no instruction is fetched from there. */
export const EXECUTE_DISABLE = 0x8000_0000;
/** Bits 51:32 of the physical address, in the high word. */
const ADDRESS_HIGH = 0x000f_ffff;

/** The first index of the upper half of a top-level table: the kernel's, in Linux. */
export const KERNEL_HALF = 256;
/** The last entry of a top-level table: in Linux, the kernel's image and its modules lie there. */
export const LAST_ENTRY = 511;
/**
 * The first entry of a level 4 table whose 512 GiB hold code, when it is the last such table: ffff_fe00_0000_0000 and up. Below
 * it, Linux has the direct map of all memory, vmalloc and the memory map, in an order and at addresses that are drawn at boot.
 */
export const FIRST_CODE_ENTRY = 508;
/** Where in its level 3 table the kernel's image begins: ffff_ffff_8000_0000. */
export const IMAGE_ENTRY = 510;

/** Pages of 4 KiB in a page of 2 MiB. */
export const LARGE_PAGES = 512;
/** Pages of 4 KiB in a page of 1 GiB. */
export const HUGE_PAGES = 512 * 512;

/** The page number (4 KiB) in an entry: bits 51:12. */
export function pageOf(low: number, high: number): number {
  return (high & ADDRESS_HIGH) * 2 ** 20 + (low >>> 12);
}

/**
 * The page number in an entry without access rights, as Linux has written it since it defends against L1TF: inverted.
 *
 * @see Linux, arch/x86/include/asm/pgtable-invert.h
 */
export function invertedPageOf(low: number, high: number): number {
  return pageOf(~low, ~high);
}

/** Whether two entries point to the same table. What the CPU and the kernel note beside the address may differ. */
export function pointsToSame(a: { low: number; high: number }, low: number, high: number): boolean {
  return ((a.low ^ low) & (0xffff_f000 | entryBits.present)) === 0 &&
    ((a.high ^ high) & ADDRESS_HIGH) === 0;
}
