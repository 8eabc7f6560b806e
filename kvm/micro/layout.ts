/**
 * Where things are in the micro-VM, and the ports that its guest speaks through: what guest.asm and its loader agree on.
 *
 * Guest-virtual addresses are offsets in RAM. Guest-physical ones are the same below 3 GiB; RAM above lies from 4 GiB on, as in a PC.
 *
 * @module
 */

/** Most vCPUs: each has its own stack, information page and task state segment. */
export const MAX_VCPUS = 2;

/** Least RAM: 2 MiB of everything below, and 2 MiB to write to. */
export const MIN_MEMORY_BYTES = 4 * 2 ** 20;
/** Most RAM: 2048 pages of 2 MiB, in four page directories. */
export const MAX_MEMORY_BYTES = 4 * 2 ** 30;
/** RAM comes in pages of this size, which the page tables map. */
export const LARGE_PAGE_BYTES = 2 * 2 ** 20;
/** RAM below the devices' hole. */
export const LOW_MEMORY_BYTES = 3 * 2 ** 30;
/** Where the rest of it lies. */
export const HIGH_MEMORY_ADDRESS = 4 * 2 ** 30;

/** Addresses in RAM, all below 2 MiB; page 0 is not mapped. */
export const addresses = {
  /** Kernel text; the entry point is its first byte. */
  kernelText: 0x1000,
  /** Kernel data: first the GDT. */
  kernelData: 0x2000,
  idt: 0x2100,
  /** A task state segment for each vCPU. */
  taskStates: [0x2300, 0x2380],
  userText: 0x3000,
  /** A page for each vCPU; the stack starts at its end. */
  stacks: [0x4000, 0x5000],
  /** A page for each vCPU, see {@linkcode information}. */
  information: [0x6000, 0x7000],
  /** A page of ring 3 that nothing reads. */
  secret: 0x8000,
  pageTables: 0x10000,
  /** The working set of all vCPUs, up to the end of RAM at most. */
  workingSet: LARGE_PAGE_BYTES,
} as const;

/** 64-bit words of an information page, by offset; the host writes the first three before the guest starts, the guest the others. */
export const information = {
  /** Address of the first page of this vCPU's working set. */
  first: 0x00,
  /** Pages of it. */
  pages: 0x08,
  /** Pages that are changed between two heartbeats. */
  pagesPerBeat: 0x10,
  /** 1 once every page was written. */
  filled: 0x18,
  /** Pages changed since then. */
  visits: 0x20,
  /** Sum of the first words of all pages of the working set, modulo 2^64. */
  checksum: 0x28,
  /** Heartbeats so far. */
  beats: 0x30,
} as const;

/** I/O ports that the guest writes 32 bits to. */
export const ports = {
  /** The number of a heartbeat; the host lets the guest go on when the next interval begins. */
  beat: 0x10,
  /** Vector of an exception that nothing handles; the guest stands then. */
  fault: 0x11,
} as const;

/** Selectors of the GDT in guest.asm. */
export const selectors = { kernelCode: 0x08, kernelData: 0x10, taskStates: [0x28, 0x38] } as const;
