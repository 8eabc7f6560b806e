/**
 * The micro-VM that another arrives in: what the algorithm asks of a destination, by its shape.
 *
 * @module
 */

import { KvmError } from "../errors.ts";
import { checkPages, forEachRun } from "../page_runs.ts";
import type { QemuFacts } from "../qemu_facts.ts";
import type { SourceEnd } from "../qemu_source.ts";
import { checkSetup, microFacts, type MicroIdentity } from "./micro_setup.ts";
import type { MicroVm } from "./micro_vm.ts";

const PAGE_BYTES = 4096;

/** Where verified pages go: straight into the guest's memory. */
export class MicroSink {
  readonly #vm: MicroVm;
  readonly #loaded: () => void;
  readonly #words: BigInt64Array;
  #ready = false;

  /** `loaded` is called once the vCPUs are in their new state. */
  constructor(vm: MicroVm, loaded: () => void) {
    this.#vm = vm;
    this.#loaded = loaded;
    this.#words = new BigInt64Array(vm.memory.buffer);
  }

  /** What precedes the first page. @throws {KvmError} `stream` when it is another machine's */
  setup(bytes: Uint8Array): void {
    checkSetup(bytes, this.#vm);
    this.#ready = true;
  }

  /** Page number `pages[i]` gets `bytes[4096 i .. 4096 i + 4095]`. @throws {RangeError} when there is no such page */
  pages(block: number, pages: Uint32Array, bytes: Uint8Array): void {
    this.#check(block);
    checkPages(pages, bytes);
    forEachRun(pages, this.#pageCount, ({ first, count }, index) => {
      this.#vm.memory.set(
        bytes.subarray(index * PAGE_BYTES, (index + count) * PAGE_BYTES),
        first * PAGE_BYTES,
      );
    });
  }

  /** Makes pages all zeros. @throws {RangeError} when there is no such page */
  zeros(block: number, pages: Uint32Array): void {
    this.#check(block);
    forEachRun(pages, this.#pageCount, ({ first, count }) => {
      for (let page = first; page < first + count; page++) {
        const words = this.#words.subarray(page * PAGE_BYTES / 8, (page + 1) * PAGE_BYTES / 8);
        // Memory that was never touched stays so.
        if (words.some((word) => word !== 0n)) words.fill(0n);
      }
    });
  }

  /** The vCPUs' state. @throws {KvmError} as `MicroVm.loadState` */
  load(state: Uint8Array): Promise<void> {
    this.#check(0);
    this.#vm.loadState(state);
    this.#loaded();
    return Promise.resolve();
  }

  /** Takes no more. */
  close(): void {
    this.#ready = false;
  }

  get #pageCount(): number {
    return this.#vm.memory.length / PAGE_BYTES;
  }

  #check(block: number): void {
    if (!this.#ready) {
      throw new KvmError("state", "Cannot land in the micro-VM: nothing was set up");
    }
    if (block !== 0) throw new RangeError(`Cannot land in block ${block}: there is one`);
  }
}

/** One incoming migration of a micro-VM. */
export class MicroDestination {
  /** What the VM is. */
  readonly facts: QemuFacts;
  /** Called at most once, when the guest cannot go on. */
  onEnd: ((end: SourceEnd) => void) | null = null;
  /** Whether it ran, however it stands now. */
  hasRun = false;

  readonly #vm: MicroVm;
  #state: "inmigrate" | "paused" | "running" | "gone" = "inmigrate";

  /** Takes a fresh machine that was not booted. @throws {KvmError} `state` when it runs */
  constructor(vm: MicroVm, identity: MicroIdentity = {}) {
    if (vm.running) throw new KvmError("state", "Cannot take a VM in here: one runs");
    this.#vm = vm;
    this.facts = microFacts(vm, identity);
    vm.onFailure = ({ message }) => this.onEnd?.({ kind: "failed", text: message });
  }

  /** Its memory is this process's own. */
  probe(): Promise<{ landing: string; notes: string[] }> {
    return Promise.resolve({ landing: "mapped", notes: [] });
  }

  /** Where pages go. */
  open(): Promise<MicroSink> {
    return Promise.resolve(new MicroSink(this.#vm, () => this.#state = "paused"));
  }

  /** Runs the loaded VM. @returns the monotonic ms of it @throws {KvmError} `state` when nothing was loaded */
  run(): Promise<number> {
    if (this.#state !== "paused") {
      throw new KvmError("state", `Cannot run the VM: it is ${this.#state}`);
    }
    this.#vm.start();
    this.hasRun = true;
    this.#state = "running";
    return Promise.resolve(performance.now());
  }

  /** It has no network. */
  announce(): Promise<void> {
    return Promise.resolve();
  }

  /** Its run state now. */
  status(): Promise<string> {
    return Promise.resolve(this.#state);
  }

  /** Ends the VM. */
  quit(): Promise<void> {
    this.#vm[Symbol.dispose]();
    this.#state = "gone";
    return Promise.resolve();
  }

  /** Nothing was changed. */
  restore(): Promise<void> {
    return Promise.resolve();
  }

  /** The VM is threads of this process: what it uses is in the agent's own figure. */
  cpuSeconds(): number | null {
    return null;
  }
}
