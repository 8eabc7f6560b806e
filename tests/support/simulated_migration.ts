/**
 * Two agents, two simulated QEMUs and the way between them, in one process; what may never happen is checked while it
 * runs and once it has ended.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type CipherRegistry, defaultRegistry } from "../../ciphers/registry.ts";
import { Destination } from "../../migration/destination.ts";
import { generateIdentity, type Identity } from "../../migration/identity.ts";
import type { MigrationLimits, SuiteOffers } from "../../migration/messages.ts";
import type { OfferJudge } from "../../migration/offer_answer.ts";
import type { StateBefore } from "../../migration/ports.ts";
import type { MigrationResult } from "../../migration/result.ts";
import { Source } from "../../migration/source.ts";
import type { DestinationState, SourceState } from "../../migration/states.ts";
import { FakeClock } from "./fake_clock.ts";
import { type Fault, FaultInjector, type Unit } from "./fault_injector.ts";
import { Loopback } from "./loopback.ts";
import { MemoryJournals } from "./memory_journal.ts";
import { Mortal } from "./mortal.ts";
import { SimulatedDestination, type SimulatedDestinationOptions } from "./simulated_destination.ts";
import { SimulatedSource, type SimulatedSourceOptions } from "./simulated_source.ts";
import { SimulatedWorld } from "./simulated_world.ts";

// Opened here: a library that a test opens would count as its leak.
const sharedRegistry = defaultRegistry();

/** Keys of the two hosts and of a third one, made once. */
export const identities: { source: Identity; destination: Identity; stranger: Identity } = {
  source: await generateIdentity(),
  destination: await generateIdentity(),
  stranger: await generateIdentity(),
};

/** One suite for every class of pages. */
export function everyClass(...ids: string[]): SuiteOffers {
  return { user: ids, kernelText: ids, kernelData: ids, unmapped: ids };
}

/** Limits as the command line has them, the window apart. */
export const usualLimits: MigrationLimits = {
  reconnectMs: 120_000,
  maxStopMs: 5_000,
  repairBudgetBytes: 64 * 2 ** 20,
  windowBytes: 2 ** 20,
};

/** What happens during a migration, besides itself. */
export interface SimulatedMigrationOptions {
  before?: StateBefore;
  seed?: number;
  pageCounts?: readonly number[];
  source?: Partial<SimulatedSourceOptions>;
  destination?: Partial<SimulatedDestinationOptions>;
  /** Changes what the destination is before it is asked. */
  prepare?: (run: SimulatedMigration) => void;
  fault?: (unit: Unit) => Fault | undefined;
  /** Whether nobody answers a dial just now: at once, or never. */
  dialFails?: (run: SimulatedMigration) => boolean | "hangs";
  sourceEntered?: (state: SourceState, run: SimulatedMigration) => void | Promise<void>;
  destinationEntered?: (state: DestinationState, run: SimulatedMigration) => void | Promise<void>;
  sourceDiskFails?: (append: number) => boolean;
  destinationDiskFails?: (append: number) => boolean;
  limits?: Partial<MigrationLimits>;
  suites?: { source?: SuiteOffers; destination?: SuiteOffers };
  registry?: CipherRegistry;
  peer?: Uint8Array;
  sourceIdentity?: Identity;
  sourceOptions?: {
    dryRun?: boolean;
    keepSource?: boolean;
    maxTimeMs?: number;
    maxRounds?: number;
    vmId?: string;
    askTamper?: (text: string) => Promise<boolean>;
    onNote?: (text: string) => void;
    onTamper?: (text: string) => void;
    onRound?: () => void;
    operatorSignal?: AbortSignal;
  };
  /** Called with each note of the destination, besides what keeps them. */
  destinationNoted?: (text: string) => void;
  /** What the destination lets be sent again. */
  repairBudgetBytes?: number;
  destinationVmId?: string;
  /** The destination's policy. */
  judge?: OfferJudge;
  /** Ends `receive` when the source has ended without binding it. */
  endsListening?: boolean;
}

/** See the module. */
export class SimulatedMigration implements AsyncDisposable {
  readonly clock = new FakeClock();
  readonly world: SimulatedWorld;
  readonly sourceVm: SimulatedSource;
  readonly destinationVm: SimulatedDestination;
  readonly sourceJournals: MemoryJournals;
  readonly destinationJournals: MemoryJournals;
  /** Where the destination's agent listens. */
  loopback: Loopback;
  readonly injector: FaultInjector;
  readonly stopSource = new AbortController();
  readonly stopDestination = new AbortController();
  readonly notes: string[] = [];
  readonly sourceAgent = new Mortal();
  readonly destinationAgent = new Mortal();
  readonly source: Source;
  readonly destination: Destination;
  /** A QEMU was killed, or somebody else interfered with it. */
  meddled = false;
  readonly #endsListening: boolean;

  constructor(options: SimulatedMigrationOptions = {}) {
    const { seed = 1, pageCounts = [40, 9], clock } = { ...options, clock: this.clock };
    this.#endsListening = options.endsListening ?? true;
    const world = this.world = new SimulatedWorld(options.before ?? "running");
    this.sourceVm = new SimulatedSource({ world, clock, seed, pageCounts, ...options.source });
    this.destinationVm = new SimulatedDestination({
      world,
      clock,
      seed: seed + 1,
      pageCounts,
      ...options.destination,
    });
    this.sourceJournals = new MemoryJournals({
      ...(options.sourceDiskFails === undefined ? {} : { fails: options.sourceDiskFails }),
      onLine: (entry) => world.sourceJournals(entry),
    });
    this.destinationJournals = new MemoryJournals({
      ...(options.destinationDiskFails === undefined
        ? {}
        : { fails: options.destinationDiskFails }),
      onLine: (entry) => world.destinationJournals(entry),
    });
    this.loopback = new Loopback({ seed });
    this.injector = new FaultInjector({
      dial: () => this.loopback.dial(),
      plan: options.fault ?? (() => undefined),
      clock,
    });
    options.prepare?.(this);
    const registry = options.registry ?? sharedRegistry;
    const suites = everyClass("aes-256-gcm", "chacha20-poly1305", "aes-128-gcm");
    this.source = new Source({
      vm: this.sourceAgent.world(this.sourceVm),
      dial: async () => {
        const fails = options.dialFails?.(this) ?? false;
        if (fails === "hangs") await new Promise(() => {});
        if (fails !== false) throw new Error("Cannot dial: no route to host");
        return this.sourceAgent.world(await Promise.resolve(this.injector.dial()));
      },
      identity: options.sourceIdentity ?? identities.source,
      peer: { publicKey: options.peer ?? identities.destination.publicKey, name: "there" },
      registry,
      suites: options.suites?.source ?? everyClass("aes-256-gcm"),
      limits: { ...usualLimits, ...options.limits },
      live: {},
      journals: this.sourceAgent.world(this.sourceJournals),
      clock: this.sourceAgent.clock(clock),
      signal: this.stopSource.signal,
      entered: (state) => {
        world.note(`source ${state}`);
        return options.sourceEntered?.(state, this);
      },
      agentCpuSeconds: () => 0,
      ...options.sourceOptions,
    });
    this.destination = new Destination({
      vm: this.destinationAgent.world(this.destinationVm),
      listener: this.destinationAgent.world(this.loopback),
      identity: identities.destination,
      allowed: [{ publicKey: identities.source.publicKey, name: "here" }],
      registry,
      suites: options.suites?.destination ?? suites,
      repairBudgetBytes: options.repairBudgetBytes ?? usualLimits.repairBudgetBytes,
      journals: this.destinationAgent.world(this.destinationJournals),
      clock: this.destinationAgent.clock(clock),
      signal: this.stopDestination.signal,
      entered: (state) => {
        world.note(`destination ${state}`);
        return options.destinationEntered?.(state, this);
      },
      onNote: ({ text }) => {
        this.notes.push(text);
        return options.destinationNoted?.(text);
      },
      agentCpuSeconds: () => 0,
      ...(options.destinationVmId === undefined ? {} : { vmId: options.destinationVmId }),
      judge: options.judge,
    });
  }

  killSource(): void {
    this.meddled = true;
    this.sourceVm.kill();
  }

  killDestination(): void {
    this.meddled = true;
    this.destinationVm.kill();
  }

  killSourceAgent(): void {
    if (this.sourceAgent.dead) return;
    this.sourceAgent.kill();
    this.sourceVm.onEnd = null;
    this.world.note("the source's agent is killed");
    void this.sourceVm.agentExits();
  }

  killDestinationAgent(): void {
    if (this.destinationAgent.dead) return;
    this.destinationAgent.kill();
    this.destinationVm.onEnd = null;
    this.world.note("the destination's agent is killed");
    if (!this.loopback.closed) this.loopback.close();
    this.destinationVm.agentExits();
  }

  /** Both agents, from their start to their end. @throws when a rule was broken, or neither ends */
  async run(): Promise<{ source: MigrationResult; destination: MigrationResult }> {
    const { sourceEnds, destinationEnds } = this.start();
    const both = Promise.all([sourceEnds, destinationEnds]);
    const [source, destination] = await Promise.race([both, this.tooLong()]);
    await this.injector.close();
    this.check({ source, destination });
    return { source, destination };
  }

  /** Starts both agents; that of one that is killed never resolves. */
  start(): { sourceEnds: Promise<MigrationResult>; destinationEnds: Promise<MigrationResult> } {
    const destinationEnds = this.destination.run().then((result) => {
      this.world.note(`destination ends: ${result.outcome} ${result.error?.message ?? ""}`);
      this.destinationVm.agentExits();
      return result;
    });
    const sourceEnds = this.source.run().then(async (result) => {
      this.world.note(`source ends: ${result.outcome} ${result.error?.message ?? ""}`);
      await this.sourceVm.agentExits();
      if (this.#endsListening) await this.#endListening();
      return result;
    });
    return { sourceEnds, destinationEnds };
  }

  /** What must hold once both have ended. */
  check(results: { source: MigrationResult; destination: MigrationResult }): void {
    const { world } = this;
    const story = () => `\n${world.log.join("\n")}\n`;
    assert.deepEqual(world.violations, [], story());
    assert.equal(this.clock.pending, 0, `a timer was left behind${story()}`);
    assert.equal(this.sourceJournals.open + this.destinationJournals.open, 0, "journal left open");
    assert.equal(this.destinationVm.openSinks, 0, `a sink was left open${story()}`);
    if (world.destination === "inmigrate") {
      assert.ok(!this.destinationVm.prepared, `a QEMU that waits on was left prepared${story()}`);
    }
    const { source, destination } = results;
    const known = source.outcome !== "unknown" && destination.outcome !== "unknown";
    if (source.outcome === "completed" && !source.dryRun) {
      if (world.before === "running") assert.ok(world.destinationRan, `nothing runs${story()}`);
      else this.destinationVm.checkTaken();
      assert.deepEqual(world.violations, [], story());
    }
    if (known && !this.meddled) this.#checkOneHolds(story);
    this.#checkRecoverable(story);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stopSource.abort();
    this.stopDestination.abort();
    await this.injector.close();
    this.clock[Symbol.dispose]();
  }

  /** Outcomes known, no QEMU killed: the VM is on one side, in the state that it was in before. */
  #checkOneHolds(story: () => string): void {
    const { source, destination, before } = this.world;
    const moved = before === "running"
      ? destination === "running"
      : isTaken(this.destinationJournals.states);
    if (moved) {
      assert.equal(destination, before === "running" ? "running" : before, story());
      assert.ok(source === "gone" || source === "postmigrate", story());
    } else {
      if (before === "running") assert.equal(source, "running", story());
      else assert.notEqual(source, "gone", story());
      assert.ok(destination === "gone" || destination === "inmigrate", story());
    }
  }

  /** Whatever is left, `recover` finds by the table of PROTOCOL.md section 7 that one side may run it, never a stale one. */
  #checkRecoverable(story: () => string): void {
    const { world } = this;
    const sourceStates = this.sourceJournals.states;
    const destinationStates = this.destinationJournals.states;
    const taking = isTaken(destinationStates);
    const there = world.destination !== "gone" && world.destination !== "inmigrate";
    const loaded = there && !taking;
    const current = { source: !world.destinationRan, destination: !world.sourceRanOn };
    if (world.source === "running") {
      // One that is gone runs no more, whatever the disk took.
      assert.ok(
        !taking || !there,
        `the source runs under a destination's journal \`taking\`${story()}`,
      );
      assert.ok(current.source, story());
      return;
    }
    assert.notEqual(world.source, "finish-migrate", story());
    const stopped = world.source === "postmigrate" && !world.sourceStandsAgain;
    const released = world.source === "gone" && sourceStates.includes("released") &&
      !sourceStates.includes("ranHere");
    if (sourceStates.includes("done")) {
      return assert.ok(taking || world.destinationRan, `done, and nobody took it${story()}`);
    }
    if ((stopped || released) && loaded) {
      return assert.ok(current.destination, `recover would run a stale copy${story()}`);
    }
    const ranEarly = destinationStates.at(-1) === "ranEarly";
    if (stopped && !there && !taking && !ranEarly) {
      return assert.ok(current.source, `recover would run a stale copy at the source${story()}`);
    }
    if ((stopped || released) && taking && there) assert.ok(current.destination, story());
    if (!this.meddled && world.before === "running") {
      assert.ok(stopped || world.destination === "running", `the VM has disappeared${story()}`);
    }
  }

  async #endListening(): Promise<void> {
    await this.clock.sleep(100);
    if (this.destination.id === null) this.stopDestination.abort();
  }

  async tooLong(): Promise<never> {
    await this.clock.sleep(1_000_000);
    throw new assert.AssertionError({ message: `it hangs\n${this.world.log.join("\n")}` });
  }
}

/** Whether the last line says that the VM is the destination's. */
function isTaken(states: readonly string[]): boolean {
  return states.at(-1) === "taking" || states.at(-1) === "running";
}

/** Runs one migration and ends it. */
export async function migrate(
  options: SimulatedMigrationOptions = {},
): Promise<
  & { source: MigrationResult; destination: MigrationResult; run: SimulatedMigration }
  & { states: { source: string[]; destination: string[] } }
> {
  await using run = new SimulatedMigration(options);
  const results = await run.run();
  return {
    ...results,
    run,
    states: { source: run.sourceJournals.states, destination: run.destinationJournals.states },
  };
}

/** Runs `one` for each case, a few at a time: most of a migration is waiting. */
export async function forEachCase<T>(
  cases: readonly T[],
  one: (value: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failure: Error | null = null;
  const worker = async () => {
    while (next < cases.length && failure === null) {
      const value = cases[next++]!;
      try {
        await one(value);
      } catch (cause) {
        failure ??= new Error(`in case ${JSON.stringify(value)}`, { cause });
      }
    }
  };
  await Promise.all(Array.from({ length: 24 }, worker));
  if (failure !== null) throw failure;
}
