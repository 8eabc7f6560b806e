/**
 * When a source says DISCARD, and what it makes of DISCARDED.
 */

import assert from "node:assert/strict";
import { SimulatedMigration } from "../support/simulated_migration.ts";

/** A destination that cannot run what it has, for as long as the test says; a source that gives up on it. */
const cannotRun = {
  pageCounts: [6],
  source: { liveRounds: 1 },
  destination: { runFails: 1_000 },
  limits: { maxStopMs: 60_000 },
};

for (const how of ["at once", "while nobody answers its dials"] as const) {
  Deno.test(`Source says no DISCARD when its QEMU dies ${how}, and the copy at the destination runs in the end`, async () => {
    let away = false;
    await using run = new SimulatedMigration({
      ...cannotRun,
      dialFails: () => away,
      sourceEntered: async (state, run) => {
        if (state !== "discarding") return;
        if (how === "at once") run.killSource();
        else {
          // DISCARD is said into the cut, and owed again to the connection after it.
          away = true;
          run.injector.cut();
          void run.clock.sleep(2_000).then(() => run.killSource());
          void run.clock.sleep(10_000).then(() => away = false);
        }
        void run.clock.sleep(15_000).then(() => run.destinationVm.runFails = 0);
        await Promise.resolve();
      },
    });
    const { source, destination } = await run.run();
    const story = run.world.log.join("\n");
    assert.equal(source.outcome, "completed", story);
    assert.equal(destination.outcome, "completed", story);
    assert.equal(run.world.source, "gone");
    assert.equal(run.world.destination, "running", story);
    assert.ok(!run.destinationJournals.states.includes("discarded"), story);
  });
}

Deno.test("Source asks its QEMU again while that does not answer, and says DISCARD once it does", async () => {
  const silentMs = 3_000;
  let discardingAtMs = Infinity;
  let asked = 0;
  await using run = new SimulatedMigration({
    ...cannotRun,
    sourceEntered: (state, run) => {
      if (state === "discarding") discardingAtMs = run.clock.now();
    },
    destinationEntered: (state, run) => {
      if (state === "discarding") assert.ok(run.clock.now() >= discardingAtMs + silentMs);
    },
  });
  const { sourceVm, clock } = run;
  const status = sourceVm.status.bind(sourceVm);
  sourceVm.status = () => {
    if (clock.now() < discardingAtMs || clock.now() >= discardingAtMs + silentMs) return status();
    asked++;
    return Promise.reject(new Error("QMP does not answer"));
  };
  const { source } = await run.run();
  assert.ok(asked > 1, `${asked}`);
  assert.equal(source.outcome, "aborted", source.error?.message);
  assert.equal(run.world.source, "running");
  assert.equal(run.world.destination, "gone");
});

Deno.test("Source hands over a VM that runs over there after all, whether its own QEMU answers or not", async () => {
  let discarding = false;
  await using run = new SimulatedMigration({
    ...cannotRun,
    sourceEntered: (state, run) => {
      discarding = state === "discarding";
      if (discarding) void run.clock.sleep(3_000).then(() => run.destinationVm.runFails = 0);
    },
  });
  const { sourceVm } = run;
  const status = sourceVm.status.bind(sourceVm);
  sourceVm.status = () => discarding ? Promise.reject(new Error("QMP is silent")) : status();
  const { source, destination } = await run.run();
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.equal(destination.outcome, "completed", destination.error?.message);
});

Deno.test("Source.run() ends with the outcome unknown when it is cancelled while its QEMU does not answer, DISCARD owed", async () => {
  let discarding = false;
  let cancelledAtMs = Infinity;
  await using run = new SimulatedMigration({
    ...cannotRun,
    sourceEntered: (state, run) => {
      if (state !== "discarding") return;
      discarding = true;
      void run.clock.sleep(5_000).then(() => {
        cancelledAtMs = run.clock.now();
        run.stopSource.abort();
      });
    },
  });
  const { sourceVm } = run;
  const status = sourceVm.status.bind(sourceVm);
  sourceVm.status = () => discarding ? Promise.reject(new Error("QMP is silent")) : status();
  const { sourceEnds, destinationEnds } = run.start();
  const source = await Promise.race([sourceEnds, run.tooLong()]);
  assert.equal(source.outcome, "unknown", source.error?.message);
  // Not when nobody waits for it over there any more.
  assert.ok(run.clock.now() - cancelledAtMs < 5_000, `${run.clock.now() - cancelledAtMs}`);
  assert.equal(run.world.source, "postmigrate");
  assert.ok(!run.destinationJournals.states.includes("discarded"));
  run.stopDestination.abort();
  await Promise.race([destinationEnds, run.tooLong()]);
  assert.deepEqual(run.world.violations, []);
});

Deno.test("Source says DISCARD again over the connection after a cut, its QEMU still there", async () => {
  await using run = new SimulatedMigration({
    ...cannotRun,
    sourceEntered: (state, run) => state === "discarding" ? run.injector.cut() : undefined,
  });
  const { source, destination } = await run.run();
  assert.equal(source.outcome, "aborted", source.error?.message);
  assert.equal(source.sourceState, "running");
  assert.equal(destination.destinationState, "discarded");
});

Deno.test("Source gives up at once at DISCARDED that it did not ask for, and its VM runs on", async () => {
  await using run = new SimulatedMigration({
    pageCounts: [400],
    seed: 5,
    source: { liveRounds: 40, busy: true, paceMs: 50 },
    // Its ABORT is lost with the connection, and it is still at it when the source has joined again.
    destinationEntered: (state, run) => state === "discarding" ? run.clock.sleep(1_000) : undefined,
  });
  const { sourceEnds, destinationEnds } = run.start();
  while (run.destination.landedBytes === 0) await run.clock.sleep(10);
  run.injector.cut();
  run.stopDestination.abort();
  const stoppedAtMs = run.clock.now();
  const source = await Promise.race([sourceEnds, run.tooLong()]);
  assert.match(source.error?.message ?? "", /the destination discarded its copy/);
  assert.equal(source.outcome, "aborted");
  assert.equal(source.reconnects, 1);
  // Not when --reconnect is used up.
  assert.ok(run.clock.now() - stoppedAtMs < 10_000);
  assert.equal(run.world.source, "running");
  const destination = await Promise.race([destinationEnds, run.tooLong()]);
  assert.equal(destination.destinationState, "discarded");
});

for (const stands of ["io-error", "paused"] as const) {
  Deno.test(`Destination does not discard a copy that ran and then stopped by itself: ${stands}`, async () => {
    await using run = new SimulatedMigration({
      pageCounts: [4],
      source: { liveRounds: 1 },
      // Its storage takes longer than QMP waits: RESUME comes, the answer to `cont` does not.
      destination: { runAnswerLost: true },
      destinationEntered: (state, { world }) => {
        if (state !== "stuck") return;
        world.destination = stands;
        world.note(`the destination's VM stands: ${stands}`);
      },
    });
    await run.run();
    const story = run.world.log.join("\n");
    assert.deepEqual(run.world.violations, [], story);
    assert.ok(!run.destinationJournals.states.includes("discarded"), story);
  });
}
