/**
 * Somebody runs a copy with QMP `cont` while neither side's agent asked for it: what is journalled at once, and which copy
 * may no longer be run, or let go, from then on. The destination's side.
 */

import assert from "node:assert/strict";
import type { PageSink } from "../../migration/ports.ts";
import { cutAt, meddledVm, runAtDestination, small, storyOf } from "../support/by_hand.ts";
import { migrate, SimulatedMigration } from "../support/simulated_migration.ts";
import {
  crashed,
  destinationRecoveryVm,
  recoverBoth,
  recoverSide,
  unreachable,
} from "../support/simulated_recovery.ts";

/** Does `act` when QEMU has loaded the VM, before its agent hears of it. */
function behindLoad(
  { destinationVm }: SimulatedMigration,
  act: () => void | Promise<void>,
): void {
  const open = destinationVm.open.bind(destinationVm);
  destinationVm.open = async (): Promise<PageSink> => {
    const sink = await open();
    const load = sink.load;
    sink.load = async (state) => {
      await load(state);
      await act();
    };
    return sink;
  };
}

Deno.test("Destination journals that its VM was run by hand when it hears so: it may die with its host", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    sourceEntered: (state, run) => {
      if (state === "released") run.killSourceAgent();
    },
  });
  run.start();
  await Promise.race([run.sourceAgent.died, run.tooLong()]);
  await run.clock.sleep(1_000);
  runAtDestination(run);
  await run.clock.sleep(1_000);
  run.killDestinationAgent();
  run.world.destination = "gone";
  assert.equal(run.destinationJournals.states.at(-1), "ranEarly");
  const { source } = await recoverBoth(run, "destination");
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(source.outcome, "unknown");
  assert.equal(run.world.source, "postmigrate");
});

Deno.test("recover() at the destination does not say DISCARDED of a copy that was run by hand, and ended, while it waited", async () => {
  await using run = await crashed({ source: "released" });
  const vm = meddledVm(destinationRecoveryVm(run), {
    at: 4,
    meddle: () => {
      run.world.destinationRan = true;
      run.world.destination = "gone";
    },
  });
  const { source, destination } = await recoverBoth(run, "destination", { destination: vm });
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
  assert.equal(run.world.source, "postmigrate");
  assert.equal(run.destinationJournals.states.at(-1), "ranEarly");
});

for (const when of ["releasing", "refusing"] as const) {
  Deno.test(`Destination keeps a copy that was run by hand when a VM that only stood is taken back, at ${when}`, async () => {
    const { destination, run } = await migrate({
      ...small,
      before: "paused",
      ...(when === "refusing" ? { destinationDiskFails: (line) => line === 1 } : {}),
      sourceEntered: (state, run) => {
        if (state === "releasing") {
          runAtDestination(run);
          run.stopSource.abort();
        }
      },
      destinationEntered: (state, run) => {
        if (state === when) runAtDestination(run);
      },
    });
    assert.deepEqual(run.world.violations, [], storyOf(run));
    assert.equal(run.world.destination, "running", storyOf(run));
    assert.equal(destination.outcome, "unknown");
    assert.equal(run.destinationJournals.states.at(-1), "ranEarly");
  });
}

Deno.test("Destination keeps the only copy when RELEASE follows DISCARD", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    destination: { runFails: 1 },
    ...cutAt("discarding", { kind: "cutAfter", meanwhile: (run) => run.killSource() }),
  });
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(run.world.destination, "running", storyOf(run));
  assert.deepEqual([source.outcome, destination.outcome], ["completed", "completed"]);
});

Deno.test("Destination does not end the only copy that was run by hand while it loaded", async () => {
  const { destination, run } = await migrate({
    ...small,
    prepare: (run) =>
      behindLoad(run, () => {
        // `cont` in inmigrate arms its autostart again.
        runAtDestination(run);
        throw new Error("Cannot hold the VM: it runs already");
      }),
    destinationEntered: (state, run) => {
      if (state === "loading") run.killSource();
    },
  });
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(run.world.destination, "running", storyOf(run));
  assert.equal(destination.outcome, "completed");
  assert.deepEqual(run.destinationJournals.states.slice(1), ["ranEarly", "taking", "running"]);
});

Deno.test("Destination does not run a copy again that somebody ran and moved on", async () => {
  for (const before of ["running", "paused"] as const) {
    const { source, destination, run } = await migrate({
      ...small,
      before,
      limits: { reconnectMs: 5_000 },
      destinationEntered: (state, run) => {
        if (state !== "loaded") return;
        runAtDestination(run);
        run.world.destination = "postmigrate";
      },
    });
    assert.equal(run.world.destination, "postmigrate", storyOf(run));
    assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"]);
    assert.ok(!run.destinationJournals.states.includes("running"));
  }
});

Deno.test("Destination writes no `loaded` behind `ranEarly`, which says more", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    sourceEntered: (state, run) => {
      if (state === "releasing") run.killSourceAgent();
    },
    prepare: (run) => behindLoad(run, () => runAtDestination(run, "paused")),
  });
  run.start();
  await Promise.race([run.sourceAgent.died, run.tooLong()]);
  await run.clock.sleep(1_000);
  run.killDestinationAgent();
  assert.deepEqual(run.destinationJournals.states, ["open", "ranEarly"]);
});

Deno.test("recover() at the destination writes no `loaded` behind `ranEarly`, which says more", async () => {
  await using run = await crashed({ source: "releasing" });
  const lines = run.destinationJournals.lines.get(`${run.source.id}.destination`)!;
  while (lines.at(-1)!.state !== "open") lines.pop();
  const vm = meddledVm(destinationRecoveryVm(run), {
    at: 2,
    meddle: () => run.world.destinationRan = true,
  });
  await recoverSide(run, "destination", { meet: unreachable, vm });
  assert.equal(lines.at(-1)!.state, "ranEarly");
});

Deno.test("Destination does not say DISCARDED of a copy that somebody ran while it loaded, and that is gone", async () => {
  const { destination, run } = await migrate({
    ...small,
    before: "paused",
    prepare: (run) =>
      behindLoad(run, async () => {
        runAtDestination(run);
        await run.clock.sleep(5);
        run.killDestination();
        throw new Error("its QEMU has ended");
      }),
  });
  assert.equal(destination.outcome, "unknown", storyOf(run));
  assert.equal(run.destinationJournals.states.at(-1), "ranEarly");
});

for (const sourceGone of [false, true]) {
  Deno.test(
    `recover() discards no copy that somebody ran, of a VM that only stood at the source${
      sourceGone ? ", whose QEMU is gone" : ""
    }`,
    async () => {
      await using run: SimulatedMigration = new SimulatedMigration({
        ...small,
        before: "paused",
        sourceEntered: (state, run) => {
          if (state !== "releasing") return;
          runAtDestination(run);
          run.stopSource.abort();
        },
      });
      const { sourceEnds, destinationEnds } = run.start();
      await Promise.race([Promise.all([sourceEnds, destinationEnds]), run.tooLong()]);
      // Its operator's `stop`.
      run.world.destination = "paused";
      if (sourceGone) run.world.source = "gone";
      const { source, destination } = await recoverBoth(run, "destination");
      assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"]);
      assert.match(source.error!.message, /QMP `quit` here if it is to go/);
      assert.equal(run.world.destination, "paused");
      run.world.destination = "gone";
      const settled = await recoverBoth(run, "destination");
      assert.equal(settled.source.outcome, "completed", settled.source.error?.message);
    },
  );
}

Deno.test("recover() alone at the destination does not run under `taking` what the source has said went on there", async () => {
  await using run = await crashed({ destination: "taking" });
  const lines = run.destinationJournals.lines.get(`${run.source.id}.destination`)!;
  if (lines.at(-1)!.state !== "taking") {
    lines.push({ state: "taking", time: "2025-01-01T00:00:00.000Z" });
  }
  run.world.sourceRuns("somebody's cont");
  const both = await recoverBoth(run, "destination");
  assert.deepEqual([both.source.outcome, both.destination.outcome], ["unknown", "unknown"]);
  const alone = await recoverSide(run, "destination", { meet: unreachable });
  assert.equal(alone.outcome, "unknown", alone.notes.join("\n"));
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(run.world.destinationRan, false);
});
