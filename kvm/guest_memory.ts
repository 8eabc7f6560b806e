/**
 * Where the RAM of a VM is in its QEMU's address space.
 *
 * Each RAM block is one linear piece of QEMU's memory, so one address per block says it all: a page is at the block's base
 * plus its offset in the block. The guest-physical map, which has holes and differs between VMs, only checks that.
 *
 * @module
 */

import { readAt } from "./file_io.ts";
import { FileDescriptor, openFlags } from "./libc.ts";
import { parseFlatView, type RamRange } from "./memory_map.ts";

/** The legacy video and BIOS area: what is there depends on chipset registers, and at a destination it has no address or shows ROM. */
const LEGACY_START = 0xa0000;
const LEGACY_END = 0x100000;

const HASH_PIECE_BYTES = 4 * 1024 * 1024;

/** A RAM block in QEMU's address space. */
export interface LocatedBlock {
  /** QEMU's name of it. */
  name: string;
  /** Used length, in bytes. */
  bytes: number;
  /** Address of the block's first byte in QEMU's address space. */
  base: number;
  /** Where the guest has it, for checks; not all of the block needs to be there. */
  ranges: RamRange[];
}

/** Runs a line of QEMU's human monitor. */
export interface HumanMonitor {
  /** What QEMU prints. */
  hmp(line: string): Promise<string>;
}

/** Which blocks were found. */
export interface LocatedBlocks {
  /** Same indices as the blocks asked for; null for one without an address (ROM, video memory). */
  blocks: (LocatedBlock | null)[];
  /** Blocks that have an address but were not taken, and why. */
  notes: string[];
}

/**
 * Finds the RAM blocks of a VM in its QEMU's address space. Works as soon as QEMU runs, also while it waits for a migration.
 *
 * @param monitor QEMU's monitor
 * @param blocks the VM's migratable RAM blocks, by QEMU's names
 * @throws when the monitor does not answer
 * @see https://www.qemu.org/docs/master/system/monitor.html (`gpa2hva`, `info mtree`)
 */
export async function locateBlocks(
  monitor: HumanMonitor,
  blocks: readonly { name: string; bytes: number }[],
): Promise<LocatedBlocks> {
  const bases = new Map<string, number>();
  const wrong = new Map<string, string>();
  const main = parseHostAddress(await monitor.hmp("gpa2hva 0"));
  if (main !== null) bases.set(main.block, main.address);
  const ranges = parseFlatView(await monitor.hmp("info mtree -f"))
    .filter(({ block, address }) =>
      blocks.some(({ name }) => name === block) &&
      (address < LEGACY_START || address >= LEGACY_END)
    );
  for (const range of ranges) {
    const gpa = `0x${range.address.toString(16)}`;
    const host = parseHostAddress(await monitor.hmp(`gpa2hva ${gpa}`));
    if (host === null || host.block !== range.block) {
      wrong.set(range.block, `guest address ${gpa} is not where the memory map says`);
      continue;
    }
    const base = bases.get(range.block) ?? host.address - range.offset;
    bases.set(range.block, base);
    if (base !== host.address - range.offset) {
      wrong.set(range.block, `guest address ${gpa} does not lie at its offset`);
    }
  }
  return {
    blocks: blocks.map(({ name, bytes }) => {
      const base = bases.get(name);
      if (base === undefined || wrong.has(name)) return null;
      return { name, bytes, base, ranges: ranges.filter(({ block }) => block === name) };
    }),
    notes: Array.from(wrong, ([block, reason]) => `block ${block}: ${reason}`),
  };
}

/** Parses what HMP `gpa2hva` prints; null when there is no RAM at that guest address. */
function parseHostAddress(text: string): { block: string; address: number } | null {
  const parts = text.match(/^Host virtual address for 0x[0-9a-f]+ \((.*)\) is 0x([0-9a-f]+)\s*$/);
  return parts === null ? null : { block: parts[1]!, address: parseInt(parts[2]!, 16) };
}

/**
 * The guest-physical address of a byte of a block, or null when the guest has none for it, or one that cannot be relied on.
 *
 * @param offset in the block, in bytes
 */
export function guestAddress(block: LocatedBlock, offset: number): number | null {
  for (const range of block.ranges) {
    if (offset < range.offset || offset >= range.offset + range.bytes) continue;
    const address = range.address + offset - range.offset;
    if (address < LEGACY_START || address >= LEGACY_END) return address;
  }
  return null;
}

/**
 * SHA-256 of whole RAM blocks as the process has them, in hexadecimal, by name. Reads `/proc/PID/mem`; pages that
 * were never touched count as zeros. A block's hash says something only while the VM is stopped.
 *
 * @throws {KvmError} `denied`, `gone`, `system`
 *
 * @example
 * ```ts
 * import { hashBlocks, locateBlocks } from "./guest_memory.ts";
 * import type { QmpClient } from "./qmp.ts";
 *
 * export async function hashMainMemory(qmp: QmpClient, pid: number): Promise<Map<string, string>> {
 *   const { blocks } = await locateBlocks(qmp, [{ name: "pc.ram", bytes: 128 * 1024 * 1024 }]);
 *   return await hashBlocks({ pid, blocks: blocks.filter((block) => block !== null) });
 * }
 * ```
 */
export async function hashBlocks(
  vm: { pid: number; blocks: readonly { name: string; base: number; bytes: number }[] },
): Promise<Map<string, string>> {
  const hashes = new Map<string, string>();
  const piece = new Uint8Array(HASH_PIECE_BYTES);
  // Only those who look at a VM from outside hash it.
  const { createHash } = await import("node:crypto");
  const path = `/proc/${vm.pid}/mem`;
  using memory = FileDescriptor.open(path, { flags: openFlags.O_RDONLY });
  for (const block of vm.blocks) {
    const hash = createHash("sha256");
    for (let offset = 0; offset < block.bytes; offset += HASH_PIECE_BYTES) {
      const bytes = piece.subarray(0, Math.min(HASH_PIECE_BYTES, block.bytes - offset));
      readAt(memory, bytes, { offset: block.base + offset, what: path });
      hash.update(bytes);
      // Gigabytes take seconds: events and signals are to be heard meanwhile.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    hashes.set(block.name, hash.digest("hex"));
  }
  return hashes;
}
