/**
 * One case of the fast fault campaign: a simulated migration to which things happen, all of them drawn from one seed,
 * then `recover` where somebody would be told to run it; at its end exactly one copy of the VM is left, or what
 * PROTOCOL.md section 7 says that only a person can know.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { StateBefore } from "../../migration/ports.ts";
import type { MigrationResult } from "../../migration/result.ts";
import { destinationTransitions, sourceTransitions } from "../../migration/states.ts";
import type { Fault, Unit } from "./fault_injector.ts";
import { Random } from "./random.ts";
import {
  SimulatedMigration,
  type SimulatedMigrationOptions,
  usualLimits,
} from "./simulated_migration.ts";
import { recoverBoth, recoverSide, silence, unreachable } from "./simulated_recovery.ts";

const events = [
  "kill source agent",
  "kill destination agent",
  "kill source QEMU",
  "kill destination QEMU",
  "stop source agent",
  "stop destination agent",
  "cancel by others",
  "cancel by others, then kill source QEMU",
  "cut",
] as const;
type Event = typeof events[number];

/** A thing that happens, and when. */
interface Happening {
  event: Event;
  /** On entering this state, or so long after the start. */
  at: { side: "source" | "destination"; state: string; afterMs: number } | { ms: number };
}

/** What the network does to each message, once in so many times; 0 is never. */
interface Weather {
  damageOneIn: number;
  cutOneIn: number;
  otherOneIn: number;
}

/** Everything that a seed stands for. */
export interface SimulatedCase {
  seed: number;
  before: StateBefore;
  pageCounts: number[];
  liveRounds: number;
  paceMs: number;
  happenings: Happening[];
  weather: Weather;
  sourceDiskFails: number | null;
  destinationDiskFails: number | null;
  runFails: number;
  loadFails: boolean;
  reconnectMs: number;
  maxStopMs: number;
  repairBudgetBytes: number;
}

/** What became of a case. */
export interface CaseOutcome {
  /** Of both agents; `killed` for one that was. */
  source: string;
  destination: string;
  recovered: boolean;
  /** Where the VM is at the end. */
  vm: "source" | "destination" | "operator" | "lost";
  reconnects: number;
  mistakes: number;
}

const sourceStates = Object.keys(sourceTransitions);
const destinationStates = Object.keys(destinationTransitions);

/** The case of a seed. */
export function makeCase(seed: number): SimulatedCase {
  const random = new Random(seed * 2 + 1);
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!;
  const happenings = Array.from({ length: random.below(4) }, (): Happening => {
    const event = pick(events);
    if (random.oneIn(3)) return { event, at: { ms: random.below(random.oneIn(4) ? 8_000 : 60) } };
    const side = pick(["source", "destination"] as const);
    const state = pick(side === "source" ? sourceStates : destinationStates);
    const afterMs = random.oneIn(2) ? 0 : random.below(random.oneIn(4) ? 3_000 : 6);
    return { event, at: { side, state, afterMs } };
  });
  // One host may lose its QEMU: with both gone nothing is left to recover.
  const killed = happenings.find(({ event }) => event.endsWith("QEMU"))?.event;
  const weather: Weather = random.oneIn(2) ? { damageOneIn: 0, cutOneIn: 0, otherOneIn: 0 } : {
    damageOneIn: pick([0, 4, 10, 30]),
    cutOneIn: pick([0, 10, 30]),
    otherOneIn: pick([0, 0, 15, 40]),
  };
  return {
    seed,
    before: pick(["running", "running", "running", "paused", "prelaunch"]),
    pageCounts: Array.from({ length: 1 + random.below(3) }, () => 1 + random.below(12)),
    liveRounds: 1 + random.below(3),
    paceMs: pick([0, 1, 1, 10]),
    happenings: happenings.filter(({ event }) => !event.endsWith("QEMU") || event === killed),
    weather,
    sourceDiskFails: random.oneIn(10) ? random.below(6) : null,
    destinationDiskFails: random.oneIn(10) ? random.below(6) : null,
    runFails: pick([0, 0, 0, 0, 0, 0, 0, 1, 3, 1_000]),
    loadFails: random.oneIn(20),
    reconnectMs: pick([120_000, 120_000, 2_000, 0]),
    maxStopMs: pick([5_000, 5_000, 30_000, 400]),
    repairBudgetBytes: pick([usualLimits.repairBudgetBytes, usualLimits.repairBudgetBytes, 40_000]),
  };
}

/** Runs a case. @throws AssertionError when a rule is broken, with everything that happened */
export async function runCase(given: SimulatedCase): Promise<CaseOutcome> {
  const random = new Random(given.seed);
  await using run = new SimulatedMigration(optionsOf(given, random));
  try {
    const results = await runAgents(run);
    const recovered = await settle(run, results, random);
    return {
      source: results.source?.outcome ?? "killed",
      destination: results.destination?.outcome ?? "killed",
      recovered,
      vm: await whereIsIt(run),
      reconnects: results.source?.reconnects ?? 0,
      mistakes: results.source?.mistakes.detected ?? 0,
    };
  } catch (cause) {
    const story = `case ${JSON.stringify(given)}\n${run.world.log.join("\n")}`;
    throw new Error(`${cause instanceof Error ? cause.message : cause}\n${story}`, { cause });
  }
}

function optionsOf(given: SimulatedCase, random: Random): SimulatedMigrationOptions {
  const onEntering = (side: "source" | "destination", state: string, run: SimulatedMigration) => {
    for (const { event, at } of given.happenings) {
      if (!("state" in at) || at.side !== side || at.state !== state) continue;
      if (at.afterMs === 0) happens(event, run);
      else void run.clock.sleep(at.afterMs).then(() => happens(event, run));
    }
  };
  return {
    seed: given.seed,
    before: given.before,
    pageCounts: given.pageCounts,
    source: { liveRounds: given.liveRounds, paceMs: given.paceMs },
    destination: {
      runFails: given.runFails,
      ...(given.loadFails ? { loadFails: "unknown section" } : {}),
    },
    limits: {
      maxStopMs: given.maxStopMs,
      reconnectMs: given.reconnectMs,
      repairBudgetBytes: given.repairBudgetBytes,
    },
    sourceDiskFails: (append) => append === given.sourceDiskFails,
    destinationDiskFails: (append) => append === given.destinationDiskFails,
    sourceEntered: (state, run) => onEntering("source", state, run),
    destinationEntered: (state, run) => onEntering("destination", state, run),
    prepare: (run) => {
      for (const { event, at } of given.happenings) {
        if ("ms" in at) void run.clock.sleep(at.ms).then(() => happens(event, run));
      }
    },
    // Opening a migration is not what this is about.
    fault: (unit) =>
      unit.connection === 0 && unit.index < 2 ? undefined : faultOf(unit, given.weather, random),
  };
}

function happens(event: Event, run: SimulatedMigration): void {
  run.world.note(`event: ${event}`);
  switch (event) {
    case "kill source agent":
      return run.killSourceAgent();
    case "kill destination agent":
      return run.killDestinationAgent();
    case "kill source QEMU":
      return run.killSource();
    case "kill destination QEMU":
      return run.killDestination();
    case "stop source agent":
      return run.stopSource.abort();
    case "stop destination agent":
      return run.stopDestination.abort();
    case "cut":
      return run.injector.cut();
    case "cancel by others":
      // Once it has read SHUT(0) it has nothing left to cancel.
      if (run.world.source !== "finish-migrate") return;
      run.meddled = true;
      return run.sourceVm.cancelByOthers();
    case "cancel by others, then kill source QEMU":
      if (run.world.source !== "finish-migrate") return;
      run.sourceVm.cancelByOthers();
      return run.killSource();
  }
}

function faultOf(unit: Unit, weather: Weather, random: Random): Fault | undefined {
  const { length } = unit.bytes;
  const { damageOneIn, cutOneIn, otherOneIn } = weather;
  if (damageOneIn > 0 && random.oneIn(damageOneIn)) {
    // Mostly where records are repaired: behind the headers.
    const byte = length > 40 && !random.oneIn(8)
      ? 32 + random.below(length - 32)
      : random.below(length);
    return { kind: "flip", byte, bit: random.below(8) };
  }
  if (cutOneIn > 0 && random.oneIn(cutOneIn)) {
    return { kind: "truncate", bytes: random.below(length + 1) };
  }
  if (otherOneIn > 0 && random.oneIn(otherOneIn)) {
    const kinds = ["drop", "duplicate", "swap", "cutAfter", "stall", "delay"] as const;
    const kind = kinds[random.below(kinds.length)]!;
    return kind === "delay" ? { kind, ms: random.below(4_000) } : { kind };
  }
  return undefined;
}

interface Results {
  source: MigrationResult | null;
  destination: MigrationResult | null;
}

async function runAgents(run: SimulatedMigration): Promise<Results> {
  const { sourceEnds, destinationEnds } = run.start();
  const source = Promise.race([sourceEnds, run.sourceAgent.died.then(() => null)]);
  const destination = Promise.race([destinationEnds, run.destinationAgent.died.then(() => null)]);
  const sourceResult = await Promise.race([source, run.tooLong()]);
  if (sourceResult === null && run.destination.id === null) {
    await run.clock.sleep(100);
    if (run.destination.id === null) run.stopDestination.abort();
  }
  // A `receive` that waits for another connection may outlive its source: `recover` finds it listening.
  const waits = run.destination.id !== null && sourceResult === null;
  const patienceMs = waits ? 200 : 1_000_000;
  const destinationResult = await Promise.race([
    destination,
    run.clock.sleep(patienceMs).then(() => "waits" as const),
  ]);
  if (destinationResult === "waits") {
    assert.ok(waits, "the destination's agent hangs");
    // It is still there, and answers RECOVER below.
    receiving.set(run, destination);
    return { source: sourceResult, destination: null };
  }
  return { source: sourceResult, destination: destinationResult };
}

/** Destinations' agents that go on waiting while `recover` is run at the source. */
const receiving = new WeakMap<SimulatedMigration, Promise<MigrationResult | null>>();

/** Runs `recover` where an exit code or a crash asks for it. @returns whether it did */
async function settle(
  run: SimulatedMigration,
  results: Results,
  random: Random,
): Promise<boolean> {
  const { id } = run.source;
  const has = {
    source: await run.sourceJournals.has(id, "source"),
    destination: await run.destinationJournals.has(id, "destination"),
  };
  await run.sourceVm.settled();
  await run.injector.close();
  const asked = [results.source, results.destination].some((one) =>
    one === null || one.outcome === "unknown"
  );
  const waiting = receiving.get(run);
  if (!asked || !has.source) {
    await endReceiving(run, waiting);
    return false;
  }
  if (waiting !== undefined) {
    const meet = { dial: () => Promise.resolve(run.loopback.dial()) };
    if (random.oneIn(4)) await recoverSide(run, "source", { meet, dryRun: true });
    await recoverSide(run, "source", { meet });
    await endReceiving(run, waiting);
  }
  if (!has.destination) {
    await recoverSide(run, "source", { meet: unreachable });
    return true;
  }
  // Alone neither may do what the other does not know of.
  if (random.oneIn(3)) {
    await recoverSide(run, random.oneIn(2) ? "source" : "destination", { meet: unreachable });
  }
  for (let times = 0; times < 2; times++) {
    await recoverBoth(run, random.oneIn(2) ? "source" : "destination");
  }
  return true;
}

async function endReceiving(
  run: SimulatedMigration,
  waiting: Promise<MigrationResult | null> | undefined,
): Promise<void> {
  if (waiting === undefined) return;
  await run.clock.sleep(100);
  run.stopDestination.abort();
  await Promise.race([waiting, run.tooLong()]);
}

/** @throws AssertionError when the rules do not say why it is nowhere */
async function whereIsIt(run: SimulatedMigration): Promise<CaseOutcome["vm"]> {
  const { world } = run;
  assert.deepEqual(world.violations, []);
  const taken = run.destinationJournals.states.some((state) => state === "taking");
  const runs = (side: "source" | "destination") =>
    world.before === "running"
      ? world[side] === "running"
      : side === "source"
      ? world.source === world.before || (world.source === "postmigrate" && !taken)
      : world.destination === world.before && taken;
  assert.ok(!(runs("source") && runs("destination")), "two are left");
  if (runs("source")) {
    assert.ok(["gone", "inmigrate"].includes(world.destination), "a stale copy is left");
    return "source";
  }
  if (runs("destination")) {
    assert.ok(world.source === "gone" || world.source === "postmigrate", "a stale copy is left");
    return "destination";
  }
  return await askOperator(run);
}

/** What only a person can know, who sees the truth here and swears to it. */
async function askOperator(run: SimulatedMigration): Promise<CaseOutcome["vm"]> {
  const { world } = run;
  if (["paused", "prelaunch"].includes(world.destination) && run.destinationVm.runFails > 0) {
    // What QEMU says is mended, and `recover` is run once more.
    run.destinationVm.runFails = 0;
    for (let times = 0; times < 2; times++) await recoverBoth(run, "destination");
    assert.deepEqual(world.violations, []);
    if (world.destinationRan || world.before !== "running") return "operator";
  }
  const holdsSource = world.source === "postmigrate" && !world.destinationRan;
  const holdsDestination = ["paused", "prelaunch"].includes(world.destination) &&
    !world.sourceRanOn && world.destinationLoaded;
  const released = run.sourceJournals.states.includes("released");
  const taking = run.destinationJournals.states.includes("taking");
  if (holdsDestination && world.source === "gone") {
    assert.ok(!released && !taking, "it was released, and nobody runs it");
    for (let times = 0; times < 2 && !world.destinationRan; times++) {
      await recoverSide(run, "destination", { meet: silence(), declareDead: true });
      assert.deepEqual(world.violations, []);
    }
    assert.ok(
      world.before !== "running" || world.destinationRan,
      "the operator's word is not enough",
    );
    return "operator";
  }
  if (holdsSource && world.destination === "gone") {
    assert.ok(taking, "nobody took it, and nobody runs it");
    // Once more where the disk was full: what is not journalled is not done.
    for (let times = 0; times < 2 && !asRunning(world.source); times++) {
      await recoverSide(run, "source", { meet: unreachable, declareDead: true });
      assert.deepEqual(world.violations, []);
    }
    assert.ok(
      world.before !== "running" || asRunning(world.source),
      "the operator's word is not enough",
    );
    return "operator";
  }
  // Whoever held it was killed.
  assert.ok(run.meddled, "the VM has disappeared");
  assert.ok(!holdsSource && !holdsDestination, "a good copy is left, and nobody runs it");
  return "lost";
}

/** The compiler thinks that it knows. */
function asRunning(state: string): boolean {
  return state === "running";
}
