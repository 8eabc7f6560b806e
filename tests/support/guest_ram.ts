/**
 * The main RAM of a QEMU from outside, without making any of it resident: to write data into it, and to compare two of them.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { mainBlockName } from "../../cli/guest/qemu_arguments.ts";
import type { GuestMemoryKind } from "../../cli/guest/qemu_arguments.ts";
import type { QemuProcess } from "../../cli/guest/qemu_process.ts";
import { nextData, readAt } from "../../kvm/file_io.ts";
import { locateBlocks } from "../../kvm/guest_memory.ts";
import { FileDescriptor, libc, openFlags } from "../../kvm/libc.ts";
import { ProcessMemory } from "../../kvm/process_memory.ts";
import { readFacts } from "../../kvm/qemu_facts.ts";
import { readProcess } from "../../kvm/process.ts";
import type { WatchedVm } from "./watched_vm.ts";

const PIECE_BYTES = 4 * 1024 * 1024;
const PAGE_BYTES = 4096;
const ZEROS = new Uint8Array(PIECE_BYTES);

// Stays open for the life of the process: opened here, it is no leak of the first test.
libc();
/** Compares gigabytes in a tenth of the time that JavaScript takes. */
const comparing = Deno.dlopen("libc.so.6", {
  memcmp: {
    parameters: ["buffer", /* s1 */ "buffer", /* s2 */ "usize" /* n */],
    result: "i32",
  },
});

/** The main RAM block of one QEMU. Addresses are offsets in the block: a machine's holes are not in it. */
export class GuestRam implements Disposable {
  readonly sizeBytes: number;
  readonly #base: number;
  readonly #memory: ProcessMemory;
  /** The file that shared memory is; null for private memory. */
  readonly #file: FileDescriptor | null;

  private constructor(
    block: { base: number; bytes: number },
    parts: { memory: ProcessMemory; file: FileDescriptor | null },
  ) {
    this.#base = block.base;
    this.sizeBytes = block.bytes;
    this.#memory = parts.memory;
    this.#file = parts.file;
  }

  /** Finds it. `memory`: what QEMU was started with. */
  static async open(vm: WatchedVm, memory: GuestMemoryKind): Promise<GuestRam> {
    const { qmp, process } = vm;
    const facts = await readFacts(qmp, readProcess(process.pid));
    const { blocks } = await locateBlocks(qmp, facts.blocks);
    const main = blocks.find((block) => block?.name === mainBlockName);
    if (main === null || main === undefined) throw new Error("Cannot find the guest's RAM");
    return new GuestRam(main, {
      memory: ProcessMemory.open(process.pid),
      file: memory === "private" ? null : openFile(process, memory),
    });
  }

  write(offset: number, bytes: Uint8Array): void {
    this.#memory.write(this.#base + offset, bytes);
  }

  read(offset: number, into: Uint8Array): void {
    this.#memory.read(this.#base + offset, into);
  }

  /** As {@linkcode GuestRam.read}, but what was never touched is zeros and stays untouched; null when all of it is. */
  readTouched(offset: number, into: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> | null {
    const ranges: [number, number][] = [];
    if (this.#file === null) {
      this.#memory.forEachTouched(
        this.#base + offset,
        into.length / PAGE_BYTES,
        ({ first, count }) => ranges.push([first * PAGE_BYTES, (first + count) * PAGE_BYTES]),
      );
    } else {
      const data = nextData(this.#file, { offset, what: "guest memory" });
      if (data !== null && data < offset + into.length) ranges.push([data - offset, into.length]);
    }
    if (ranges.length === 0) return null;
    into.fill(0);
    for (const [from, to] of ranges) {
      const part = into.subarray(from, to);
      if (this.#file === null) this.read(offset + from, part);
      else readAt(this.#file, part, { offset: offset + from, what: "guest memory" });
    }
    return into;
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
    this.#file?.[Symbol.dispose]();
  }
}

/**
 * Numbers of the pages that differ, at most `limit`, and how many bytes of `b` were compared with another thing than
 * zeros. Both VMs must stand still.
 */
export async function compareRam(
  a: GuestRam,
  b: GuestRam,
  options: { limit?: number } = {},
): Promise<{ differing: number[]; comparedBytes: number }> {
  const { limit = 20 } = options;
  if (a.sizeBytes !== b.sizeBytes) throw new Error("Cannot compare RAM: the sizes differ");
  const differing: number[] = [];
  let comparedBytes = 0;
  const [pieceA, pieceB] = [new Uint8Array(PIECE_BYTES), new Uint8Array(PIECE_BYTES)];
  for (let offset = 0; offset < a.sizeBytes; offset += PIECE_BYTES) {
    const sizeBytes = Math.min(PIECE_BYTES, a.sizeBytes - offset);
    const ofA = a.readTouched(offset, pieceA.subarray(0, sizeBytes));
    const ofB = b.readTouched(offset, pieceB.subarray(0, sizeBytes));
    if (ofA === null && ofB === null) continue;
    const zeros = ZEROS.subarray(0, sizeBytes);
    const [contentA, contentB] = [ofA ?? zeros, ofB ?? zeros];
    if (ofB !== null) comparedBytes += sizeBytes;
    if (!areEqual(contentA, contentB)) {
      for (let at = 0; at < sizeBytes && differing.length < limit; at += PAGE_BYTES) {
        const end = at + PAGE_BYTES;
        if (areEqual(contentA.subarray(at, end), contentB.subarray(at, end))) continue;
        differing.push((offset + at) / PAGE_BYTES);
      }
    }
    // Events of QEMU and lines of the agents are read meanwhile.
    await new Promise((resolve) => setImmediate(resolve));
  }
  return { differing, comparedBytes };
}

function areEqual(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): boolean {
  // SAFETY: both are referenced until the call has returned, and as long as the count says.
  return comparing.symbols.memcmp(a, b, BigInt(Math.min(a.length, b.length))) === 0;
}

function openFile(vm: QemuProcess, memory: "memfd" | "file"): FileDescriptor {
  const flags = openFlags.O_RDONLY;
  if (memory === "file") {
    return FileDescriptor.open(`${vm.directory}/${mainBlockName}`, { flags });
  }
  for (const { name } of Deno.readDirSync(`/proc/${vm.pid}/fd`)) {
    const path = `/proc/${vm.pid}/fd/${name}`;
    if (Deno.readLinkSync(path).startsWith("/memfd:memory-backend-memfd")) {
      return FileDescriptor.open(path, { flags });
    }
  }
  throw new Error("Cannot find the guest's memfd");
}
