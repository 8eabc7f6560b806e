/**
 * A destination QEMU without QEMU: waits in `inmigrate`, takes pages, loads when it was given EOF, runs on `cont`.
 *
 * @module
 */

import type {
  DestinationVm,
  LandingProbe,
  PageSink,
  VmEnd,
  VmFacts,
} from "../../migration/ports.ts";
import type { FakeClock } from "./fake_clock.ts";
import { Random } from "./random.ts";
import { simulatedFacts } from "./simulated_source.ts";
import type { SimulatedWorld } from "./simulated_world.ts";

const PAGE_BYTES = 4096;

/** What a simulated destination is like. */
export interface SimulatedDestinationOptions {
  world: SimulatedWorld;
  clock: FakeClock;
  seed: number;
  pageCounts: readonly number[];
  /** Own number of each of the source's blocks; the same without it. */
  blockOrder?: readonly number[];
  /** How often `cont` answers an error before it works. */
  runFails?: number;
  /** The first `cont` works, and its answer is lost. */
  runAnswerLost?: boolean;
  loadFails?: string;
  probeFails?: string;
  /** Time that landing a record takes. */
  paceMs?: number;
  /** Time that landing a record takes, during which nothing else is done. */
  busyMs?: number;
}

/** See the module. */
export class SimulatedDestination implements DestinationVm {
  readonly facts: VmFacts;
  onEnd: ((end: VmEnd) => void) | null = null;
  /** In the order of its own blocks. */
  readonly memory: Uint8Array[];
  setup: Uint8Array | null = null;
  /** Sinks not closed yet. */
  openSinks = 0;
  opened = 0;
  /** Its settings are those of a migration. */
  prepared = false;
  probed = 0;
  announced = 0;
  runs = 0;
  readonly #world: SimulatedWorld;
  readonly #clock: FakeClock;
  readonly #random: Random;
  readonly #options: SimulatedDestinationOptions;
  readonly #order: readonly number[];
  /** How often `cont` answers an error before it works. */
  runFails: number;
  /** Its incoming side has a byte. */
  touched = false;
  #state: Uint8Array | null = null;
  #endIsNews = true;

  constructor(options: SimulatedDestinationOptions) {
    this.#options = options;
    this.runFails = options.runFails ?? 0;
    this.#world = options.world;
    this.#clock = options.clock;
    this.#random = new Random(options.seed);
    const facts = simulatedFacts(options.pageCounts);
    this.#order = options.blockOrder ?? options.pageCounts.map((_, i) => i);
    const blocks = [...facts.blocks];
    this.#order.forEach((own, theirs) => blocks[own] = facts.blocks[theirs]!);
    this.facts = { ...facts, blocks };
    this.memory = blocks.map(({ bytes }) => this.#random.fill(new Uint8Array(bytes)));
  }

  get hasRun(): boolean {
    return this.#world.destinationRan;
  }

  async probe(): Promise<LandingProbe> {
    this.probed++;
    await this.#clock.sleep(1);
    if (this.#options.probeFails !== undefined) throw new Error(this.#options.probeFails);
    return { landing: "simulated", notes: [] };
  }

  async open(): Promise<PageSink> {
    if (this.opened++ > 0) throw new Error("a VM is taken in already");
    await this.#clock.sleep(1);
    if (this.#world.destination !== "inmigrate") throw new Error("QEMU is gone");
    this.openSinks++;
    this.prepared = true;
    return this.#sink();
  }

  async run(): Promise<number> {
    this.runs++;
    await this.#clock.sleep(1);
    if (this.#world.destination === "running") return this.#clock.now();
    if (this.#world.destination !== "paused" && this.#world.destination !== "prelaunch") {
      throw new Error(`QEMU is ${this.#world.destination}`);
    }
    if (this.runs <= this.runFails) throw new Error('failed to get "write" lock');
    this.#world.destinationRuns(this.#copy());
    if (this.#options.runAnswerLost) throw new Error("no answer came");
    return this.#clock.now();
  }

  announce(): Promise<void> {
    this.announced++;
    return Promise.resolve();
  }

  status(): Promise<string> {
    return Promise.resolve(this.#world.destination);
  }

  async quit(): Promise<void> {
    this.#endIsNews = false;
    if (this.#world.destination === "running") this.#world.violate("a running VM was ended");
    await this.#clock.sleep(1);
    this.#dies("has quit");
  }

  restore(): Promise<void> {
    this.prepared = false;
    return Promise.resolve();
  }

  cpuSeconds(): number | null {
    return this.#world.destination === "gone" ? null : 1;
  }

  // ---- what a test does to it ----

  /** Its process is killed. */
  kill(): void {
    if (this.#world.destination === "gone") return;
    this.#dies("is killed");
    this.#end({ kind: "gone" });
  }

  /** Its agent is no more: the kernel closes the stream. */
  agentExits(): void {
    this.#endIsNews = false;
    this.#streamCloses();
  }

  /** A VM that did not run before is taken without running: whether it is all there. */
  checkTaken(): void {
    this.#world.checkCopy(this.#copy());
  }

  #copy() {
    return {
      blocks: this.#order.map((own) => this.memory[own]!),
      state: this.#state ?? new Uint8Array(),
    };
  }

  #sink(): PageSink {
    let closed = false;
    const check = () => {
      if (closed) throw new Error("the stream to QEMU is closed");
      if (this.#world.destination === "gone") throw new Error("QEMU is gone");
    };
    return {
      setup: async (bytes) => {
        check();
        this.touched = true;
        this.setup = bytes.slice();
        await this.#clock.sleep(1);
        check();
      },
      pages: (block, pages, bytes) => {
        check();
        if (bytes.length !== pages.length * PAGE_BYTES) this.#world.violate("pages without bytes");
        return this.#later(() => {
          pages.forEach((page, i) =>
            this.#land(block, page, bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES))
          );
        });
      },
      zeros: (block, pages) => {
        check();
        return this.#later(() =>
          pages.forEach((page) => this.#land(block, page, new Uint8Array(PAGE_BYTES)))
        );
      },
      load: async (state) => {
        check();
        // From here QEMU has EOF: it loads whatever becomes of its stream.
        this.#state = state.slice();
        await this.#clock.sleep(2);
        if (this.#world.destination === "gone") throw new Error("QEMU is gone");
        if (this.#options.loadFails !== undefined) {
          this.#dies("cannot load");
          throw new Error(this.#options.loadFails);
        }
        this.#world.destination = this.#world.before === "prelaunch" ? "prelaunch" : "paused";
        this.#world.destinationLoaded = true;
        this.#world.note("the destination is loaded");
      },
      close: () => {
        if (!closed) this.openSinks--;
        closed = true;
        this.#streamCloses();
      },
    };
  }

  /** Now, or a moment later: the views have to last until then. */
  #later(land: () => void): void | Promise<void> {
    const { paceMs, busyMs } = this.#options;
    if (busyMs !== undefined) {
      this.#clock.pass(busyMs);
      return land();
    }
    if (paceMs === undefined && !this.#random.oneIn(3)) return land();
    return this.#clock.sleep(paceMs ?? 1).then(land);
  }

  #land(block: number, page: number, bytes: Uint8Array): void {
    const memory = this.memory[block];
    if (memory === undefined || (page + 1) * PAGE_BYTES > memory.length) {
      return this.#world.violate(`page ${page} of block ${block} lands outside the VM`);
    }
    if (this.#world.destination === "running") this.#world.violate("a page lands in a running VM");
    memory.set(bytes, page * PAGE_BYTES);
  }

  #streamCloses(): void {
    // A QEMU that was given a byte and not all of them fails.
    if (this.touched && this.#state === null) this.#dies("has lost its stream");
  }

  #dies(how: string): void {
    if (this.#world.destination === "gone") return;
    this.#world.destination = "gone";
    this.#world.note(`the destination's QEMU ${how}`);
  }

  #end(end: VmEnd): void {
    if (!this.#endIsNews) return;
    this.#endIsNews = false;
    this.onEnd?.(end);
  }
}
