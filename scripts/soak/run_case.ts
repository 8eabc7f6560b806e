/**
 * One case of the soak: two micro-VMs in this process, a migration between them, and what must hold afterwards.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { defaultRegistry } from "../../ciphers/registry.ts";
import { ownCpuSeconds, systemClock } from "../../cli/clock.ts";
import { MicroDestination } from "../../kvm/micro/micro_destination.ts";
import { MicroSource } from "../../kvm/micro/micro_source.ts";
import { MicroVm } from "../../kvm/micro/micro_vm.ts";
import { Destination } from "../../migration/destination.ts";
import { generateIdentity } from "../../migration/identity.ts";
import type { SuiteOffers } from "../../migration/messages.ts";
import type { JournalEntry } from "../../migration/ports.ts";
import type { MigrationResult } from "../../migration/result.ts";
import { Source } from "../../migration/source.ts";
import { FaultInjector } from "../../tests/support/fault_injector.ts";
import { Loopback } from "../../tests/support/loopback.ts";
import { MemoryJournals } from "../../tests/support/memory_journal.ts";
import type { SoakCase } from "./cases.ts";
import { settle } from "./settle.ts";
import { wirePlan } from "./wire.ts";

const MIB = 2 ** 20;
const BEATS_BEFORE = 2, BEATS_AFTER = 3;
/** Far more than any case takes. */
const PATIENCE_MS = 120_000;
const identities = { source: await generateIdentity(), destination: await generateIdentity() };
const registry = defaultRegistry();

/** Where the one copy that runs is in the end. */
export type Holder = "source" | "destination";

/** What came of a case. */
export interface SoakResult {
  index: number;
  fault: SoakCase["fault"];
  /** How the source's command ended, and the destination's. */
  outcomes: [MigrationResult["outcome"], MigrationResult["outcome"]];
  /** `recover` had to settle it. */
  recovered: boolean;
  holder: Holder;
  /** Times that the two memories were compared whole, both VMs standing still, before the copy ran. */
  compared: number;
  rounds: number;
  guestBytes: number;
  downtimeMs: number | null;
  reconnects: number;
  mistakes: { detected: number; repaired: number };
  durationMs: number;
}

/** Runs it. @throws {AssertionError} when the VM was lost, ran twice, or is not what it was */
export async function runCase(options: SoakCase): Promise<SoakResult> {
  const startedAtMs = performance.now();
  const machine = { memoryBytes: options.memoryMiB * MIB, vcpus: options.vcpus };
  using from = await MicroVm.create(machine);
  using to = await MicroVm.create(machine);
  from.boot({
    workingSetBytes: options.workingSetBytes,
    beatMs: options.beatMs,
    ...(options.dirtyPagesPerSecond === undefined
      ? {}
      : { dirtyPagesPerSecond: options.dirtyPagesPerSecond }),
  });
  from.start();
  await from.untilBeats(BEATS_BEFORE);
  if (!options.running) from.stop();
  const move = new Move(options, { from, to });
  const { source, destination } = await withPatience(move.run());
  const recovered = [source, destination].some(({ outcome }) => outcome === "unknown");
  if (recovered) await withPatience(move.settle());
  const holder = await findHolder(options, { from, to });
  if (holder === "destination") assert.ok(move.compared > 0, "it ran without being compared");
  assert.equal(move.openJournals, 0, "a journal was left open");
  return {
    index: options.index,
    fault: options.fault,
    outcomes: [source.outcome, destination.outcome],
    recovered,
    holder,
    compared: move.compared,
    rounds: source.rounds?.length ?? 0,
    guestBytes: source.bytes.guest,
    downtimeMs: source.downtimeMs,
    reconnects: source.reconnects,
    mistakes: { detected: source.mistakes.detected, repaired: source.mistakes.repaired },
    durationMs: performance.now() - startedAtMs,
  };
}

/** A migration, and what happens to it. */
class Move {
  /** Times that both memories were found equal. */
  compared = 0;
  readonly #case: SoakCase;
  readonly #vms: { from: MicroVm; to: MicroVm };
  readonly #sourceVm: MicroSource;
  readonly #destinationVm: MicroDestination;
  readonly #journals: { source: MemoryJournals; destination: MemoryJournals };
  #id: string | null = null;

  constructor(options: SoakCase, vms: { from: MicroVm; to: MicroVm }) {
    this.#case = options;
    this.#vms = vms;
    this.#sourceVm = new MicroSource(vms.from);
    this.#destinationVm = new MicroDestination(vms.to);
    const disk = (side: string) => {
      if (options.fault !== `full disk at the ${side}`) return new MemoryJournals();
      const { diskLines, diskHeals } = options;
      return new MemoryJournals({
        fails: (append) => diskHeals ? append === diskLines : append >= diskLines,
      });
    };
    this.#journals = { source: disk("source"), destination: disk("destination") };
  }

  get openJournals(): number {
    return this.#journals.source.open + this.#journals.destination.open;
  }

  async run(): Promise<{ source: MigrationResult; destination: MigrationResult }> {
    const { suite, downtimeLimitMs } = this.#case;
    const suites: SuiteOffers = {
      user: [suite],
      kernelText: [suite],
      kernelData: [suite],
      unmapped: [suite],
    };
    const loopback = new Loopback({ capacityBytes: MIB, seed: this.#case.wireSeed });
    const wire = new FaultInjector({
      dial: () => loopback.dial(),
      plan: wirePlan(this.#case),
      clock: { sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)) },
    });
    const operators = { source: new AbortController(), destination: new AbortController() };
    const entered = this.#ctrlC(operators);
    const common = { registry, clock: systemClock, agentCpuSeconds: ownCpuSeconds, suites };
    const source = new Source({
      ...common,
      vm: this.#sourceVm,
      // deno-lint-ignore require-await -- what is thrown has to be a rejection
      dial: async () => wire.dial(),
      identity: identities.source,
      peer: { publicKey: identities.destination.publicKey, name: "b" },
      limits: {
        reconnectMs: 5_000,
        maxStopMs: 10_000,
        repairBudgetBytes: 64 * MIB,
        windowBytes: 8 * MIB,
      },
      live: { downtimeLimitMs },
      journals: this.#journals.source,
      signal: operators.source.signal,
      entered,
    });
    this.#id = source.id;
    const destination = new Destination({
      ...common,
      vm: this.#destinationVm,
      listener: loopback,
      identity: identities.destination,
      allowed: [{ publicKey: identities.source.publicKey, name: "a" }],
      repairBudgetBytes: 64 * MIB,
      journals: this.#journals.destination,
      signal: operators.destination.signal,
      entered: (state) => {
        if (state === "taking") this.#compare();
        entered(state);
      },
    });
    const received = destination.run();
    const sent = await source.run();
    // Nobody else will come.
    if (sent.outcome !== "completed") operators.destination.abort();
    const result = { source: sent, destination: await received };
    wire.cut();
    await wire.close();
    return result;
  }

  /** Lets both sides recover. */
  async settle(): Promise<void> {
    const id = this.#id!;
    const lines = (side: "source" | "destination"): JournalEntry[] =>
      this.#journals[side].lines.get(`${id}.${side}`) ?? [];
    const destination = { vm: this.#destinationVm, entries: lines("destination") };
    const results = await settle({
      id,
      identities,
      source: { vm: this.#sourceVm, entries: lines("source") },
      destination: {
        ...destination,
        loaded: destination.entries.some(({ state }) => state === "loaded") ||
          await this.#destinationVm.status() === "paused",
      },
      beforeTaking: () => this.#compare(),
    });
    for (const { outcome, error, notes } of results) {
      assert.equal(outcome, "completed", `recover: ${error?.message}: ${notes.join("; ")}`);
    }
  }

  /** Ctrl-C at its time. */
  #ctrlC(operators: Record<Holder, AbortController>): (state: string) => void {
    const { fault, interruptAt } = this.#case;
    const operator = fault === "Ctrl-C at the source"
      ? operators.source
      : fault === "Ctrl-C at the destination"
      ? operators.destination
      : null;
    if (operator === null) return () => {};
    return (state) => {
      if ("state" in interruptAt) {
        if (state === interruptAt.state) operator.abort();
      } else if (state === "copying") {
        setTimeout(() => operator.abort(), interruptAt.afterMs);
      }
    };
  }

  /** Both VMs stand still. */
  #compare(): void {
    const { from, to } = this.#vms;
    assert.ok(!from.running && !to.running, "one runs while the other is about to");
    assert.equal(Buffer.compare(from.memory, to.memory), 0, "the memories differ");
    this.compared++;
  }
}

/** Exactly one copy is there, runs if it ran, and goes on as if nothing had happened. */
async function findHolder(
  { running }: SoakCase,
  { from, to }: { from: MicroVm; to: MicroVm },
): Promise<Holder> {
  assert.ok(!(from.running && to.running), "it runs twice");
  const moved = from.memory.length === 0 || (running && to.running);
  const holder = moved ? to : from;
  assert.notEqual(holder.memory.length, 0, "it is lost: neither side has it");
  assert.equal(holder.running, running, running ? "it is lost: neither runs" : "it runs now");
  if (!running) holder.start();
  const counts = Array.from({ length: holder.vcpuCount }, (_, cpu) => holder.beats(cpu).length);
  await holder.untilBeats(Math.max(...counts) + BEATS_AFTER);
  holder.stop();
  for (const { filled, wrongPages, checksumFits } of holder.check()) {
    assert.deepEqual({ filled, wrongPages, checksumFits }, {
      filled: true,
      wrongPages: [],
      checksumFits: true,
    });
  }
  for (let cpu = 0; cpu < holder.vcpuCount; cpu++) {
    // Every heartbeat that either has given: two that ran would have given some of them twice.
    const values = [...from.beats(cpu), ...to.beats(cpu)].map(({ value }) => value);
    const first = values[0]!;
    const broken = values.findIndex((value, i) => value !== first + i);
    assert.equal(broken, -1, `heartbeats of vCPU ${cpu} break at number ${broken}`);
    if (!moved) assert.equal(to.beats(cpu).length, 0, "the copy that was discarded has run");
  }
  return moved ? "destination" : "source";
}

async function withPatience<T>(work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new assert.AssertionError({ message: "it does not end" })),
    PATIENCE_MS,
  );
  try {
    return await Promise.race([work, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
