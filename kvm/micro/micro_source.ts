/**
 * The micro-VM that leaves: what the algorithm asks of a source, by its shape.
 *
 * @module
 */

import { KvmError } from "../errors.ts";
import type { LiveParameters } from "../live_parameters.ts";
import type { QemuFacts } from "../qemu_facts.ts";
import type { SourceCounters, SourceEnd, SourceProgress } from "../qemu_source.ts";
import { MicroPageSource } from "./micro_page_source.ts";
import { microFacts, type MicroIdentity } from "./micro_setup.ts";
import type { MicroVm } from "./micro_vm.ts";

const PAGE_BYTES = 4096;

/**
 * One outgoing migration of a micro-VM.
 *
 * @example
 * ```ts
 * import { MicroSource } from "./micro_source.ts";
 * import { MicroVm } from "./micro_vm.ts";
 *
 * export async function countPages(vm: MicroVm): Promise<number> {
 *   const source = new MicroSource(vm);
 *   using pages = await source.start({});
 *   const nothing = () => {};
 *   const events = { setup: nothing, page: nothing, zero: nothing, stopped: nothing };
 *   while (await pages.next({ ...events, state: nothing, drained: nothing }));
 *   await source.cancel();
 *   return pages.normal + pages.duplicate;
 * }
 * ```
 */
export class MicroSource {
  /** What the VM is. */
  readonly facts: QemuFacts;
  /** Whether it ran when it was attached. */
  readonly before: "running" | "paused";
  /** Called at most once, when the guest cannot go on. */
  onEnd: ((end: SourceEnd) => void) | null = null;
  /** Nobody else can run it. */
  readonly hasRun = false;

  readonly #vm: MicroVm;
  #stream: MicroPageSource | null = null;
  #state: "running" | "paused" | "finish-migrate" | "postmigrate" | "gone";
  #stoppedAtMs: number | null = null;
  #ended = false;

  /** Takes hold of a VM; changes nothing in it. */
  constructor(vm: MicroVm, identity: MicroIdentity = {}) {
    this.#vm = vm;
    this.facts = microFacts(vm, identity);
    this.before = this.#state = vm.running ? "running" : "paused";
  }

  /** Monotonic ms of the stop for the last round; null before it, and for a VM that did not run. */
  get stoppedAtMs(): number | null {
    return this.#stoppedAtMs;
  }

  /** Starts the outgoing migration. @throws {KvmError} `state` when it was started, `failed` when the guest cannot go on */
  start(settings: LiveParameters): Promise<MicroPageSource> {
    if (this.#stream !== null) {
      throw new KvmError("state", "Cannot migrate this VM: it was started once");
    }
    if (this.#vm.failure !== null) throw this.#vm.failure;
    this.#vm.onFailure = ({ message }) => {
      this.#state = "paused";
      this.#end({ kind: "failed", text: message });
    };
    this.#stream = new MicroPageSource(this.#vm, {
      settings,
      hooks: { stop: () => this.#stop() },
    });
    return Promise.resolve(this.#stream);
  }

  /** Changes settings of the live phase. */
  tune(settings: LiveParameters): Promise<void> {
    this.#stream?.tune(settings);
    return Promise.resolve();
  }

  /** How far it is. */
  progress(): Promise<SourceProgress | null> {
    const stream = this.#stream;
    return Promise.resolve(
      stream === null ? null : {
        remainingBytes: stream.remainingPages * PAGE_BYTES,
        expectedDowntimeMs: stream.expectedDowntimeMs,
        dirtyPagesPerSecond: stream.dirtyPagesPerSecond,
        dirtySyncCount: stream.dirtySyncCount,
      },
    );
  }

  /** What it has handed out. */
  counters(): Promise<SourceCounters> {
    const { dirtySyncCount = 0, normal = 0, duplicate = 0 } = this.#stream ?? {};
    return Promise.resolve({ dirtySyncCount, normal, duplicate });
  }

  /** Its run state now. */
  status(): Promise<string> {
    return Promise.resolve(this.#state);
  }

  /** From here on it does not run by itself. */
  release(): Promise<"stopped" | "gone" | "resumed"> {
    if (this.#state === "gone") return Promise.resolve("gone");
    if (this.#state !== "finish-migrate") return Promise.resolve("resumed");
    this.#state = "postmigrate";
    this.#stream?.close();
    return Promise.resolve("stopped");
  }

  /** Ends the migration: a VM that ran runs again, unless it was released, or its guest cannot go on (`paused`). */
  async cancel(): Promise<"running" | "paused" | "postmigrate" | "gone"> {
    this.#ended = true;
    this.#stream?.close();
    const failed = await this.#vm.settled().then(() => false, () => true);
    if (this.#state !== "running" && this.#state !== "finish-migrate") return this.#state;
    if (!failed && this.before === "running") return this.#run();
    return this.#state = "paused";
  }

  /** Lets a VM in `postmigrate` run again. @throws {KvmError} `state` in another state, `failed` when the guest cannot go on */
  resume(): Promise<void> {
    if (this.#state !== "postmigrate") {
      throw new KvmError("state", `Cannot run the VM again: it is ${this.#state}`);
    }
    this.#run();
    return Promise.resolve();
  }

  /** Ends the VM. */
  quit(): Promise<void> {
    this.#ended = true;
    this.#stream?.close();
    this.#vm[Symbol.dispose]();
    this.#state = "gone";
    return Promise.resolve();
  }

  /** No log and no slowdown any more. */
  restore(): Promise<void> {
    if (this.#state === "gone") return Promise.resolve();
    this.#vm.stopDirtyLog();
    this.#vm.slowdown = 1;
    return Promise.resolve();
  }

  /** The VM is threads of this process: what it uses is in the agent's own figure. */
  cpuSeconds(): number | null {
    return null;
  }

  #stop(): void {
    this.#vm.stop();
    if (this.before === "running") this.#stoppedAtMs = performance.now();
    this.#state = "finish-migrate";
  }

  #run(): "running" {
    this.#vm.slowdown = 1;
    this.#vm.start();
    this.#stoppedAtMs = null;
    return this.#state = "running";
  }

  #end(end: SourceEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    this.onEnd?.(end);
  }
}
