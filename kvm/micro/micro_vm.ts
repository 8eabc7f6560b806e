/**
 * The micro-VM: a VM that starts in milliseconds, and whose every page and dirty bit can be looked at from here.
 *
 * @module
 */

import type { DirtyLog } from "../dirty_log.ts";
import { KvmError } from "../errors.ts";
import { Kvm } from "../kvm.ts";
import { Mapping } from "../mapping.ts";
import type { Beat } from "../vcpu_control.ts";
import { exitError, type VcpuExit } from "../vcpu_exit.ts";
import { loadVcpus, saveVcpus, type VcpuStateOptions } from "../vcpu_state.ts";
import { VcpuThread } from "../vcpu_thread.ts";
import type { Vcpu } from "../vcpu.ts";
import type { Vm } from "../vm.ts";
import {
  addresses,
  HIGH_MEMORY_ADDRESS,
  LARGE_PAGE_BYTES,
  LOW_MEMORY_BYTES,
  MAX_MEMORY_BYTES,
  MAX_VCPUS,
  MIN_MEMORY_BYTES,
  ports,
} from "./layout.ts";
import { loadGuest, startInKernel, type Workload } from "./loader.ts";
import { checkWorkload, type WorkloadCheck } from "./workload_check.ts";

const PAGE_BYTES = 4096;
/** Heartbeats of a guest that writes at a set rate: often enough to see a downtime, rarely enough to cost little. */
const DEFAULT_BEAT_MS = 5;
/** Longest, so that a slowdown of 60 is still possible. */
const MAX_BEAT_MS = 60_000;
/** Between two heartbeats of a guest that writes as fast as it can. */
const UNLIMITED_PAGES_PER_BEAT = 256;
/** State: magic "SMVM", version u32, microseconds between heartbeats u32; then the vCPUs. */
const STATE_MAGIC = 0x4d564d53, STATE_VERSION = 1, STATE_HEADER_BYTES = 12;

/** The machine: what has to be the same at both ends of a migration. */
export interface MicroVmOptions {
  /** RAM, a multiple of 2 MiB from 4 MiB to 4 GiB. */
  memoryBytes: number;
  /** 1 by default, or 2. */
  vcpus?: number;
}

/** What runs in it. */
export interface MicroGuestOptions {
  /** How much of the memory it writes to, whole pages; all above 2 MiB by default. */
  workingSetBytes?: number;
  /** How many pages it changes in a second, all vCPUs together; as many as it can by default. */
  dirtyPagesPerSecond?: number;
  /** Milliseconds between heartbeats at a set rate; 5 by default. */
  beatMs?: number;
  /** At most 4096 bytes, put into a page of ring 3. */
  secret?: Uint8Array;
}

/** A piece of the dirty bitmap: memory slots are two where RAM reaches past the hole below 4 GiB. */
export interface MicroDirtyLog {
  /** Page of RAM that the log's page 0 is. */
  firstPage: number;
  /** The log of the slot. */
  log: DirtyLog;
}

/**
 * One micro-VM.
 *
 * @example
 * ```ts
 * import { Kvm } from "../kvm.ts";
 * import { MicroVm } from "./micro_vm.ts";
 * import { deepEqual, ok } from "node:assert/strict";
 *
 * if (Kvm.whyUnavailable() === null) {
 *   using vm = await MicroVm.create({ memoryBytes: 8 * 2 ** 20 });
 *   vm.boot({ dirtyPagesPerSecond: 1000 });
 *   vm.start();
 *   await vm.untilBeats(3);
 *   vm.stop();
 *   const [check] = vm.check();
 *   ok(check?.filled && check.checksumFits && check.beats >= 3n);
 *   deepEqual(check.wrongPages, []);
 * }
 * ```
 */
export class MicroVm implements Disposable {
  /** RAM, in place. A virtual address of the guest is an offset in it. */
  readonly memory: Uint8Array<ArrayBuffer>;
  /** Number of vCPUs. */
  readonly vcpuCount: number;
  /** Called at most once, when the guest cannot go on: a fault, a triple fault, a halt. Every vCPU is stopped then. */
  onFailure: ((error: KvmError) => void) | null = null;

  readonly #resources: DisposableStack;
  readonly #vm: Vm;
  readonly #slots: { slot: number; firstPage: number }[];
  readonly #vcpus: Vcpu[];
  readonly #threads: VcpuThread[];
  readonly #state: VcpuStateOptions;
  #logs: MicroDirtyLog[] | null = null;
  #paceMs = 0;
  #slowdown = 1;
  #failure: KvmError | null = null;

  private constructor(
    parts: {
      resources: DisposableStack;
      vm: Vm;
      memory: Mapping;
      slots: { slot: number; firstPage: number }[];
      vcpus: Vcpu[];
      threads: VcpuThread[];
      msrIndices: Uint32Array;
    },
  ) {
    this.#resources = parts.resources;
    this.#vm = parts.vm;
    this.memory = parts.memory.bytes;
    this.#slots = parts.slots;
    this.#vcpus = parts.vcpus;
    this.#threads = parts.threads;
    this.vcpuCount = parts.vcpus.length;
    this.#state = {
      check: (capability) => this.#vm.check(capability),
      msrIndices: parts.msrIndices,
      hasLocalApic: false,
    };
  }

  /**
   * Makes the machine: memory of zeros, and vCPUs that stand. Then either {@linkcode MicroVm.boot} or {@linkcode MicroVm.loadState}.
   *
   * @throws {RangeError} when memory or vCPUs are not as {@linkcode MicroVmOptions} says
   * @throws {KvmError} as `Kvm.open`; `unsupported` when the host has less memory than that
   */
  static async create(options: MicroVmOptions): Promise<MicroVm> {
    const { memoryBytes, vcpus: vcpuCount = 1 } = options;
    checkMachine(memoryBytes, vcpuCount);
    await using cleanup = new AsyncDisposableStack();
    const resources = new DisposableStack();
    cleanup.defer(() => resources.dispose());
    const kvm = resources.use(Kvm.open());
    // Unmapped after the VM was closed: a stack ends in reverse order.
    const memory = resources.use(Mapping.anonymous(memoryBytes));
    const vm = resources.use(kvm.createVm());
    const lowBytes = Math.min(memoryBytes, LOW_MEMORY_BYTES);
    const slots = [{ slot: 0, firstPage: 0 }];
    vm.setSlot({ slot: 0, guestAddress: 0, bytes: lowBytes, memory });
    if (memoryBytes > lowBytes) {
      slots.push({ slot: 1, firstPage: lowBytes / PAGE_BYTES });
      vm.setSlot({
        slot: 1,
        guestAddress: HIGH_MEMORY_ADDRESS,
        bytes: memoryBytes - lowBytes,
        memory,
        offset: lowBytes,
      });
    }
    const vcpus: Vcpu[] = [];
    const threads: VcpuThread[] = [];
    for (let id = 0; id < vcpuCount; id++) {
      const vcpu = vm.createVcpu(id);
      vcpus.push(vcpu);
      threads.push(resources.use(await VcpuThread.start(vcpu, { beatPort: ports.beat })));
    }
    const msrIndices = kvm.msrIndices();
    cleanup.move();
    return new MicroVm({ resources, vm, memory, slots, vcpus, threads, msrIndices });
  }

  /** Whether a vCPU may be in the guest just now. */
  get running(): boolean {
    return this.#threads.some((thread) => thread.running);
  }

  /** Why the guest cannot go on; null while it can. */
  get failure(): KvmError | null {
    return this.#failure;
  }

  /** How many times slower than asked for the guest is let go on; 1 is full speed. */
  get slowdown(): number {
    return this.#slowdown;
  }

  set slowdown(value: number) {
    this.#slowdown = value;
    this.#applyPace();
  }

  /**
   * Loads the guest into the fresh machine.
   *
   * @throws {RangeError} when the working set or the secret does not fit
   */
  boot(options: MicroGuestOptions = {}): void {
    const { secret = new Uint8Array(0), dirtyPagesPerSecond, beatMs = DEFAULT_BEAT_MS } = options;
    if (secret.length > PAGE_BYTES) {
      throw new RangeError(`Cannot boot: a secret of ${secret.length} bytes, not ${PAGE_BYTES}`);
    }
    const available = this.memory.length - addresses.workingSet;
    const bytes = options.workingSetBytes ?? available;
    const pages = Math.floor(bytes / PAGE_BYTES / this.vcpuCount);
    if (!(pages > 0 && bytes <= available)) {
      throw new RangeError(`Cannot boot: a working set of ${bytes} bytes, of ${available}`);
    }
    if (
      !(beatMs >= 0 && beatMs <= MAX_BEAT_MS) ||
      (dirtyPagesPerSecond !== undefined && !(dirtyPagesPerSecond >= 0))
    ) {
      throw new RangeError(
        `Cannot boot: ${dirtyPagesPerSecond} pages a second, heartbeats every ${beatMs} ms`,
      );
    }
    const limited = dirtyPagesPerSecond !== undefined;
    this.#paceMs = limited ? beatMs : 0;
    const pagesPerBeat = limited
      ? Math.ceil(dirtyPagesPerSecond * beatMs / 1000 / this.vcpuCount)
      : UNLIMITED_PAGES_PER_BEAT;
    const workloads: Workload[] = this.#vcpus.map((_, cpu) => ({
      first: addresses.workingSet + cpu * pages * PAGE_BYTES,
      pages,
      pagesPerBeat,
    }));
    const cr3 = loadGuest(this.memory, { workloads, secret });
    for (const vcpu of this.#vcpus) startInKernel(vcpu, { cr3 });
    this.#applyPace();
  }

  /** Lets every vCPU run. @throws {KvmError} `failed` when the guest cannot go on */
  start(): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.running) return;
    for (const [cpu, thread] of this.#threads.entries()) {
      thread.run().then(
        (exit) => this.#out(cpu, exit),
        (error) => this.#fail(error),
      );
    }
  }

  /** Stops every vCPU: none is in the guest when it returns. */
  stop(): void {
    for (const thread of this.#threads) thread.stop();
  }

  /** Heartbeats of one vCPU from number `from` on, as far as they are kept (the last 4096). */
  beats(cpu: number, from = 0): Beat[] {
    return this.#threads[cpu]?.beats(from) ?? [];
  }

  /** Resolves when it is known that the guest can go on. @throws {KvmError} `failed` when it cannot */
  async settled(): Promise<void> {
    // A vCPU that came out by itself is seen before its message says why.
    while (this.#failure === null && this.#threads.some((thread) => thread.endedUnasked)) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** Resolves when every vCPU has beaten `count` times in this process. @throws {KvmError} when the guest cannot go on */
  async untilBeats(count: number): Promise<void> {
    while (this.#threads.some((thread) => thread.beatCount < count)) {
      if (this.#failure !== null) throw this.#failure;
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** Checks the workload of each vCPU. Only while stopped. */
  check(): WorkloadCheck[] {
    return this.#vcpus.map((_, cpu) => checkWorkload(this.memory, cpu));
  }

  /** From here on writes of the guest are noted; what was written before is not in the logs. Also while it runs. */
  startDirtyLog(): MicroDirtyLog[] {
    return this.#logs ??= this.#slots.map(({ slot, firstPage }) => ({
      firstPage,
      log: this.#vm.startDirtyLog(slot),
    }));
  }

  /** Ends {@linkcode MicroVm.startDirtyLog}. */
  stopDirtyLog(): void {
    this.#logs = null;
    for (const { slot } of this.#slots) this.#vm.stopDirtyLog(slot);
  }

  /** Everything that is not RAM. Only while stopped. @throws {KvmError} `state` while it runs */
  saveState(): Uint8Array<ArrayBuffer> {
    if (this.running) throw new KvmError("state", "Cannot save the VM's state: it runs");
    const vcpus = saveVcpus(this.#vcpus, this.#state);
    const state = new Uint8Array(STATE_HEADER_BYTES + vcpus.length);
    const view = new DataView(state.buffer);
    view.setUint32(0, STATE_MAGIC, true);
    view.setUint32(4, STATE_VERSION, true);
    view.setUint32(8, Math.round(this.#paceMs * 1000), true);
    state.set(vcpus, STATE_HEADER_BYTES);
    return state;
  }

  /**
   * Takes the state of another micro-VM.
   *
   * @throws {KvmError} `state` while it runs, `stream` when it is malformed, `unsupported`, `system`
   */
  loadState(state: Uint8Array): void {
    if (this.running) throw new KvmError("state", "Cannot load a state: the VM runs");
    const view = new DataView(state.buffer, state.byteOffset, state.length);
    if (
      state.length < STATE_HEADER_BYTES || view.getUint32(0, true) !== STATE_MAGIC ||
      view.getUint32(4, true) !== STATE_VERSION
    ) {
      throw new KvmError("stream", "Cannot load a state: it is not one of a micro-VM");
    }
    const paceMs = view.getUint32(8, true) / 1000;
    if (paceMs > MAX_BEAT_MS) {
      throw new KvmError("stream", `Cannot load a state: heartbeats every ${paceMs} ms`);
    }
    loadVcpus(this.#vcpus, state.subarray(STATE_HEADER_BYTES), this.#state);
    this.#paceMs = paceMs;
    this.#applyPace();
  }

  /** Stops the vCPUs, ends their threads, closes the VM, unmaps its memory: views of it are empty then. */
  [Symbol.dispose](): void {
    this.onFailure = null;
    this.#resources.dispose();
  }

  #applyPace(): void {
    for (const thread of this.#threads) thread.paceMs = this.#paceMs * this.#slowdown;
  }

  #out(cpu: number, exit: VcpuExit): void {
    if (exit.kind === "interrupted") return;
    if (exit.kind === "io" && exit.direction === "out" && exit.port === ports.fault) {
      const vector = exit.data[0]!;
      const why = vector === 6 ? "its memory is not as it left it" : "nothing handles it";
      return this.#fail(
        new KvmError("failed", `Cannot run vCPU ${cpu}: exception ${vector} in the guest: ${why}`),
      );
    }
    this.#fail(exitError(`Cannot run vCPU ${cpu}`, exit));
  }

  #fail(error: KvmError): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.stop();
    this.onFailure?.(error);
  }
}

function checkMachine(memoryBytes: number, vcpuCount: number): void {
  if (
    !(memoryBytes >= MIN_MEMORY_BYTES && memoryBytes <= MAX_MEMORY_BYTES) ||
    memoryBytes % LARGE_PAGE_BYTES !== 0
  ) {
    throw new RangeError(
      `Cannot make a micro-VM of ${memoryBytes} bytes: a multiple of 2 MiB from 4 MiB to 4 GiB is needed`,
    );
  }
  if (!Number.isInteger(vcpuCount) || vcpuCount < 1 || vcpuCount > MAX_VCPUS) {
    throw new RangeError(`Cannot make a micro-VM with ${vcpuCount} vCPUs: 1 or 2 are possible`);
  }
  const { available } = Deno.systemMemoryInfo();
  if (memoryBytes > available) {
    const mebibytes = (bytes: number) => `${Math.floor(bytes / 2 ** 20)} MiB`;
    throw new KvmError(
      "unsupported",
      `Cannot make a micro-VM of ${mebibytes(memoryBytes)}: this host has ${
        mebibytes(available)
      } to give`,
    );
  }
}
