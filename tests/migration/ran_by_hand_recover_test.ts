/**
 * Somebody runs, resets or ends a copy by hand, and `recover` is asked afterwards: what it may say, and have done.
 */

import assert from "node:assert/strict";
import { meddledVm, runAtDestination, small, storyOf } from "../support/by_hand.ts";
import { Loopback } from "../support/loopback.ts";
import { SimulatedMigration } from "../support/simulated_migration.ts";
import {
  crashed,
  recoverBoth,
  recoverSide,
  silence,
  sourceRecoveryVm,
  unreachable,
} from "../support/simulated_recovery.ts";

/** A `receive` that is stuck, and is told by the source's `recover` that the VM runs there by hand. */
async function toldWhileStuck(run: SimulatedMigration) {
  const { destinationEnds } = run.start();
  await Promise.race([run.sourceAgent.died, run.tooLong()]);
  await run.clock.sleep(500);
  assert.equal(run.destination.state, "stuck", storyOf(run));
  run.meddled = true;
  run.world.sourceRuns("somebody's cont");
  const meet = { dial: () => Promise.resolve(run.loopback.dial()) };
  const { outcome, error } = await recoverSide(run, "source", { meet });
  assert.equal(outcome, "unknown", storyOf(run));
  assert.match(error!.message, /Nothing was changed/);
  run.destinationVm.runFails = 0;
  return await Promise.race([destinationEnds, run.tooLong()]);
}

Deno.test("A living receive runs nothing more that went on at the source, as recover() there says; nor does recover() later", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    limits: { maxStopMs: 30_000, reconnectMs: 20_000 },
    destination: { runFails: 1_000_000 },
    destinationEntered: (state, run) => {
      if (state === "stuck") run.killSourceAgent();
    },
  });
  const destination = await toldWhileStuck(run);
  assert.equal(destination.outcome, "unknown", storyOf(run));
  assert.match(destination.error!.message, /went on at the source/);
  const dry = await recoverSide(run, "destination", { meet: unreachable, dryRun: true });
  assert.doesNotMatch(dry.notes.join("\n"), /runs the VM if nobody answers/);
  const alone = await recoverSide(run, "destination", { meet: unreachable });
  assert.equal(alone.outcome, "unknown", storyOf(run));
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(run.world.destinationRan, false);
  // Somebody runs this one as well: that settles nothing.
  run.world.destination = "running";
  run.world.destinationRan = true;
  const both = await recoverSide(run, "destination", { meet: unreachable });
  assert.equal(both.outcome, "unknown", storyOf(run));
});

for (const how of ["both", "alone", "declared"] as const) {
  Deno.test(`recover() announces a VM whose agent ran it and died before it said so: ${how}`, async () => {
    await using run = await crashed({ destination: "stuck" }, {
      destination: { runAnswerLost: true },
    });
    assert.equal(run.world.destination, "running");
    assert.equal(run.destinationJournals.states.at(-1), "taking");
    if (how === "both") await recoverBoth(run, "destination");
    else if (how === "alone") await recoverSide(run, "destination", { meet: unreachable });
    else await recoverSide(run, "destination", { meet: silence(), declareDead: true });
    assert.equal(run.destinationJournals.states.at(-1), "running");
    assert.equal(run.destinationVm.announced, 1, storyOf(run));
  });
}

Deno.test("recover() alone at the destination does not call a copy settled that runs, and was never released", async () => {
  await using run = await crashed({ destination: "loaded" });
  assert.equal(run.world.source, "running");
  run.world.destination = "running";
  run.world.destinationRan = true;
  const alone = await recoverSide(run, "destination", { meet: unreachable });
  assert.equal(alone.outcome, "unknown", alone.notes.join("\n"));
  assert.match(alone.error!.hint!, /run `recover` at the source/);
});

for (const at of [4, 5, 6, 7]) {
  Deno.test(`recover() lets no copy go for a source's VM that was reset meanwhile, at its look ${at}`, async () => {
    await using run = await crashed({ source: "released" });
    const real = sourceRecoveryVm(run);
    const meddle = () => {
      run.world.source = "prelaunch";
    };
    await recoverBoth(run, "destination", { source: meddledVm(real, { at, meddle }) });
    assert.ok(!run.sourceJournals.states.includes("ranHere"), storyOf(run));
    if (run.world.destinationRan) return;
    const again = await recoverBoth(run, "destination", { source: real });
    assert.match(again.source.error!.message, /was reset/);
    assert.equal(run.world.destination, "paused", storyOf(run));
  });
}

for (const last of ["loaded", "ranEarly", "taking"] as const) {
  Deno.test(`recover() runs no copy on RELEASE of a source whose VM ran, as only a dry run has said, under \`${last}\``, async () => {
    await using run = await crashed({ source: "released" });
    const { journal } = run.destinationJournals.reopen(run.source.id, "destination");
    if (last === "taking") {
      const time = new Date(0).toISOString();
      await journal.append({ state: last, time });
      // DISCARD came, and QEMU did not answer.
      await journal.append({ state: last, time, sourceWentOn: true });
    } else if (last === "ranEarly") {
      run.world.destinationRan = true;
      await journal.append({ state: last, time: new Date(0).toISOString() });
    }
    run.world.sourceRuns("somebody's cont");
    const listener = new Loopback();
    const listens = recoverSide(run, "destination", { meet: { listener } });
    const meet = { dial: () => Promise.resolve(listener.dial()) };
    await recoverSide(run, "source", { meet, dryRun: true });
    await listens;
    run.killSource();
    const { source, destination } = await recoverBoth(run, "destination");
    assert.equal(run.world.destination, "paused", storyOf(run));
    assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
  });
}

Deno.test("A living receive that heard so in `loaded` answers RELEASE of a source that is gone with ABORT", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    limits: { reconnectMs: 60_000, maxStopMs: 30_000 },
    sourceEntered: (state, run) => void (state === "released" && run.killSourceAgent()),
  });
  const { destinationEnds } = run.start();
  await Promise.race([run.sourceAgent.died, run.tooLong()]);
  await run.clock.sleep(500);
  assert.equal(run.destination.state, "loaded", storyOf(run));
  run.meddled = true;
  run.world.sourceRuns("somebody's cont");
  const meet = { dial: () => Promise.resolve(run.loopback.dial()) };
  await recoverSide(run, "source", { meet, dryRun: true });
  run.killSource();
  const source = await recoverSide(run, "source", { meet });
  assert.match(source.error!.message, /it went on at the source/, storyOf(run));
  const destination = await Promise.race([destinationEnds, run.tooLong()]);
  assert.equal(destination.outcome, "unknown");
  assert.equal(run.world.destinationRan, false, storyOf(run));
});

Deno.test("A living receive that is told so by recover() lets its copy go on DISCARD, though its disk is full", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    limits: { reconnectMs: 60_000, maxStopMs: 30_000 },
    destinationDiskFails: (append) => append >= 2,
    destinationEntered: (state, run) => void (state === "stuck" && run.killSourceAgent()),
  });
  const { destinationEnds } = run.start();
  await Promise.race([run.sourceAgent.died, run.tooLong()]);
  await run.clock.sleep(500);
  run.meddled = true;
  run.world.sourceRuns("somebody's cont");
  const meet = { dial: () => Promise.resolve(run.loopback.dial()) };
  const source = await recoverSide(run, "source", { meet });
  const destination = await Promise.race([destinationEnds, run.tooLong()]);
  assert.deepEqual([source.outcome, destination.outcome], ["completed", "aborted"], storyOf(run));
  assert.equal(run.world.destination, "gone");
});

for (const how of ["dry run", "full disk"] as const) {
  Deno.test(`recover() runs no copy on RELEASE of which the destination's journal says that the source's VM ran: ${how}`, async () => {
    let full = false;
    await using run = await crashed({ destination: "stuck" }, {
      destination: { runFails: 1 },
      sourceDiskFails: () => full,
    });
    run.world.sourceRuns("somebody's cont");
    full = how === "full disk";
    const listener = new Loopback();
    const leaves = new AbortController();
    const listens = recoverSide(run, "destination", { meet: { listener }, signal: leaves.signal });
    const meet = { dial: () => Promise.resolve(listener.dial()) };
    await recoverSide(run, "source", { meet, dryRun: how === "dry run" });
    leaves.abort();
    await listens;
    full = false;
    // It has run for hours, and died.
    run.world.source = "gone";
    const { source, destination } = await recoverBoth(run, "destination");
    assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
    assert.match(source.error!.message, /older than what ran at the source/);
    assert.equal(run.world.destinationRan, false, storyOf(run));
  });
}

for (const last of ["ranEarly", "taking"] as const) {
  Deno.test(`recover() at the destination does not call settled what the source calls a conflict, under \`${last}\``, async () => {
    await using run = last === "ranEarly"
      ? await crashed({ destination: "loaded" })
      : await crashed({ destination: "stuck" }, { destination: { runFails: 1 } });
    if (last === "taking") {
      run.world.sourceRuns("somebody's cont");
      await recoverBoth(run, "destination");
    }
    run.world.destination = "running";
    run.world.destinationRan = true;
    const { source, destination } = await recoverBoth(run, "destination");
    assert.equal(run.destinationJournals.states.at(-1), last);
    assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
  });
}

Deno.test("recover() says what to do about a copy that is taken when the source's VM was run, and is gone", async () => {
  await using run = await crashed({ destination: "stuck" }, { destination: { runFails: 1 } });
  run.world.sourceRuns("somebody's cont");
  await recoverSide(run, "source", { meet: unreachable });
  run.world.source = "gone";
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "unknown");
  assert.match(source.error!.hint!, /to give it up, and start the VM anew/);
});

Deno.test("recover() settles what was put right by hand, and says what is lost", async () => {
  await using run = await crashed({ source: "released" });
  run.world.sourceRuns("somebody's cont");
  await recoverSide(run, "source", { meet: unreachable });
  // QMP `quit` to the copy that must not run, only then `cont` to the other.
  run.world.source = "gone";
  run.world.destination = "running";
  run.world.destinationRan = true;
  const { source, destination } = await recoverBoth(run, "destination");
  assert.deepEqual([source.outcome, destination.outcome], ["completed", "completed"]);
  assert.match(source.notes.join("\n"), /what it did at the source.* is lost/);
  assert.deepEqual(run.sourceJournals.states.slice(-2), ["ranHere", "done"]);
});

Deno.test("recover() says that it cannot know when the line `releasing` is damaged", async () => {
  await using run = await crashed({ source: "released" });
  const journal = run.sourceJournals.lines.get(`${run.source.id}.source`)!;
  journal.splice(journal.findIndex(({ state }) => state === "releasing"), 1);
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "unknown");
  assert.match(source.error!.message, /missing or damaged/);
  assert.equal(run.world.destination, "paused");
  assert.ok(!run.sourceJournals.states.includes("ranHere"));
});

Deno.test("Source says so when it cannot journal that somebody ran its VM", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    sourceDiskFails: (line) => line >= 3,
    destination: { runFails: 1_000_000 },
    limits: { maxStopMs: 5_000, reconnectMs: 5_000 },
    destinationEntered: (state, run) => {
      if (state !== "stuck" || run.meddled) return;
      run.meddled = true;
      run.sourceVm.runByOthers();
      run.world.source = "gone";
    },
  });
  const source = await Promise.race([run.start().sourceEnds, run.tooLong()]);
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.equal(source.sourceState, "gone");
  assert.match(source.warnings.join("\n"), /the journal does not say so.*never let `recover`/);
});

Deno.test("A copy that somebody's `cont` runs as soon as it is loaded is the VM: it is released, and the source's ended", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    prepare: ({ destinationVm }) => {
      const open = destinationVm.open.bind(destinationVm);
      destinationVm.open = async () => {
        const sink = await open();
        const load = sink.load;
        sink.load = async (state) => {
          await load(state);
          runAtDestination(run);
          throw new Error("Cannot hold the VM: it runs already");
        };
        return sink;
      };
    },
  });
  const { sourceEnds, destinationEnds } = run.start();
  const ends = Promise.all([sourceEnds, destinationEnds]);
  const [source, destination] = await Promise.race([ends, run.tooLong()]);
  assert.deepEqual([source.outcome, destination.outcome], ["completed", "completed"]);
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.deepEqual(run.destinationJournals.states, ["open", "ranEarly", "taking", "running"]);
  assert.equal(run.world.source, "gone");
});

Deno.test("recover() alone runs no copy that a living receive was told to discard, and could not", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    limits: { maxStopMs: 3_000, reconnectMs: 20_000 },
    destination: { runFails: 1_000_000 },
    destinationEntered: (state, run) => {
      if (state !== "stuck" || run.meddled) return;
      run.meddled = true;
      run.destinationVm.status = () => Promise.reject(new Error("no answer"));
      run.sourceVm.runByOthers();
    },
  });
  const { destinationEnds } = run.start();
  const destination = await Promise.race([destinationEnds, run.tooLong()]);
  assert.equal(destination.outcome, "unknown", storyOf(run));
  run.destinationVm.runFails = 0;
  const alone = await recoverSide(run, "destination", { meet: unreachable });
  assert.equal(alone.outcome, "unknown", alone.notes.join("\n"));
  assert.deepEqual(run.world.violations, [], storyOf(run));
});

Deno.test("Source ends when its QEMU hangs behind SHUT(0), and the wire is cut for good", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    limits: { reconnectMs: 5_000 },
    prepare: ({ sourceVm }) => {
      sourceVm.release = () => new Promise(() => {});
    },
    sourceEntered: (state, run) => {
      if (state === "releasing") void run.clock.sleep(100).then(() => run.killDestinationAgent());
    },
  });
  const source = await Promise.race([run.start().sourceEnds, run.tooLong()]);
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.deepEqual(run.sourceJournals.states, ["open", "releasing"]);
});
