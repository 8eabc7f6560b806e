/**
 * A destination that is to give its copy up, or wants to end, and whose QEMU or disk does not go along.
 */

import assert from "node:assert/strict";
import { small, storyOf } from "../support/by_hand.ts";
import {
  SimulatedMigration,
  type SimulatedMigrationOptions,
} from "../support/simulated_migration.ts";
import { crashed, recoverBoth } from "../support/simulated_recovery.ts";

/** QEMU takes EOF, and hangs. */
function hangsLoading(run: SimulatedMigration): void {
  const open = run.destinationVm.open.bind(run.destinationVm);
  run.destinationVm.open = async () => {
    const sink = await open();
    sink.load = () => new Promise(() => {});
    return sink;
  };
}

async function endsOf(options: SimulatedMigrationOptions) {
  const run = new SimulatedMigration({ ...small, ...options });
  const { sourceEnds, destinationEnds } = run.start();
  const [source, destination] = await Promise.race([
    Promise.all([sourceEnds, destinationEnds]),
    run.tooLong(),
  ]);
  return { run, source, destination };
}

Deno.test("Destination ends at Ctrl-C when its QEMU hangs while it loads, and nobody tells it what to do", async () => {
  const { run, source, destination } = await endsOf({
    prepare: hangsLoading,
    dialFails: (run) => run.destination.state === "loading",
    destinationEntered: (state, run) => {
      if (state !== "loading") return;
      void run.clock.sleep(50).then(() => {
        run.injector.cut();
        run.stopDestination.abort();
      });
    },
  });
  await using _ = run;
  assert.equal(source.outcome, "aborted", storyOf(run));
  assert.equal(run.world.source, "running");
  assert.equal(destination.outcome, "unknown", storyOf(run) + destination.error?.message);
  assert.equal(destination.destinationState, "unknown");
});

Deno.test("Destination ends a QEMU that hangs while it loads, once the source has said ABORT", async () => {
  const { run, source, destination } = await endsOf({
    limits: { maxStopMs: 2_000 },
    prepare: hangsLoading,
  });
  await using _ = run;
  assert.deepEqual([source.outcome, destination.outcome], ["aborted", "aborted"], storyOf(run));
  assert.equal(run.world.source, "running");
  assert.equal(destination.destinationState, "discarded");
  assert.equal(run.world.destination, "gone");
});

Deno.test("Destination does not call a migration aborted whose copy it was told to end, and could not", async () => {
  const { run, source, destination } = await endsOf({
    limits: { reconnectMs: 5_000 },
    destination: { runFails: 1_000_000 },
    prepare: (run) => {
      run.destinationVm.quit = () => Promise.reject(new Error("Cannot end QEMU 7"));
    },
  });
  await using _ = run;
  assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
  assert.match(destination.error!.message, /Cannot end QEMU 7/);
  assert.equal(run.world.source, "postmigrate");
});

Deno.test("Destination says DISCARDED without a line `discarded` behind `taking`: its QEMU is gone, and never ran", async () => {
  const { run, source, destination } = await endsOf({
    limits: { reconnectMs: 5_000 },
    destination: { runFails: 1_000_000 },
    // Behind open, loaded and taking.
    destinationDiskFails: (append) => append === 3,
  });
  await using _ = run;
  assert.deepEqual([source.outcome, destination.outcome], ["aborted", "aborted"], storyOf(run));
  assert.deepEqual(run.destinationJournals.states, ["open", "loaded", "taking"]);
  assert.ok(run.notes.some((note) => note.includes("no space left")), `${run.notes}`);
  assert.equal(run.world.source, "running");
  const recovered = await recoverBoth(run, "destination");
  assert.equal(recovered.source.outcome, "completed", storyOf(run));
  assert.equal(recovered.destination.outcome, "completed", storyOf(run));
  assert.equal(run.world.source, "running");
});

Deno.test("recover() says DISCARDED without that line, too", async () => {
  await using run = await crashed({ source: "released" }, {
    destination: { runFails: 1_000_000 },
    destinationDiskFails: (append) => append === 3,
  });
  const { source, destination } = await recoverBoth(run, "destination");
  assert.deepEqual([source.outcome, destination.outcome], ["completed", "completed"], storyOf(run));
  assert.deepEqual(run.destinationJournals.states, ["open", "loaded", "taking"]);
  assert.equal(run.world.source, "running", storyOf(run));
});

for (const when of ["the state is entered", "the answer is read"] as const) {
  Deno.test(`Destination does not say DISCARDED of a copy that somebody ran right when ${when}`, async () => {
    const ran = (run: SimulatedMigration) => {
      run.meddled = true;
      run.world.destinationRan = true;
      run.destinationVm.onEnd?.({ kind: "resumed", text: "somebody else made the VM run" });
    };
    const { run, source, destination } = await endsOf({
      limits: { reconnectMs: 5_000 },
      destination: { runFails: 1_000_000 },
      prepare: (run) => {
        if (when === "the state is entered") return;
        const status = run.destinationVm.status.bind(run.destinationVm);
        run.destinationVm.status = async () => {
          const state = await status();
          if (run.source.state === "discarding" && !run.meddled) {
            run.meddled = true;
            // Behind those who wait for the answer.
            void Promise.resolve().then(() => {}).then(() => {}).then(() => ran(run));
          }
          return state;
        };
      },
      destinationEntered: async (state, run) => {
        if (when !== "the state is entered" || state !== "discarding") return;
        await run.clock.sleep(5);
        ran(run);
      },
    });
    await using _ = run;
    assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
  });
}
