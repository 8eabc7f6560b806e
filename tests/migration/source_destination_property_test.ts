import fc from "fast-check";
import type { Fault } from "../support/fault_injector.ts";
import { forEachCase, migrate, type SimulatedMigration } from "../support/simulated_migration.ts";

const SCENARIOS = 200;

const fault = fc.record({
  direction: fc.constantFrom("there" as const, "back" as const),
  index: fc.nat(20),
  kind: fc.constantFrom(
    "flip" as const,
    "drop" as const,
    "duplicate" as const,
    "swap" as const,
    "truncate" as const,
    "cutAfter" as const,
    "delay" as const,
    "stall" as const,
  ),
  /** A place in the message, of 1000. */
  at: fc.nat(999),
  bit: fc.nat(7),
  ms: fc.nat(4_000),
});

const event = fc.record({
  what: fc.constantFrom(
    "kill source" as const,
    "kill destination" as const,
    "stop source" as const,
    "stop destination" as const,
    "cancel by others" as const,
    "cut" as const,
  ),
  afterMs: fc.nat(700),
});

const scenario = fc.record({
  seed: fc.nat(1_000_000),
  before: fc.constantFrom("running" as const, "paused" as const, "prelaunch" as const),
  pageCounts: fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 3 }),
  liveRounds: fc.integer({ min: 1, max: 3 }),
  paceMs: fc.constantFrom(0, 10),
  faults: fc.array(fault, { maxLength: 2 }),
  events: fc.array(event, { maxLength: 2 }),
  runFails: fc.constantFrom(0, 0, 1, 3, 1_000),
  loadFails: fc.constantFrom(false, false, false, true),
  sourceDisk: fc.constantFrom(null, null, null, 0, 1, 2, 3),
  destinationDisk: fc.constantFrom(null, null, null, 0, 1, 2, 3),
  maxStopMs: fc.constantFrom(5_000, 5_000, 400),
});
type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never;

function happens(what: Scenario["events"][number]["what"], run: SimulatedMigration): void {
  switch (what) {
    case "kill source":
      return run.killSource();
    case "kill destination":
      return run.killDestination();
    case "stop source":
      return run.stopSource.abort();
    case "stop destination":
      return run.stopDestination.abort();
    case "cut":
      return run.injector.cut();
    case "cancel by others":
      // Once it has read SHUT(0) it has nothing left to cancel.
      if (run.world.source !== "finish-migrate") return;
      run.meddled = true;
      return run.sourceVm.cancelByOthers();
  }
}

function asFault({ kind, at, bit, ms }: Scenario["faults"][number], length: number): Fault {
  const place = Math.floor(at / 1_000 * length);
  switch (kind) {
    case "flip":
      return { kind, byte: place, bit };
    case "truncate":
      return { kind, bytes: place };
    case "delay":
      return { kind, ms };
    default:
      return { kind };
  }
}

/** The rules are checked by the simulation, while it runs and at its end. */
async function runScenario(given: Scenario): Promise<void> {
  await migrate({
    seed: given.seed,
    before: given.before,
    pageCounts: given.pageCounts,
    source: { liveRounds: given.liveRounds, paceMs: given.paceMs },
    destination: {
      runFails: given.runFails,
      ...(given.loadFails ? { loadFails: "unknown section" } : {}),
    },
    limits: { maxStopMs: given.maxStopMs },
    sourceDiskFails: (append) => append === given.sourceDisk,
    destinationDiskFails: (append) => append === given.destinationDisk,
    prepare: (run) => {
      for (const { what, afterMs } of given.events) {
        void run.clock.sleep(afterMs).then(() => happens(what, run));
      }
    },
    fault: ({ direction, index, bytes }) => {
      const one = given.faults.find((one) => one.direction === direction && one.index === index);
      return one === undefined ? undefined : asFault(one, bytes.length);
    },
  });
}

Deno.test("Source and Destination never run two copies, a stale one or none, whatever happens when", async () => {
  await forEachCase(fc.sample(scenario, { numRuns: SCENARIOS, seed: 7 }), runScenario);
});
