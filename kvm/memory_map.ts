/**
 * The two texts that say where memory is: `/proc/PID/maps` (addresses of a process) and QEMU's `info mtree -f`
 * (addresses of its guest).
 *
 * @module
 */

import { KvmError } from "./errors.ts";

/** One line of `/proc/PID/maps`. */
export interface ProcessMapping {
  /** First address. */
  start: number;
  /** Address after the last. */
  end: number;
  /** `r`. */
  readable: boolean;
  /** `w`. */
  writable: boolean;
  /** `s`: what is written here is seen through every other mapping of the same file. */
  shared: boolean;
  /** Offset of `start` in the file, in bytes. */
  offset: number;
  /** `major:minor` in hexadecimal, verbatim. */
  device: string;
  /** Decimal, verbatim (64 bits); `0` for anonymous memory. */
  inode: string;
  /** Path or `[name]`; empty when there is none. */
  path: string;
}

/** The memory behind a range of addresses, when one piece of one object is behind all of it. */
export interface Backing {
  /** Whether the mapping is `MAP_SHARED`. */
  shared: boolean;
  /** Private memory that no file is behind: a page that was never touched reads as zeros. */
  anonymous: boolean;
  /** As in {@linkcode ProcessMapping}. */
  device: string;
  /** As in {@linkcode ProcessMapping}. */
  inode: string;
  /** As in {@linkcode ProcessMapping}. */
  path: string;
  /** Offset in the file of the range's first byte, in bytes. */
  offset: number;
  /** `START-END` of the mapping that holds the first byte, as `/proc/PID/map_files` names it. */
  mapFile: string;
}

/** A range of guest-physical addresses that a RAM block is behind. */
export interface RamRange {
  /** QEMU's name of the memory region, which for RAM is the block's. */
  block: string;
  /** First guest-physical address. */
  address: number;
  /** Its length. */
  bytes: number;
  /** Offset of the range in the block, in bytes. */
  offset: number;
}

/**
 * Parses `/proc/PID/maps`.
 *
 * @throws {KvmError} `unsupported` when a line has another form
 * @see proc_pid_maps(5)
 *
 * @example
 * ```ts
 * import { parseMaps } from "./memory_map.ts";
 * import { equal } from "node:assert/strict";
 *
 * const [memory] = parseMaps("7f0000000000-7f0000400000 rw-s 00001000 00:01 26   /memfd:m0 (deleted)\n");
 * equal(memory?.shared, true);
 * equal(memory?.offset, 4096);
 * ```
 */
export function parseMaps(text: string): ProcessMapping[] {
  return text.split("\n").filter((line) => line !== "").map((line) => {
    const parts = line.match(
      /^([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])[x-]([sp]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)\s*(.*)$/,
    );
    if (parts === null) {
      throw new KvmError(
        "unsupported",
        "Cannot read a process's mappings: /proc/PID/maps has another form",
      );
    }
    const [, start, end, read, write, sharing, offset, device, inode, path] = parts;
    return {
      start: parseInt(start!, 16),
      end: parseInt(end!, 16),
      readable: read === "r",
      writable: write === "w",
      shared: sharing === "s",
      offset: parseInt(offset!, 16),
      device: device!,
      inode: inode!,
      path: path!,
    };
  });
}

/**
 * What is behind the addresses from `range.base` on. The kernel may show one mapping in several lines (`madvise`, `mbind`);
 * they count as one as long as they continue each other.
 *
 * @throws {KvmError} `landing` when part of it is not mapped, not writable, or something else
 */
export function findBacking(
  mappings: readonly ProcessMapping[],
  range: { name: string; base: number; bytes: number },
): Backing {
  const end = range.base + range.bytes;
  const parts = mappings.filter((mapping) => mapping.start < end && mapping.end > range.base)
    .sort((a, b) => a.start - b.start);
  const first = parts[0];
  let reached = range.base;
  for (const part of parts) {
    const continues = first !== undefined && part.start <= reached &&
      part.shared === first.shared &&
      part.device === first.device && part.inode === first.inode &&
      (part.inode === "0" || part.offset - first.offset === part.start - first.start);
    if (!continues || !part.readable || !part.writable) break;
    reached = part.end;
  }
  if (first === undefined || reached < end) {
    throw new KvmError(
      "landing",
      `Cannot find block ${range.name} in QEMU's memory: no one writable mapping is behind it`,
    );
  }
  return {
    shared: first.shared,
    anonymous: !first.shared && first.inode === "0",
    device: first.device,
    inode: first.inode,
    path: first.path,
    offset: first.offset + range.base - first.start,
    mapFile: `${first.start.toString(16)}-${first.end.toString(16)}`,
  };
}

/**
 * The RAM ranges of the flat view that the guest's CPUs see, in order of address. ROM, devices and RAM that is write-protected
 * at the moment are left out.
 *
 * @param text what HMP `info mtree -f` prints
 *
 * @example
 * ```ts
 * import { parseFlatView } from "./memory_map.ts";
 * import { deepEqual } from "node:assert/strict";
 *
 * const text = `FlatView #0
 *  AS "memory", root: system
 *  Root memory region: system
 *   0000000100000000-00000001bfffffff (prio 0, ram): pc.ram @0000000080000000
 * `;
 * deepEqual(parseFlatView(text), [
 *   { block: "pc.ram", address: 0x1_0000_0000, bytes: 0xc000_0000, offset: 0x8000_0000 },
 * ]);
 * ```
 */
export function parseFlatView(text: string): RamRange[] {
  const view = text.split(/^FlatView #/m).find((part) => /^ AS "memory",/m.test(part)) ?? "";
  // `nv-ram` is RAM on persistent memory.
  const line =
    /^ *([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:nv-)?ram\): (.+?)(?: @([0-9a-f]{16}))?\s*$/gm;
  return Array.from(view.matchAll(line), ([, start, last, block, offset]) => ({
    block: block!,
    address: parseInt(start!, 16),
    bytes: parseInt(last!, 16) - parseInt(start!, 16) + 1,
    offset: offset === undefined ? 0 : parseInt(offset, 16),
  }));
}
