/**
 * The VMs of the comparison: one source that is migrated again and again, a new destination each time.
 *
 * @module
 */

import { bootSector } from "../../cli/guest/boot_sector.ts";
import { mainBlockName, type QemuOptions } from "../../cli/guest/qemu_arguments.ts";
import { QemuProcess } from "../../cli/guest/qemu_process.ts";
import { locateBlocks } from "../../kvm/guest_memory.ts";
import { cpuSeconds, readProcess } from "../../kvm/process.ts";
import { ProcessMemory } from "../../kvm/process_memory.ts";
import { readFacts } from "../../kvm/qemu_facts.ts";
import { QmpClient, type QmpEvent } from "../../kvm/qmp.ts";

const MIB = 2 ** 20;
const PAGE_BYTES = 4096;
/** Clear of everything that the guest touches. */
const RANDOM_BEGIN_BYTES = 16 * MIB;
const FILL_BYTES = 4 * MIB;
/** One page in so many is compared after each migration: a competitor that moved nothing must not win. */
const COMPARED_STRIDE_PAGES = 61;
const STATE_TIMEOUT_MS = 60_000;

/** What the destination's memory is. The source's is always private. */
export const memoryStates = {
  "fresh": { memory: "memfd", prealloc: false },
  "prealloc": { memory: "memfd", prealloc: true },
  "private-fresh": { memory: "private", prealloc: false },
  "private-prealloc": { memory: "private", prealloc: true },
} as const satisfies Record<string, Pick<QemuOptions, "memory" | "prealloc">>;

/** One of {@linkcode memoryStates}. */
export type MemoryState = keyof typeof memoryStates;

/** Sizes of the VM. */
export interface VmSizes {
  memoryMiB: number;
  /** How much of it is random, from 16 MiB on; the rest is zeros but for what the guest's boot left. */
  randomMiB: number;
}

/** A QEMU with a monitor of the benchmark's own beside the one that an agent uses. */
export class BenchVm implements AsyncDisposable {
  readonly process: QemuProcess;
  readonly qmp: QmpClient;
  readonly events: QmpEvent[] = [];
  /** Address of the first byte of RAM in the process. */
  readonly #base: number;

  private constructor(process: QemuProcess, qmp: QmpClient, base: number) {
    this.process = process;
    this.qmp = qmp;
    this.#base = base;
    qmp.on((event) => void this.events.push(event));
  }

  /** Starts it; `guest` is a boot sector's disk image. */
  static async start(
    sizes: VmSizes,
    options: { guest: string; directory: string; destination?: MemoryState },
  ): Promise<BenchVm> {
    const { destination } = options;
    const process = await QemuProcess.start({
      guest: { bootSector: options.guest },
      memoryMiB: sizes.memoryMiB,
      qmpCount: 2,
      directory: options.directory,
      ...(destination === undefined ? {} : { ...memoryStates[destination], incoming: "defer" }),
    });
    try {
      // It answers when all memory is allocated.
      const qmp = await QmpClient.connect(process.qmpPaths[1]!, {
        greetingTimeoutMs: STATE_TIMEOUT_MS,
      });
      const facts = await readFacts(qmp, readProcess(process.pid));
      const { blocks } = await locateBlocks(qmp, facts.blocks);
      const main = blocks.find((block) => block?.name === mainBlockName);
      if (main === undefined || main === null) throw new Error("Cannot find the RAM of the VM");
      return new BenchVm(process, qmp, main.base);
    } catch (error) {
      await process[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The socket for an agent. */
  get qmpPath(): string {
    return this.process.qmpPaths[0]!;
  }

  /** CPU seconds that QEMU has used. */
  get cpuSeconds(): number {
    return cpuSeconds(this.process.pid) ?? 0;
  }

  /** Waits for a run state. */
  async reaches(state: string): Promise<void> {
    const deadlineMs = performance.now() + STATE_TIMEOUT_MS;
    for (;;) {
      const { status } = await this.qmp.execute("query-status") as { status: string };
      if (status === state) return;
      if (performance.now() > deadlineMs) {
        throw new Error(`Cannot go on: the VM is ${status} and not ${state}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** The first event of that name among `events` from `from` on, waited for. */
  async event(name: string, from: number): Promise<QmpEvent> {
    const deadlineMs = performance.now() + STATE_TIMEOUT_MS;
    for (;;) {
      const found = this.events.slice(from).find((event) => event.name === name);
      if (found !== undefined) return found;
      if (this.qmp.hasEnded) throw new Error(`Cannot go on: QEMU ended (${this.process.stderr})`);
      if (performance.now() > deadlineMs) throw new Error(`Cannot go on: no ${name} came`);
      const next = Promise.withResolvers<void>();
      const off = this.qmp.on(() => next.resolve());
      const timer = setTimeout(next.resolve, 1_000);
      await next.promise;
      clearTimeout(timer);
      off();
    }
  }

  /** Fills the random part, no two pages alike. */
  fillRandom(sizes: VmSizes): void {
    using memory = ProcessMemory.open(this.process.pid);
    const piece = new Uint8Array(FILL_BYTES);
    for (let at = 0; at < sizes.randomMiB * MIB; at += piece.length) {
      for (let from = 0; from < piece.length; from += 65_536) {
        crypto.getRandomValues(piece.subarray(from, from + 65_536));
      }
      memory.write(this.#base + RANDOM_BEGIN_BYTES + at, piece);
    }
  }

  /** Throws unless sampled pages of the random part are the same in both. */
  assertSameMemory(other: BenchVm, sizes: VmSizes): void {
    using mine = ProcessMemory.open(this.process.pid);
    using theirs = ProcessMemory.open(other.process.pid);
    const [a, b] = [new Uint8Array(PAGE_BYTES), new Uint8Array(PAGE_BYTES)];
    const stride = COMPARED_STRIDE_PAGES * PAGE_BYTES;
    for (let at = 0; at < sizes.randomMiB * MIB; at += stride) {
      mine.read(this.#base + RANDOM_BEGIN_BYTES + at, a);
      theirs.read(other.#base + RANDOM_BEGIN_BYTES + at, b);
      if (a.some((byte, index) => byte !== b[index])) {
        throw new Error(`Cannot count this migration: the page at ${at} did not arrive`);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.qmp[Symbol.asyncDispose]();
    await this.process[Symbol.asyncDispose]();
  }
}

/** Writes a boot sector that beats and changes no memory but its own first MiB. @returns its path */
export async function writeIdleGuest(directory: string): Promise<string> {
  const path = `${directory}/guest.img`;
  await Deno.writeFile(path, bootSector({ dirtyMiBPerSecond: 0, workingSetMiB: 1, beatMs: 50 }));
  await Deno.truncate(path, MIB);
  return path;
}

/** CPU seconds of all children of this process that have ended and were waited for. @see proc_pid_stat(5), fields 16 and 17 */
export function endedChildrenCpuSeconds(): number {
  const stat = Deno.readTextFileSync("/proc/self/stat");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[13]) + Number(fields[14])) / 100;
}
