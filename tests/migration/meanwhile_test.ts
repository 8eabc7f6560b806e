/**
 * What comes while a disk, or a QEMU, is waited for: it counts before the next step is taken.
 */

import assert from "node:assert/strict";
import type { MigrationResult } from "../../migration/result.ts";
import { meddledVm, small, storyOf } from "../support/by_hand.ts";
import type { MemoryJournals } from "../support/memory_journal.ts";
import { SimulatedMigration } from "../support/simulated_migration.ts";
import {
  crashed,
  destinationRecoveryVm,
  recoverBoth,
  recoverSide,
  sourceRecoveryVm,
  unreachable,
} from "../support/simulated_recovery.ts";

/** The disk needs `ms` for the line `state`. */
function slowLine(
  run: SimulatedMigration,
  journals: MemoryJournals,
  { state, ms, meanwhile }: { state: string; ms: number; meanwhile?: () => void },
): void {
  journals.beforeLine = async (entry) => {
    if (entry.state !== state) return;
    meanwhile?.();
    await run.clock.sleep(ms);
  };
}

/** QEMU needs `ms` to say how it stands. */
function slowStatus(run: SimulatedMigration, side: "sourceVm" | "destinationVm", ms: number): void {
  const vm = run[side];
  const status = vm.status.bind(vm);
  vm.status = async () => {
    await run.clock.sleep(ms);
    return await status();
  };
}

/** Somebody's `cont` at the source. */
function runAtSource(run: SimulatedMigration): void {
  run.meddled = true;
  run.sourceVm.runByOthers();
}

async function ends(run: SimulatedMigration): Promise<[MigrationResult, MigrationResult]> {
  const { sourceEnds, destinationEnds } = run.start();
  return await Promise.race([Promise.all([sourceEnds, destinationEnds]), run.tooLong()]);
}

for (
  const [what, prepare] of Object.entries<(run: SimulatedMigration) => void>({
    "`taking` is written": (run) =>
      slowLine(run, run.destinationJournals, { state: "taking", ms: 500 }),
    "its QEMU is asked how it stands": (run) => slowStatus(run, "destinationVm", 500),
  })
) {
  Deno.test(`Destination obeys a DISCARD that comes while ${what}`, async () => {
    await using run: SimulatedMigration = new SimulatedMigration({
      ...small,
      limits: { reconnectMs: 5_000 },
      prepare,
      destinationEntered: (state, run) => {
        if (state === "taking") void run.clock.sleep(50).then(() => runAtSource(run));
      },
    });
    const [source, destination] = await ends(run);
    assert.deepEqual([source.outcome, destination.outcome], ["aborted", "aborted"], storyOf(run));
    assert.equal(run.world.destinationRan, false, storyOf(run));
  });
}

for (const disk of ["full", "slow"] as const) {
  Deno.test(`A living receive whose disk is ${disk} runs nothing that went on at the source, as recover() there says`, async () => {
    let full = disk === "full";
    const step = disk === "full" ? "stuck" : "taking";
    await using run: SimulatedMigration = new SimulatedMigration({
      ...small,
      limits: { reconnectMs: 60_000, maxStopMs: 30_000 },
      destinationDiskFails: (append) => append >= 2 && full,
      prepare: (run) => {
        if (!full) slowLine(run, run.destinationJournals, { state: "taking", ms: 5_000 });
      },
      destinationEntered: (state, run) => void (state === step && run.killSourceAgent()),
    });
    const { destinationEnds } = run.start();
    await Promise.race([run.sourceAgent.died, run.tooLong()]);
    await run.clock.sleep(500);
    assert.equal(run.destination.state, step, storyOf(run));
    run.meddled = true;
    run.world.sourceRuns("somebody's cont");
    const meet = { dial: () => Promise.resolve(run.loopback.dial()) };
    await recoverSide(run, "source", { meet, dryRun: disk === "full" });
    await run.clock.sleep(500);
    full = false;
    const destination = await Promise.race([destinationEnds, run.tooLong()]);
    assert.equal(run.world.destinationRan, false, storyOf(run));
    assert.equal(destination.outcome, "unknown");
  });
}

Deno.test("Source says DISCARD as soon as it hears its VM run, without asking a QEMU that is slow", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    limits: { reconnectMs: 5_000, maxStopMs: 30_000 },
    // Some two seconds.
    destination: { runFails: 10 },
    destinationEntered: (state, run) => {
      if (state !== "stuck" || run.meddled) return;
      slowStatus(run, "sourceVm", 1_500);
      runAtSource(run);
    },
  });
  const [source] = await ends(run);
  assert.equal(source.outcome, "aborted", storyOf(run));
  assert.equal(run.world.destinationRan, false, storyOf(run));
});

for (const when of ["behind five silent seconds", "between two tries of cont"] as const) {
  Deno.test(`RELEASE takes DISCARD back of a source whose QEMU is killed, ${when} of the destination's`, async () => {
    const silentMs = when === "between two tries of cont" ? 0 : 5_000;
    let silent = false;
    let stuck = false;
    await using run: SimulatedMigration = new SimulatedMigration({
      ...small,
      limits: { reconnectMs: 20_000, maxStopMs: 30_000 },
      destination: { runFails: 1_000_000 },
      prepare: (run) => {
        const status = run.destinationVm.status.bind(run.destinationVm);
        run.destinationVm.status = async () => {
          if (silent) throw new Error("QEMU does not answer just now");
          return await status();
        };
      },
      destinationEntered: (state, run) => {
        if (state !== "stuck" || stuck) return;
        stuck = true;
        silent = silentMs > 0;
        void run.clock.sleep(20).then(() => run.killSource());
        void run.clock.sleep(20 + silentMs).then(() => {
          silent = false;
          run.destinationVm.runFails = 0;
        });
      },
    });
    const [source, destination] = await ends(run);
    assert.deepEqual([source.outcome, destination.outcome], ["completed", "completed"]);
    assert.equal(source.sourceState, "gone");
    assert.equal(run.world.destination, "running", storyOf(run));
  });
}

Deno.test("Destination does not say DISCARDED of a copy that somebody's cont ran before `quit` ended it", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    destination: { runFails: 1_000_000 },
    prepare: (run) => {
      const quit = run.destinationVm.quit.bind(run.destinationVm);
      run.destinationVm.quit = async () => {
        run.meddled = true;
        run.world.destinationRan = true;
        run.world.destination = "gone";
        await quit();
      };
    },
  });
  const [source, destination] = await ends(run);
  assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
  assert.equal(run.world.source, "postmigrate", storyOf(run));
});

Deno.test("recover() at the destination does not say DISCARDED of such a copy either", async () => {
  await using run = await crashed({ destination: "loaded" });
  assert.equal(run.world.source, "running");
  const vm = destinationRecoveryVm(run);
  vm.quit = () => {
    run.world.destinationRan = true;
    run.world.destination = "gone";
    return Promise.resolve();
  };
  const { source, destination } = await recoverBoth(run, "destination", { destination: vm });
  assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
});

for (const meddled of ["prelaunch", "postmigrate"] as const) {
  const what = meddled === "prelaunch" ? "was reset" : "somebody ran and moved on";

  Deno.test(`recover() at the destination does not say cont to a VM that ${what} while \`taking\` was written`, async () => {
    await using run = await crashed({ source: "released" });
    let conts = 0;
    const vm = destinationRecoveryVm(run);
    vm.resume = () => Promise.resolve(void conts++);
    const meanwhile = () => {
      run.world.destinationRan = meddled === "postmigrate";
      run.world.destination = meddled;
    };
    slowLine(run, run.destinationJournals, { state: "taking", ms: 50, meanwhile });
    await recoverBoth(run, "destination", { destination: vm });
    assert.equal(conts, 0, storyOf(run));
    // Where it was reset the source's is the only one that is whole; where it was moved on it is nobody's here.
    assert.equal(run.world.source, meddled === "prelaunch" ? "running" : "gone", storyOf(run));
  });

  Deno.test(`recover() at the source does not say cont to a VM that ${what} while \`aborted\` was written`, async () => {
    await using run = await crashed({ source: "released" });
    let conts = 0;
    const vm = sourceRecoveryVm(run);
    vm.resume = () => Promise.resolve(void conts++);
    const meanwhile = () => {
      if (meddled === "postmigrate") run.world.sourceRuns("somebody's cont");
      run.world.source = meddled;
    };
    slowLine(run, run.sourceJournals, { state: "aborted", ms: 50, meanwhile });
    const again = () => recoverSide(run, "source", { meet: unreachable, declareDead: true, vm });
    assert.equal((await again()).outcome, "unknown", storyOf(run));
    await again();
    assert.equal(conts, 0, storyOf(run));
  });
}

for (const meddled of ["gone", "prelaunch"] as const) {
  Deno.test(`recover() throws no copy away for a VM that became ${meddled} while \`aborted\` was written`, async () => {
    await using run = await crashed({ source: "released" });
    const meanwhile = () => {
      if (meddled === "gone") run.killSource();
      else run.world.source = meddled;
    };
    slowLine(run, run.sourceJournals, { state: "aborted", ms: 50, meanwhile });
    const alone = await recoverSide(run, "source", { meet: unreachable, declareDead: true });
    assert.equal(alone.outcome, "unknown", storyOf(run));
    run.sourceJournals.beforeLine = () => Promise.resolve();
    const { source, destination } = await recoverBoth(run, "destination");
    assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
    assert.equal(run.world.destination, "paused", storyOf(run));
    run.killDestination();
    const again = await recoverBoth(run, "destination");
    assert.match(again.source.error!.message, /start the VM anew/, storyOf(run));
  });
}

Deno.test("recover() brings the VM back when the destination's QEMU dies while `taking` is written: it never ran", async () => {
  await using run = await crashed({ source: "released" });
  const meanwhile = () => run.killDestination();
  slowLine(run, run.destinationJournals, { state: "taking", ms: 50, meanwhile });
  const { source, destination } = await recoverBoth(run, "destination");
  assert.deepEqual([source.outcome, destination.outcome], ["completed", "completed"]);
  assert.equal(run.world.source, "running", storyOf(run));
});

Deno.test("recover() does not call a VM settled that somebody has run at the source while `done` was written", async () => {
  await using run = await crashed({ source: "released" });
  const vm = sourceRecoveryVm(run);
  const meanwhile = () => {
    run.world.source = "running";
    run.world.sourceRanOn = true;
    vm.onRun?.();
  };
  slowLine(run, run.sourceJournals, { state: "done", ms: 50, meanwhile });
  const { source } = await recoverBoth(run, "destination", { source: vm });
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.match(source.error!.message, /somebody has run it at the source/);
});

Deno.test("Destination says no cont to a VM that was reset, whose QEMU does not answer just now", async () => {
  let silent = false;
  let conts = 0;
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    limits: { reconnectMs: 5_000 },
    prepare: (run) => {
      const { destinationVm } = run;
      const status = destinationVm.status.bind(destinationVm);
      destinationVm.status = async () => {
        if (!silent) return await status();
        await run.clock.sleep(2_000);
        throw new Error("QEMU does not answer");
      };
      destinationVm.run = () => {
        conts++;
        return Promise.resolve(run.clock.now());
      };
    },
    destinationEntered: (state, run) => {
      if (state !== "taking") return;
      run.meddled = true;
      run.world.destination = "prelaunch";
      silent = true;
    },
  });
  const [source, destination] = await ends(run);
  assert.equal(conts, 0, storyOf(run));
  assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"], storyOf(run));
});

Deno.test("recover() at the destination writes no `loaded` behind a `ranEarly` that is on its way to the disk", async () => {
  await using run = await crashed({ source: "released" });
  const journal = run.destinationJournals.lines.get(`${run.source.id}.destination`)!;
  while (journal.at(-1)!.state !== "open") journal.pop();
  const real = destinationRecoveryVm(run);
  slowLine(run, run.destinationJournals, { state: "ranEarly", ms: 200 });
  const meddle = () => {
    run.world.destination = "running";
    run.world.destinationRan = true;
  };
  const vm = meddledVm(real, { at: 2, meddle });
  await recoverSide(run, "destination", { meet: unreachable, vm });
  assert.deepEqual(journal.map(({ state }) => state), ["open", "ranEarly"], storyOf(run));
  run.killDestination();
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.equal(run.world.source, "postmigrate");
});

Deno.test("recover() says so when the journal does not say that the VM goes on at the source", async () => {
  await using run = await crashed({ source: "released" });
  let lines = 0;
  run.sourceJournals.beforeLine = () =>
    ++lines > 1 ? Promise.reject(new Error("no space left on device")) : Promise.resolve();
  const { outcome, notes } = await recoverSide(run, "source", {
    meet: unreachable,
    declareDead: true,
  });
  assert.equal(outcome, "completed", storyOf(run));
  assert.equal(run.world.source, "running");
  assert.ok(notes.some((note) => /never run the copy over there/.test(note)), `${notes}`);
});
