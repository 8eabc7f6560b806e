/**
 * Somebody else's hand on one of the two QEMUs during the switchover, and an end that is not what it seems: what may
 * run then, and what is let go.
 */

import assert from "node:assert/strict";
import type { PageSink } from "../../migration/ports.ts";
import { migrate, SimulatedMigration } from "../support/simulated_migration.ts";
import { recoverBoth, recoverSide, unreachable } from "../support/simulated_recovery.ts";

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

Deno.test("Source says that the VM may run twice, and ends no QEMU, when somebody runs it here meanwhile", async () => {
  await using run = new SimulatedMigration({
    ...small,
    destinationEntered: (state, run) => {
      if (state === "running") run.world.source = "running";
    },
  });
  const { sourceEnds } = run.start();
  const source = await sourceEnds;
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.match(
    source.error!.message,
    /runs at the destination, and somebody has run it at the source/,
  );
  assert.equal(run.world.source, "running");
  assert.ok(!run.sourceJournals.states.includes("done"));
});

for (const when of ["discarding", "returning"] as const) {
  Deno.test(`Source takes no VM back that somebody reset, at ${when}`, async () => {
    const { source, run } = await migrate({
      ...small,
      destination: { runFails: 99 },
      sourceEntered: (state, run) => {
        if (state !== when) return;
        run.meddled = true;
        run.world.source = "prelaunch";
      },
    });
    assert.equal(source.outcome, "unknown", storyOf(run));
    assert.match(source.error!.message, /was reset/);
    assert.equal(run.world.source, "prelaunch");
    assert.ok(!run.sourceJournals.states.includes("aborted"));
    // DISCARD was not said for it.
    assert.equal(run.world.destination, when === "discarding" ? "paused" : "gone", storyOf(run));
  });
}

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
    assert.equal(run.destinationJournals.states.at(-1), when === "loaded" ? "ranEarly" : "taking");
  });
}

Deno.test("Destination journals that somebody ran its copy before it leaves it", async () => {
  await using run = new SimulatedMigration({
    ...small,
    destinationEntered: (state, run) => {
      if (state !== "loaded") return;
      run.world.destination = "running";
      run.world.destinationRan = true;
      run.stopDestination.abort();
    },
  });
  const { destinationEnds } = run.start();
  const destination = await destinationEnds;
  assert.equal(destination.outcome, "unknown", storyOf(run));
  assert.equal(destination.destinationState, "unknown");
  assert.deepEqual(run.destinationJournals.states, ["open", "loaded", "ranEarly"]);
  assert.deepEqual(run.world.violations, []);
});

Deno.test("recover() runs no copy unasked that somebody ran and stopped before RELEASE", async () => {
  for (const sourceDies of [false, true]) {
    await using run = new SimulatedMigration({
      ...small,
      destinationEntered: (state, run) => {
        if (state !== "loaded") return;
        run.world.destinationRan = true;
        if (sourceDies) run.killSourceAgent();
        run.stopDestination.abort();
      },
    });
    const { sourceEnds, destinationEnds } = run.start();
    await destinationEnds;
    await Promise.race([sourceEnds, run.sourceAgent.died]);
    await run.clock.sleep(100);
    await run.sourceVm.settled();
    assert.equal(run.world.source, "running", storyOf(run));
    const alone = await recoverSide(run, "destination", { meet: unreachable });
    assert.equal(alone.outcome, "unknown");
    assert.equal(run.world.destination, "paused");
    // It ran on at the source, and was shut down there.
    if (sourceDies) run.world.source = "gone";
    const { source } = await recoverBoth(run, "destination");
    assert.equal(source.outcome, sourceDies ? "unknown" : "completed", source.error?.message);
    assert.equal(run.world.destination, sourceDies ? "paused" : "gone", storyOf(run));
  }
});

Deno.test("Source says RELEASE no more for a VM that was reset to a destination whose QEMU is gone", async () => {
  const { source, run } = await migrate({
    ...small,
    sourceEntered: async (state, run) => {
      if (state !== "released") return;
      run.world.source = "prelaunch";
      run.killDestination();
      await run.clock.sleep(500);
    },
  });
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.match(source.error!.message, /was reset/);
});

for (const disk of ["source", "destination"] as const) {
  Deno.test(`Destination ends no copy on DISCARD that somebody ran, the ${disk}'s disk being full`, async () => {
    await using run = new SimulatedMigration({
      ...small,
      destinationEntered: (state, run) => {
        if (state !== "loaded") return;
        run.world.destination = "running";
        run.world.destinationRan = true;
      },
      // Each side's third line: `released`, and `taking`.
      ...(disk === "source"
        ? { sourceDiskFails: (line: number) => line >= 2 }
        : { destinationDiskFails: (line: number) => line >= 2 }),
      limits: { reconnectMs: 5_000, maxStopMs: 1_000 },
    });
    const { sourceEnds, destinationEnds } = run.start();
    const destination = await destinationEnds;
    const source = await sourceEnds;
    assert.deepEqual(run.world.violations, [], storyOf(run));
    assert.equal(run.world.destination, "running", storyOf(run));
    assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
    assert.equal(run.world.source, "postmigrate");
  });
}

Deno.test("Destination does not boot a VM anew that somebody reset: it goes back to the source", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    destinationEntered: (state, run) => {
      if (state === "loaded") run.world.destination = "prelaunch";
    },
  });
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(run.destinationVm.runs, 0);
  assert.equal(source.outcome, "aborted", storyOf(run));
  assert.equal(run.world.source, "running");
  assert.equal(destination.destinationState, "discarded");
});
