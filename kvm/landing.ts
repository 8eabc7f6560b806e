/**
 * Where verified pages go at the destination.
 *
 * Best first: `mapped` (the VM's memory is a file that others share: write there), `process` (write into QEMU's address space; needs
 * the right to trace it), `stream` (give the pages back to QEMU's own stream). Blocks that a landing does not cover, such as ROM and
 * video memory, always take the stream.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import {
  guestAddress,
  type HumanMonitor,
  locateBlocks,
  type LocatedBlock,
} from "./guest_memory.ts";
import { MappedLanding } from "./landing_mapped.ts";
import { ProcessLanding } from "./landing_process.ts";
import { parseMaps } from "./memory_map.ts";
import { isGone, type ProcessIdentity } from "./process.ts";
import { PAGE_BYTES } from "./stream_format.ts";

/** Landings by name, best first. */
export const landingNames = ["mapped", "process", "stream"] as const;
/** One of {@linkcode landingNames}. */
export type LandingName = typeof landingNames[number];
/** A landing asked for by name, or the best that works. */
export type LandingMode = "auto" | LandingName;

/** Puts pages where the VM has them. Every call is synchronous and done when it returns. */
export interface Landing {
  /** Which one it is. */
  readonly name: LandingName;
  /** Why nothing better was taken, one sentence each; empty when the best was, or when this one was asked for. */
  readonly notes: string[];
  /** Whether pages of that block can be landed; those of the others take QEMU's stream. */
  covers(block: number): boolean;
  /**
   * Page `pages[i]` of a covered block gets `bytes[4096 i .. 4096 i + 4095]`. When a page comes twice the later one stays.
   *
   * @throws {RangeError} when the block is not covered or the lengths do not match
   * @throws {KvmError} `landing` (page outside the block), `gone`, `denied`, `system`; some of the pages may have landed
   */
  pages(block: number, pages: Uint32Array, bytes: Uint8Array): void;
  /** These pages of a covered block read as zeros afterwards. @throws as {@linkcode Landing.pages} */
  zeros(block: number, pages: Uint32Array): void;
  /** Closes what it holds. The VM is not touched. */
  close(): void;
}

/** A landing that can be checked before it is used. */
interface ProbedLanding extends Landing {
  /** Reads whole pages of a covered block from page `first` on. */
  read(block: number, first: number, into: Uint8Array): void;
  /** Pages of a covered block that may not be zero, at most `limit`. */
  dataPages(block: number, limit: number): number[];
}

/** What a landing is made for. */
export interface LandingTarget {
  /** QEMU's monitor. */
  qmp: HumanMonitor;
  /** That QEMU, from the peer credentials of its socket. */
  process: ProcessIdentity;
  /** The VM's RAM blocks; the index is the block's number. */
  facts: { blocks: readonly { name: string; bytes: number }[] };
  /** What the operator asked for. */
  mode: LandingMode;
}

/** Pages that the probe compares, over all blocks; half of them spread evenly, half where there is data. */
const PROBE_PAGES = 16;
/** 64-bit words that `xp` prints for one page. */
const PAGE_WORDS = PAGE_BYTES / 8;

/**
 * Finds the landing for a VM that is not running, and probes it: sampled pages read through it must be what QEMU itself reads
 * at their guest addresses. Nothing is written.
 *
 * @throws {KvmError} `landing` when the one that was asked for by name cannot be used, with the reason; `gone`
 * @throws when the monitor does not answer
 *
 * @example
 * ```ts
 * import { findLanding } from "./landing.ts";
 * import type { HumanMonitor } from "./guest_memory.ts";
 * import { readProcess } from "./process.ts";
 *
 * export async function tellLanding(qmp: HumanMonitor, pid: number): Promise<string> {
 *   const facts = { blocks: [{ name: "pc.ram", bytes: 2 ** 30 }] };
 *   const landing = await findLanding({ qmp, process: readProcess(pid), facts, mode: "auto" });
 *   landing.close();
 *   return [landing.name, ...landing.notes].join("; ");
 * }
 * ```
 */
export async function findLanding(target: LandingTarget): Promise<Landing> {
  const { qmp, process, facts, mode } = target;
  if (mode === "stream") return new StreamLanding([]);
  const { blocks, notes } = await locateBlocks(qmp, facts.blocks);
  for (const name of ["mapped", "process"] as const) {
    if (mode !== "auto" && mode !== name) continue;
    try {
      return await openProbed(name, { qmp, process, blocks, notes: [...notes] });
    } catch (error) {
      if (!(error instanceof KvmError)) throw error;
      if (error.code === "gone") throw error;
      const reason = error.message.replace(/^Cannot /, "cannot ").replace(/^cannot land: /, "");
      if (mode !== "auto") {
        throw new KvmError("landing", `Cannot land by ${name}: ${reason}`, { cause: error });
      }
      notes.push(`${name}: ${reason}`);
    }
  }
  return new StreamLanding(notes);
}

async function openProbed(
  name: "mapped" | "process",
  vm: {
    qmp: HumanMonitor;
    process: ProcessIdentity;
    blocks: (LocatedBlock | null)[];
    notes: string[];
  },
): Promise<Landing> {
  const { process, blocks } = vm;
  if (blocks.every((block) => block === null)) {
    throw new KvmError("landing", "Cannot land: no RAM block of the VM has an address");
  }
  const mappings = parseMaps(readMaps(process.pid));
  const target = { pid: process.pid, blocks, mappings, notes: vm.notes };
  const landing = name === "mapped" ? MappedLanding.open(target) : ProcessLanding.open(target);
  try {
    // Asked after everything was opened: what is held now belongs to this process.
    if (isGone(process)) {
      throw new KvmError("gone", `Cannot use process ${process.pid}: it has ended`);
    }
    await probe(landing, { qmp: vm.qmp, blocks });
    return landing;
  } catch (error) {
    landing.close();
    throw error;
  }
}

async function probe(
  landing: ProbedLanding,
  vm: { qmp: HumanMonitor; blocks: (LocatedBlock | null)[] },
): Promise<void> {
  const covered = vm.blocks.filter((block) => block !== null).length;
  const share = Math.max(2, Math.ceil(PROBE_PAGES / 2 / covered));
  const here = new Uint8Array(PAGE_BYTES);
  for (const [index, block] of vm.blocks.entries()) {
    if (block === null) continue;
    const last = block.bytes / PAGE_BYTES - 1;
    const spread = Array.from({ length: share }, (_, i) => Math.round(last * i / (share - 1)));
    let compared = 0;
    for (const page of new Set([...spread, ...landing.dataPages(index, share)])) {
      const address = guestAddress(block, page * PAGE_BYTES);
      if (address === null) continue;
      const there = parseWords(await vm.qmp.hmp(`xp /${PAGE_WORDS}gx 0x${address.toString(16)}`));
      landing.read(index, page, here);
      if (there.length !== here.length || there.some((byte, i) => byte !== here[i])) {
        throw new KvmError(
          "landing",
          `Cannot land: page ${page} of block ${block.name} is not what QEMU reads there`,
        );
      }
      compared++;
    }
    if (compared === 0) {
      throw new KvmError("landing", `Cannot land: no page of block ${block.name} can be compared`);
    }
  }
}

/** The bytes that HMP `xp /Ngx` prints: `ADDRESS: 0xWORD 0xWORD`, words in the guest's order, little-endian. */
function parseWords(text: string): Uint8Array {
  const words = text.split("\n").flatMap((line) =>
    line.split(":")[1]?.match(/0x[0-9a-f]{16}/g) ?? []
  );
  return new Uint8Array(BigUint64Array.from(words, BigInt).buffer);
}

function readMaps(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/maps`);
  } catch (cause) {
    const what = `Cannot read the mappings of process ${pid}`;
    if (cause instanceof Deno.errors.NotFound) {
      throw new KvmError("gone", `${what}: no such process`, { cause });
    }
    throw new KvmError("denied", `${what}: permission denied`, { cause });
  }
}

/** Covers no block: everything goes by QEMU's stream. */
class StreamLanding implements Landing {
  readonly name = "stream";
  readonly notes: string[];

  constructor(notes: string[]) {
    this.notes = notes;
  }

  covers(): boolean {
    return false;
  }

  pages(block: number): void {
    throw new RangeError(`Cannot land pages of block ${block}: they take the stream`);
  }

  zeros(block: number): void {
    throw new RangeError(`Cannot land zeros of block ${block}: they take the stream`);
  }

  close(): void {}
}
