import assert from "node:assert/strict";
import type { Direction, Fault, Unit } from "../support/fault_injector.ts";
import { forEachCase, migrate } from "../support/simulated_migration.ts";

/** A migration of some fifteen messages each way. */
const small = { pageCounts: [4], seed: 3, source: { liveRounds: 1 } };

/** Every fault but those that need a place inside the message. */
const faults: Record<string, (unit: Unit) => Fault> = {
  "flip in the header": () => ({ kind: "flip", byte: 0, bit: 1 }),
  "flip in the length": ({ bytes }) => ({ kind: "flip", byte: Math.min(7, bytes.length), bit: 3 }),
  "flip in the middle": ({ bytes }) => ({ kind: "flip", byte: bytes.length >> 1, bit: 7 }),
  "flip at the end": ({ bytes }) => ({ kind: "flip", byte: bytes.length - 1, bit: 0 }),
  drop: () => ({ kind: "drop" }),
  duplicate: () => ({ kind: "duplicate" }),
  swap: () => ({ kind: "swap" }),
  "cut at its begin": () => ({ kind: "truncate", bytes: 0 }),
  "cut inside": ({ bytes }) => ({ kind: "truncate", bytes: bytes.length - 1 }),
  "cut after it": () => ({ kind: "cutAfter" }),
  stall: () => ({ kind: "stall" }),
};

/** Does `fault` to message `index` of `direction` and checks how it ends. */
async function faulted(
  name: string,
  { direction, index }: { direction: Direction; index: number },
): Promise<string> {
  const { source, destination, states, run } = await migrate({
    ...small,
    fault: (unit) =>
      unit.direction === direction && unit.index === index ? faults[name]!(unit) : undefined,
  });
  const story = `${source.outcome}/${destination.outcome}\n${run.world.log.join("\n")}`;
  if (run.injector.done === 0) {
    assert.equal(source.outcome, "completed", story);
    return "not reached";
  }
  if (!states.source.includes("released")) {
    // Before SHUT(0) it ends cleanly, with the VM at the source.
    assert.ok(["aborted", "tampered", "refused"].includes(source.outcome), story);
    assert.equal(run.world.source, "running", story);
    assert.ok(source.sourceState === "running", story);
  }
  if (!states.destination.includes("loaded")) {
    assert.ok(["aborted", "tampered"].includes(destination.outcome), story);
    assert.ok(["gone", "inmigrate"].includes(run.world.destination), story);
  } else if (destination.outcome === "unknown") {
    // Loaded, and nobody said what becomes of it: it is kept, stopped.
    assert.equal(states.destination.at(-1), "loaded", story);
    assert.equal(run.world.destination, "paused", story);
  }
  if (source.outcome === "unknown") {
    assert.equal(states.source.at(-1), "released", story);
    assert.equal(run.world.source, "postmigrate", story);
  }
  return source.outcome;
}

for (const direction of ["there", "back"] as const) {
  Deno.test(`Source and Destination end well whatever happens to any one message ${direction}`, async () => {
    const { run } = await migrate(small);
    // Acknowledgements come in another number each time.
    const count = run.injector.seen.filter((unit) => unit.direction === direction).length + 2;
    const cases = Object.keys(faults).flatMap((name) =>
      Array.from({ length: count }, (_, index) => ({ name, index }))
    );
    const outcomes = new Set<string>();
    await forEachCase(cases, async ({ name, index }) => {
      outcomes.add(await faulted(name, { direction, index }));
    });
    for (const outcome of ["aborted", "refused", "unknown"]) assert.ok(outcomes.has(outcome));
    assert.equal(outcomes.has("tampered"), direction === "there");
  });
}

Deno.test("Source and Destination complete when any one message is late", async () => {
  const { run } = await migrate(small);
  const cases = run.injector.seen.map(({ direction, index }) => ({ direction, index }));
  await forEachCase(cases, async ({ direction, index }) => {
    const { source, destination } = await migrate({
      ...small,
      fault: (unit) =>
        unit.direction === direction && unit.index === index
          ? { kind: "delay", ms: 300 }
          : undefined,
    });
    assert.equal(source.outcome, "completed");
    assert.equal(destination.outcome, "completed");
  });
});

Deno.test("Source.run() ends tampered, Destination.run() too, when a record is damaged", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    fault: ({ direction, index }) =>
      direction === "there" && index === 3 ? { kind: "flip", byte: 40, bit: 2 } : undefined,
  });
  assert.equal(source.outcome, "tampered");
  assert.equal(destination.outcome, "tampered");
  assert.equal(source.mistakes.detected, 1);
  assert.equal(destination.mistakes.detected, 1);
  assert.equal(source.destinationState, "discarded");
  assert.equal(run.world.source, "running");
  assert.equal(run.world.destination, "gone");
});

Deno.test("Destination.run() keeps its loaded QEMU, and knows no outcome, when the connection is lost", async () => {
  const { source, destination, states, run } = await migrate({
    ...small,
    destinationEntered: (state, { injector }) => state === "loaded" ? injector.cut() : undefined,
  });
  // The source has not heard LOADED: it goes on. `recover` discards the copy.
  assert.equal(source.outcome, "aborted");
  assert.equal(run.world.source, "running");
  assert.equal(destination.outcome, "unknown");
  assert.equal(destination.destinationState, "paused");
  assert.equal(run.world.destination, "paused");
  assert.deepEqual(states.destination, ["open", "loaded"]);
});

Deno.test("Source.run() knows no outcome when the connection is lost after the release", async () => {
  const { source, destination, states, run } = await migrate({
    ...small,
    sourceEntered: (state, { injector }) => state === "released" ? injector.cut() : undefined,
  });
  assert.equal(source.outcome, "unknown");
  assert.equal(source.sourceState, "postmigrate");
  assert.equal(source.destinationState, "unknown");
  assert.deepEqual(states.source, ["open", "releasing", "released"]);
  assert.equal(destination.outcome, "unknown");
  assert.equal(run.world.destination, "paused");
});

Deno.test("Destination.run() completes when the connection is lost after RELEASE", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    destinationEntered: (state, { injector }) => state === "taking" ? injector.cut() : undefined,
  });
  assert.equal(source.outcome, "unknown");
  assert.equal(destination.outcome, "completed");
  assert.equal(run.world.destination, "running");
});
