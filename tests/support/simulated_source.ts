/**
 * A source QEMU without QEMU: memory that its guest writes to, a stream of it in rounds, and QEMU's behaviour at the
 * switchover as PROTOCOL.md section 7 has it.
 *
 * @module
 */

import type {
  LiveSettings,
  MigrationCounters,
  PageEvents,
  PageSource,
  SourceVm,
  StateBefore,
  VmEnd,
  VmFacts,
  VmProgress,
} from "../../migration/ports.ts";
import type { FakeClock } from "./fake_clock.ts";
import { Random } from "./random.ts";
import type { SimulatedWorld } from "./simulated_world.ts";

const PAGE_BYTES = 4096;

/** Facts of a small VM. */
export function simulatedFacts(pageCounts: readonly number[]): VmFacts {
  return {
    name: "simulated",
    uuid: "4dcb1f4e-31d6-4e0c-9d5b-3d0f6bb1f2a7",
    machine: "pc-q35-7.2",
    qemuVersion: "7.2.22",
    memoryBytes: pageCounts.reduce((sum, count) => sum + count * PAGE_BYTES, 0),
    blocks: pageCounts.map((count, i) => ({ name: `block${i}`, bytes: count * PAGE_BYTES })),
    capabilities: [],
    localDrives: [],
    process: { pid: 1000, startTime: "12345", bootId: "00000000-0000-0000-0000-000000000001" },
  };
}

/** What a simulated source is like. */
export interface SimulatedSourceOptions {
  world: SimulatedWorld;
  clock: FakeClock;
  seed: number;
  /** 4 KiB pages of each block. */
  pageCounts: readonly number[];
  /** Rounds with the VM running, the first included. */
  liveRounds?: number;
  setupBytes?: number;
  stateBytes?: number;
  /** Time that passes before each piece of the stream: 1 if it is not said. */
  paceMs?: number;
  /** The guest writes to a page for each that is read. */
  busy?: boolean;
}

/** See the module. */
export class SimulatedSource implements SourceVm {
  readonly facts: VmFacts;
  readonly before: StateBefore;
  stoppedAtMs: number | null = null;
  /** When it ran again by itself. */
  ranAgainAtMs: number | null = null;
  onEnd: ((end: VmEnd) => void) | null = null;
  readonly memory: Uint8Array[];
  readonly setup: Uint8Array;
  readonly state: Uint8Array;
  readonly live: LiveSettings[] = [];
  /** Why `cont` fails; it does not while it is null. */
  resumeFails: string | null = null;
  /** Why neither `release` nor `cancel` can tell; they can while it is null. */
  monitorLost: string | null = null;
  readonly #world: SimulatedWorld;
  readonly #clock: FakeClock;
  readonly #random: Random;
  readonly #options: SimulatedSourceOptions;
  #resumed = false;
  #released = false;
  #leavingIsNews = false;
  #stream: SimulatedStream | null = null;
  #quitting = false;

  constructor(options: SimulatedSourceOptions) {
    this.#options = options;
    this.#world = options.world;
    this.#clock = options.clock;
    this.#random = new Random(options.seed);
    this.before = options.world.before;
    this.facts = simulatedFacts(options.pageCounts);
    this.memory = options.pageCounts.map((count) => new Uint8Array(count * PAGE_BYTES));
    this.memory.forEach((block, i) => {
      for (let page = 0; page < options.pageCounts[i]!; page++) {
        if (!this.#random.oneIn(4)) this.#write(block, page);
      }
    });
    this.setup = this.#random.fill(new Uint8Array(options.setupBytes ?? 300));
    this.state = this.#random.fill(new Uint8Array(options.stateBytes ?? 700));
  }

  get hasRun(): boolean {
    return this.#released && this.#world.sourceRanOn && !this.#resumed;
  }

  async start(settings: LiveSettings): Promise<PageSource> {
    this.live.push(settings);
    await this.#clock.sleep(1);
    if (this.#world.source === "gone") throw new Error("QEMU is gone");
    this.#leavingIsNews = true;
    this.#stream = new SimulatedStream(this, {
      random: this.#random,
      clock: this.#clock,
      liveRounds: this.#options.liveRounds ?? 2,
      paceMs: this.#options.paceMs ?? 1,
      busy: this.#options.busy ?? false,
    });
    return this.#stream;
  }

  tune(settings: LiveSettings): Promise<void> {
    this.live.push(settings);
    return Promise.resolve();
  }

  progress(): Promise<VmProgress | null> {
    return Promise.resolve(null);
  }

  counters(): Promise<MigrationCounters> {
    if (this.#world.source === "gone") return Promise.reject(new Error("QMP has closed"));
    return Promise.resolve({ dirtySyncCount: 3, normal: 100, duplicate: 20 });
  }

  status(): Promise<string> {
    return Promise.resolve(this.#world.source);
  }

  async release(): Promise<"stopped" | "gone" | "resumed"> {
    this.#leavingIsNews = false;
    this.#released = true;
    const stream = this.#stream!;
    // SHUT(0) reaches a QEMU that still waits for it; QEMU has read it a moment later.
    const waiting = this.#world.source === "finish-migrate" && !stream.closed;
    await this.#clock.sleep(1);
    if (waiting && this.#world.source === "finish-migrate") {
      this.#world.source = "postmigrate";
      this.#world.note("SHUT(0) read");
    }
    await this.#clock.sleep(1);
    if (this.monitorLost !== null) throw new Error(this.monitorLost);
    // Seen in postmigrate, and query-migrate says completed.
    if (this.#world.source === "postmigrate" && !this.#world.sourceStandsAgain) return "stopped";
    return this.#world.source === "gone" && !this.#resumed ? "gone" : "resumed";
  }

  async cancel(): Promise<
    "running" | "paused" | "prelaunch" | "postmigrate" | "gone" | "goneAfterResume"
  > {
    this.#leavingIsNews = false;
    this.#stream?.close();
    while (this.#world.source === "finish-migrate") await this.#clock.sleep(5);
    await this.#clock.sleep(1);
    if (this.monitorLost !== null) throw new Error(this.monitorLost);
    const { source } = this.#world;
    if (source === "gone") return this.#resumed ? "goneAfterResume" : "gone";
    if (source === "inmigrate") throw new Error("a source waits for no migration");
    return source;
  }

  async resume(): Promise<void> {
    await this.#clock.sleep(1);
    if (this.resumeFails !== null) throw new Error(this.resumeFails);
    if (this.#world.source !== "postmigrate") throw new Error("QEMU is not in postmigrate");
    this.#resumed = true;
    this.#world.sourceRuns("cont");
  }

  async quit(): Promise<void> {
    this.#quitting = true;
    if (this.#world.source === "running") this.#world.violate("a running VM was ended");
    await this.#clock.sleep(1);
    this.#world.source = "gone";
    this.#world.note("the source's QEMU has quit");
  }

  restore(): Promise<void> {
    return Promise.resolve();
  }

  cpuSeconds(): number | null {
    return this.#world.source === "gone" ? null : 1;
  }

  // ---- what a test does to it ----

  /** Its process is killed. */
  kill(): void {
    if (this.#world.source === "gone") return;
    this.#world.source = "gone";
    this.#world.note("the source's QEMU is killed");
    this.#stream?.fail();
    const text = "it ran again, and is gone since";
    const ran = this.#resumed || this.hasRun;
    this.#end(ran ? { kind: "resumed", text, gone: true } : { kind: "gone" });
  }

  /** Somebody's `cont`. */
  runByOthers(): void {
    this.#world.sourceRuns("somebody's cont");
    if (this.hasRun) this.onEnd?.({ kind: "resumed", text: "somebody else made the VM run" });
  }

  /** Somebody cancels its migration; QEMU is asked why it left before that is told, and may be killed meanwhile. */
  cancelByOthers(): void {
    this.#stream?.fail();
    this.backToBefore("somebody's migrate_cancel");
    void this.#clock.sleep(3).then(() => this.#end({ kind: "resumed", text: "cancelled" }));
  }

  /** Its agent is no more: the kernel closes the stream. */
  async agentExits(): Promise<void> {
    this.#stream?.close();
    await this.settled();
  }

  /** Resolves when it is not on its way anywhere. */
  async settled(): Promise<void> {
    while (this.#world.source === "finish-migrate") await this.#clock.sleep(5);
  }

  // ---- what the stream does ----

  /** The guest writes to so many pages, if it runs. @returns those pages, as block and page */
  guestWrites(count: number): [number, number][] {
    const written: [number, number][] = [];
    if (this.#world.source !== "running") return written;
    for (let i = 0; i < count; i++) {
      const block = this.#random.below(this.memory.length);
      const page = this.#random.below(this.#options.pageCounts[block]!);
      if (this.#random.oneIn(6)) {
        this.memory[block]!.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
      } else this.#write(this.memory[block]!, page);
      written.push([block, page]);
    }
    return written;
  }

  /** The VM stops for the last round. */
  stop(): void {
    if (this.#world.source === "gone") return;
    if (this.before === "running") this.stoppedAtMs = this.#clock.now();
    this.#world.source = "finish-migrate";
    this.#world.captured = {
      blocks: this.memory.map((block) => block.slice()),
      state: this.state,
    };
    this.#world.note("the source has stopped");
  }

  /** QEMU saw its migration fail. */
  backToBefore(how: string): void {
    if (this.#world.source !== "finish-migrate") return;
    if (this.before === "running") {
      this.#resumed = true;
      this.stoppedAtMs = null;
      this.ranAgainAtMs = this.#clock.now();
      this.#world.sourceRuns(how);
      this.guestWrites(1);
    } else {
      // QEMU 7.2 leaves such a VM in postmigrate: its owner's `cont` works.
      this.#world.source = this.#random.oneIn(2) ? "postmigrate" : this.before;
      this.#world.sourceStandsAgain = true;
      this.#world.note(`the source stands as before: ${how}`);
    }
  }

  #write(block: Uint8Array, page: number): void {
    for (let i = 0; i < 8; i++) {
      block[page * PAGE_BYTES + this.#random.below(PAGE_BYTES)] = 1 + this.#random.below(255);
    }
  }

  #end(end: VmEnd): void {
    if (!(this.#leavingIsNews || this.#released) || this.#quitting) return;
    this.#leavingIsNews = false;
    this.onEnd?.(end);
  }
}

type Said =
  | { kind: "setup"; bytes: Uint8Array }
  | { kind: "page"; block: number; page: number }
  | { kind: "stopped" }
  | { kind: "state"; bytes: Uint8Array };

/** The stream of one migration, handed out in pieces of random size. */
class SimulatedStream implements PageSource {
  readonly #vm: SimulatedSource;
  readonly #random: Random;
  readonly #clock: FakeClock;
  readonly #paceMs: number;
  readonly #said: Generator<Said>;
  /** Pages are read into here, and what lay here before is lost. */
  readonly #buffer = new Uint8Array(64 * PAGE_BYTES);
  #closedOrFailed = Promise.withResolvers<never>();
  closed = false;

  constructor(
    vm: SimulatedSource,
    options: {
      random: Random;
      clock: FakeClock;
      liveRounds: number;
      paceMs: number;
      busy: boolean;
    },
  ) {
    this.#vm = vm;
    this.#random = options.random;
    this.#clock = options.clock;
    this.#paceMs = options.paceMs;
    this.#said = this.#say(options);
    this.#closedOrFailed.promise.catch(() => {});
  }

  async next(events: PageEvents): Promise<boolean> {
    if (this.#paceMs > 0) await Promise.race([this.#clock.sleep(this.#paceMs), this.#ended]);
    await Promise.race([Promise.resolve(), this.#ended]);
    this.#buffer.fill(0xee);
    let more = true;
    const count = 1 + this.#random.below(40);
    for (let i = 0; i < count; i++) {
      const next = this.#said.next();
      if (next.done) {
        more = false;
        break;
      }
      this.#handOut(next.value, events, i);
    }
    events.drained();
    this.#buffer.fill(0xdd);
    return more;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.#closedOrFailed.reject(new Error("the stream was closed"));
    this.#clock.sleep(3).then(() => this.#vm.backToBefore("its stream was closed"));
  }

  /** The other end is gone. */
  fail(): void {
    this.#closedOrFailed.reject(new Error("the stream ended early"));
  }

  get #ended(): Promise<never> {
    return this.#closedOrFailed.promise;
  }

  #handOut(said: Said, events: PageEvents, at: number): void {
    switch (said.kind) {
      case "setup":
        return events.setup(said.bytes.slice());
      case "state":
        return events.state(said.bytes.slice());
      case "stopped":
        return events.stopped();
      case "page": {
        const { block, page } = said;
        const from = this.#vm.memory[block]!.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
        if (from.every((byte) => byte === 0)) return events.zero(block, page);
        const bytes = this.#buffer.subarray(at * PAGE_BYTES, (at + 1) * PAGE_BYTES);
        bytes.set(from);
        return events.page(block, page, bytes);
      }
    }
  }

  *#say({ liveRounds, busy }: { liveRounds: number; busy: boolean }): Generator<Said> {
    const vm = this.#vm;
    yield* this.#pieces("setup", vm.setup);
    let dirty = new Set<string>();
    vm.memory.forEach((block, b) => {
      for (let page = 0; page < block.length / PAGE_BYTES; page++) dirty.add(`${b}:${page}`);
    });
    for (let round = 0; round < liveRounds; round++) {
      const later = new Set<string>();
      for (const key of dirty) {
        const [block, page] = parse(key);
        yield { kind: "page", block, page };
        const writes = busy || this.#random.oneIn(3) ? 1 : 0;
        for (const [b, p] of vm.guestWrites(writes)) later.add(`${b}:${p}`);
      }
      dirty = later;
    }
    vm.stop();
    yield { kind: "stopped" };
    for (const key of dirty) {
      const [block, page] = parse(key);
      yield { kind: "page", block, page };
    }
    yield* this.#pieces("state", vm.state);
  }

  *#pieces(kind: "setup" | "state", bytes: Uint8Array): Generator<Said> {
    for (let at = 0; at < bytes.length;) {
      const count = 1 + this.#random.below(bytes.length - at);
      yield { kind, bytes: bytes.subarray(at, at + count) };
      at += count;
    }
  }
}

function parse(key: string): [number, number] {
  const [block, page] = key.split(":").map(Number);
  return [block!, page!];
}
