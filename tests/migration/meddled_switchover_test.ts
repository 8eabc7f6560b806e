/**
 * Somebody else's hand on one of the two QEMUs during the switchover, and an end that is not what it seems: what may
 * run then, and what is let go.
 */

import assert from "node:assert/strict";
import type { PageSink } from "../../migration/ports.ts";
import { migrate, SimulatedMigration } from "../support/simulated_migration.ts";

const small = { pageCounts: [4], seed: 5, source: { liveRounds: 1 } };

function storyOf(run: SimulatedMigration): string {
  return run.world.log.join("\n");
}

Deno.test("Source takes its VM back when it is seen to run here, and the destination cannot run it", async () => {
  for (const then of ["running", "paused"] as const) {
    let meddled = false;
    const { source, destination, run } = await migrate({
      ...small,
      destination: { runFails: 6 },
      destinationEntered: (state, run) => {
        if (state !== "stuck" || meddled) return;
        meddled = run.meddled = true;
        run.world.sourceRuns("somebody's cont");
        run.world.source = then;
      },
    });
    assert.deepEqual(run.world.violations, [], storyOf(run));
    assert.equal(source.outcome, "aborted", storyOf(run));
    assert.equal(source.sourceState, then);
    assert.equal(run.world.source, then);
    assert.equal(run.world.destination, "gone");
    assert.equal(destination.destinationState, "discarded");
    assert.equal(run.world.destinationRan, false);
  }
});

Deno.test("Source does not end a QEMU that somebody runs by the time the VM runs at the destination", async () => {
  await using run = new SimulatedMigration({
    ...small,
    sourceEntered: (state, run) => {
      if (state === "done") run.world.source = "running";
    },
  });
  const { sourceEnds } = run.start();
  const source = await sourceEnds;
  assert.equal(source.outcome, "completed");
  assert.equal(run.world.source, "running", storyOf(run));
  assert.equal(source.sourceState, "unknown");
  assert.match(source.warnings.join(), /may run in the source's QEMU, which is running/);
});

for (const sourceGone of [false, true]) {
  const how = sourceGone ? "stays when the source's QEMU is gone" : "goes when the source says so";
  Deno.test(`Destination's copy that was loaded all the same, whatever load() says, ${how}`, async () => {
    const { source, destination, run } = await migrate({
      ...small,
      prepare: ({ destinationVm }) => {
        const open = destinationVm.open.bind(destinationVm);
        destinationVm.open = async (): Promise<PageSink> => {
          const sink = await open();
          const load = sink.load;
          sink.load = async (state) => {
            await load(state);
            throw new Error("it lives, but its monitor has closed");
          };
          return sink;
        };
      },
      destinationEntered: (state, run) => {
        if (state === "loading" && sourceGone) run.killSource();
      },
    });
    assert.deepEqual(run.world.violations, [], storyOf(run));
    if (sourceGone) {
      assert.equal(run.world.destination, "paused", storyOf(run));
      assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"]);
      assert.ok(!run.destinationJournals.states.includes("discarded"));
    } else {
      assert.equal(run.world.source, "running", storyOf(run));
      assert.deepEqual([source.outcome, destination.outcome], ["aborted", "aborted"]);
      assert.equal(run.destinationJournals.states.at(-1), "discarded");
    }
  });
}

for (const when of ["loaded", "taking"] as const) {
  Deno.test(`Destination says neither RUNNING nor DISCARDED of a QEMU that somebody ran and that is gone, at ${when}`, async () => {
    const { source, destination, run } = await migrate({
      ...small,
      destinationEntered: (state, run) => {
        if (state !== when) return;
        run.meddled = true;
        run.world.destinationRan = true;
        run.killDestination();
      },
    });
    assert.equal(destination.outcome, "unknown", storyOf(run));
    assert.match(destination.error!.message, /the VM ran here/);
    assert.equal(source.outcome, "unknown", storyOf(run));
    // What is left of the VM, older or not, is here for somebody to decide on.
    assert.equal(run.world.source, "postmigrate", storyOf(run));
    assert.ok(!run.sourceJournals.states.includes("done"));
    assert.equal(run.destinationJournals.states.at(-1), "taking");
  });
}
