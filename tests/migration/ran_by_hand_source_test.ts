/**
 * Somebody runs a copy with QMP `cont` while neither side's agent asked for it: what is journalled at once, and which copy
 * may no longer be run, or let go, from then on. The source's side.
 */

import assert from "node:assert/strict";
import { MigrationError } from "../../migration/errors.ts";
import { resultHint } from "../../cli/hints.ts";
import { cutAt, meddledVm, small, storyOf } from "../support/by_hand.ts";
import { migrate, SimulatedMigration } from "../support/simulated_migration.ts";
import {
  crashed,
  destinationRecoveryVm,
  recoverBoth,
  recoverSide,
  sourceRecoveryVm,
  unreachable,
} from "../support/simulated_recovery.ts";

for (const then of ["running", "paused"] as const) {
  Deno.test(`Source says RELEASE to no connection more when its VM was run by hand, ${then} since`, async () => {
    const { source, destination, run } = await migrate({
      ...small,
      ...cutAt("released", {
        meanwhile: (run) => {
          run.sourceVm.runByOthers();
          run.world.source = then;
        },
      }),
    });
    assert.deepEqual(run.world.violations, [], storyOf(run));
    assert.deepEqual([source.outcome, source.sourceState], ["aborted", then], storyOf(run));
    assert.equal(destination.destinationState, "discarded");
    assert.equal(run.world.destinationRan, false);
    assert.deepEqual(run.sourceJournals.states.slice(2), ["released", "ranHere", "aborted"]);
  });
}

Deno.test("Source says RELEASE no more when its VM was run by hand, and is gone: somebody has to decide", async () => {
  const { source, run } = await migrate({
    ...small,
    ...cutAt("released", {
      meanwhile: (run) => {
        run.sourceVm.runByOthers();
        run.killSource();
      },
    }),
  });
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.match(source.error!.message, /has run the VM at the source since it was released/);
  assert.equal(run.world.destinationRan, false);
  assert.deepEqual(run.sourceJournals.states.slice(2), ["released", "ranHere"]);
});

Deno.test("Source does not release again what it has seen run, when its QEMU dies behind DISCARD", async () => {
  const { source, run } = await migrate({
    ...small,
    destination: { runFails: 99_999 },
    ...cutAt("discarding", { meanwhile: (run) => run.killSource() }),
    destinationEntered: (state, run) => {
      if (state !== "stuck" || run.world.sourceRanOn) return;
      run.meddled = true;
      run.sourceVm.runByOthers();
    },
  });
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.equal(run.world.log.filter((line) => line.startsWith("source released ")).length, 1);
});
Deno.test("Source journals that its VM was run by hand when it hears so: it may die with its host", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    ...cutAt("released", { meanwhile: () => {}, dialFails: true }),
  });
  run.start();
  while (run.source.state !== "released") await run.clock.sleep(5);
  await run.clock.sleep(1_000);
  run.sourceVm.runByOthers();
  await run.clock.sleep(1_000);
  run.killSourceAgent();
  run.world.source = "gone";
  run.killDestinationAgent();
  assert.equal(run.sourceJournals.states.at(-1), "ranHere");
  const { source } = await recoverBoth(run, "destination");
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.doesNotMatch(source.notes.join("\n"), /belongs to the destination/);
});

Deno.test("recover() at the source releases no copy when the VM was run by hand, and ended, while it waited", async () => {
  await using run = await crashed({ source: "released" });
  const vm = meddledVm(sourceRecoveryVm(run), {
    at: 3,
    meddle: () => {
      run.sourceVm.runByOthers();
      run.world.source = "gone";
    },
  });
  const { source } = await recoverBoth(run, "source", { source: vm });
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(run.world.destinationRan, false);
  assert.ok(run.sourceJournals.states.includes("ranHere"), source.notes.join("\n"));
});

Deno.test("recover() does not call a VM settled that runs by hand at the source, and was released to a silent host", async () => {
  await using run = await crashed({ destination: "running" });
  assert.equal(run.world.destination, "running");
  run.world.source = "running";
  const alone = await recoverSide(run, "source", { meet: unreachable });
  assert.equal(alone.outcome, "unknown", alone.notes.join("\n"));
  assert.match(alone.error!.hint!, /never ran there.*--declare-dead destination/);
  assert.equal(run.sourceJournals.states.at(-1), "ranHere");
});

for (const what of ["prelaunch", "gone"] as const) {
  Deno.test(`Source keeps a VM that only stood when its copy is ${what} at \`taking\``, async () => {
    const { source, run } = await migrate({
      ...small,
      before: "paused",
      destinationEntered: (state, run) => {
        if (state !== "taking") return;
        run.meddled = true;
        if (what === "gone") run.killDestination();
        else run.world.destination = what;
      },
    });
    assert.equal(source.outcome, "aborted", storyOf(run));
    assert.equal(run.world.source, "postmigrate", storyOf(run));
    assert.ok(!run.destinationJournals.states.includes("running"));
  });
}

for (const when of ["releasing", "discarding"] as const) {
  Deno.test(`Nobody is told to start the VM anew whose QEMU died at ${when}: the destination holds it`, async () => {
    const { source, run } = await migrate({
      ...small,
      limits: { reconnectMs: 5_000 },
      sourceDiskFails: (line) => line >= 2,
      prepare: (run) => {
        if (when !== "releasing") return;
        run.sourceVm.release = () => {
          run.killSource();
          return Promise.resolve("gone");
        };
      },
      sourceEntered: (state, run) => {
        if (state === when && when === "discarding") run.killSource();
      },
    });
    assert.equal(run.world.destination, "paused", storyOf(run));
    assert.match(resultHint(source)!, /sealift recover/);
  });
}

Deno.test("Source says neither done nor ends a QEMU whose VM it heard run, whatever that answers when RUNNING comes", async () => {
  for (const then of ["silent", "finish-migrate"] as const) {
    await using run: SimulatedMigration = new SimulatedMigration({
      ...small,
      destinationEntered: (state, run) => {
        if (state !== "running") return;
        run.meddled = true;
        if (then === "silent") run.sourceVm.status = () => Promise.reject(new Error("timeout"));
        run.sourceVm.runByOthers();
        // A migration by hand.
        if (then === "finish-migrate") run.world.source = then;
      },
    });
    const source = await Promise.race([run.start().sourceEnds, run.tooLong()]);
    assert.equal(source.outcome, "unknown", storyOf(run));
    assert.equal(source.sourceState, "unknown");
    assert.notEqual(run.world.source, "gone");
    assert.equal(run.sourceJournals.states.at(-1), "ranHere");
  }
});

Deno.test("Source ends when its VM was run by hand, its QEMU is silent, and the wire is cut for good", async () => {
  const { source, run } = await migrate({
    ...small,
    limits: { reconnectMs: 5_000 },
    ...cutAt("released", {
      dialFails: true,
      meanwhile: (run) => {
        run.sourceVm.status = () => Promise.reject(new Error("timeout"));
        run.sourceVm.runByOthers();
      },
    }),
  });
  assert.equal(source.outcome, "unknown", storyOf(run));
});

Deno.test("Source ends when its VM was seen to be reset, and has ended since", async () => {
  const { source, run } = await migrate({
    ...small,
    limits: { reconnectMs: 5_000 },
    destination: { runFails: 99_999 },
    ...cutAt("released", {
      meanwhile: (run) => {
        let looks = 0;
        run.sourceVm.status = () => {
          if (looks++ > 0) run.world.source = "gone";
          return Promise.resolve(looks === 1 ? "prelaunch" : "gone");
        };
      },
    }),
  });
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.match(source.error!.message, /was reset/);
});

Deno.test("Source does not run a VM behind DISCARDED that somebody ran and moved on", async () => {
  const { source, run } = await migrate({
    ...small,
    ...cutAt("released", {
      meanwhile: (run) => {
        run.sourceVm.runByOthers();
        run.world.source = "postmigrate";
      },
    }),
  });
  assert.equal(run.world.source, "postmigrate", storyOf(run));
  assert.deepEqual([source.outcome, source.sourceState], ["aborted", "postmigrate"]);
  // Whatever its counters say.
  const { source: recovered } = await recoverBoth(run, "destination");
  assert.equal(recovered.outcome, "completed", recovered.error?.message);
  assert.equal(run.world.source, "postmigrate");
});

Deno.test("Source does not report a VM in postmigrate that it heard run when the wire was lost", async () => {
  const { source, run } = await migrate({
    ...small,
    limits: { reconnectMs: 5_000 },
    ...cutAt("released", {
      dialFails: true,
      meanwhile: (run) => {
        run.sourceVm.runByOthers();
      },
    }),
  });
  assert.deepEqual([source.outcome, source.sourceState], ["unknown", "running"], storyOf(run));
});

for (const last of ["releasing", "released"] as const) {
  Deno.test(`recover() at the source releases nothing that it hears run right before, under \`${last}\``, async () => {
    await using run = await crashed({ source: "released" });
    const lines = run.sourceJournals.lines.get(`${run.source.id}.source`)!;
    while (lines.at(-1)!.state !== last) lines.pop();
    const vm = sourceRecoveryVm(run);
    const status = vm.status.bind(vm);
    let looks = 0;
    vm.status = async () => {
      const seen = await status();
      // Between query-status and query-migrate.
      if (++looks === 4) {
        run.world.sourceRuns("somebody's cont");
        vm.onRun?.();
      }
      return seen;
    };
    const { source } = await recoverBoth(run, "destination", { source: vm });
    assert.equal(run.world.destinationRan, false, storyOf(run));
    // Under `released` it was heard in time to see that it went on here.
    assert.equal(source.outcome, last === "released" ? "completed" : "unknown");
    assert.equal(lines.at(-1)!.state, last === "released" ? "aborted" : "releasing");
  });
}

Deno.test("recover() at the source says no RELEASE when it hears the VM run while `released` is written", async () => {
  await using run = await crashed({ source: "released" });
  const vm = sourceRecoveryVm(run);
  const lines = run.sourceJournals.lines.get(`${run.source.id}.source`)!;
  const push = lines.push.bind(lines);
  lines.push = (entry) => {
    if (entry.state === "released" && !run.world.sourceRanOn) {
      run.world.sourceRuns("somebody's cont");
      vm.onRun?.();
    }
    return push(entry);
  };
  const { source } = await recoverBoth(run, "destination", { source: vm });
  assert.equal(source.outcome, "unknown");
  assert.equal(run.world.destinationRan, false, storyOf(run));
  assert.equal(run.sourceJournals.states.at(-1), "ranHere");
});

Deno.test("recover() at the source says what is lost when it heard the VM run, and end, before RUNNING came", async () => {
  await using run = await crashed({ source: "released" });
  const vm = sourceRecoveryVm(run);
  const there = destinationRecoveryVm(run);
  const announce = there.announce.bind(there);
  there.announce = () => {
    run.world.sourceRanOn = true;
    vm.onRun?.();
    run.world.source = "gone";
    return announce();
  };
  const { source } = await recoverBoth(run, "destination", { source: vm, destination: there });
  assert.equal(source.outcome, "completed");
  assert.match(source.notes.join("\n"), /what it did at the source.* is lost/);
});

Deno.test("Source says no DISCARD on a new connection of a VM that was run by hand, and is gone, while `ranHere` is written", async () => {
  let diesAtMs: number | null = null;
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    limits: { reconnectMs: 20_000, maxStopMs: 30_000 },
    destination: { runFails: 1_000_000 },
    dialFails: (run) => diesAtMs !== null && run.clock.now() < diesAtMs + 100,
    prepare: (run) => {
      run.sourceJournals.beforeLine = async ({ state }) => {
        if (state === "ranHere") await run.clock.sleep(3_000);
      };
    },
    sourceEntered: (state, run) => {
      if (state !== "discarding" || diesAtMs !== null) return;
      diesAtMs = run.clock.now();
      run.injector.cut();
      run.meddled = true;
      run.sourceVm.runByOthers();
      void run.clock.sleep(5).then(() => run.killSource());
    },
  });
  const { sourceEnds, destinationEnds } = run.start();
  const [source] = await Promise.race([
    Promise.all([sourceEnds, destinationEnds]),
    run.tooLong(),
  ]);
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.equal(run.world.destination, "paused", storyOf(run));
});

Deno.test("Source ends at Ctrl-C when its QEMU hangs while it takes the VM back", async () => {
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    prepare: (run) => run.sourceVm.cancel = () => new Promise(() => {}),
    sourceEntered: (state, run) => void (state === "finishing" && run.stopSource.abort()),
  });
  const { sourceEnds } = run.start();
  const source = await Promise.race([sourceEnds, run.tooLong()]);
  assert.equal(source.outcome, "unknown", storyOf(run));
  assert.match(source.error!.message, /hangs while it takes the VM back/);
});

for (const slow of ["disk", "QEMU"] as const) {
  Deno.test(`Source says DISCARD on a new connection of a VM that runs by hand without waiting for a slow ${slow}`, async () => {
    let cutAtMs: number | null = null;
    await using run: SimulatedMigration = new SimulatedMigration({
      ...small,
      limits: { reconnectMs: 20_000, maxStopMs: 30_000 },
      destination: { runFails: 1_000_000 },
      dialFails: (run) => cutAtMs !== null && run.clock.now() < cutAtMs + 100,
      prepare: (run) => {
        const { sourceVm, sourceJournals } = run;
        const status = sourceVm.status.bind(sourceVm);
        const wait = (on: typeof slow) =>
          run.clock.sleep(cutAtMs !== null && slow === on ? 3_000 : 0);
        sourceVm.status = () => wait("QEMU").then(status);
        sourceJournals.beforeLine = () => wait("disk");
      },
      sourceEntered: (state, run) => {
        if (state !== "discarding" || cutAtMs !== null) return;
        cutAtMs = run.clock.now();
        run.injector.cut();
        run.meddled = true;
        run.sourceVm.runByOthers();
        // Its `cont` works from then on.
        void run.clock.sleep(1_500).then(() => run.destinationVm.runFails = 0);
      },
    });
    const { sourceEnds, destinationEnds } = run.start();
    await Promise.race([Promise.all([sourceEnds, destinationEnds]), run.tooLong()]);
    assert.equal(run.world.destinationRan, false, storyOf(run));
    assert.equal(run.world.source, "running", storyOf(run));
  });
}

Deno.test("Source waits for a QEMU that is slow to take the VM back when nobody wants it to end but its policy", async () => {
  const operator = new AbortController();
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    sourceOptions: { operatorSignal: operator.signal },
    prepare: (run) => {
      const cancel = run.sourceVm.cancel.bind(run.sourceVm);
      run.sourceVm.cancel = () => run.clock.sleep(15_000).then(cancel);
    },
    sourceEntered: (state, run) => {
      const failed = new MigrationError("refused", "the policy failed");
      if (state === "copying") run.stopSource.abort(failed);
    },
  });
  const { sourceEnds } = run.start();
  const source = await Promise.race([sourceEnds, run.tooLong()]);
  assert.equal(source.sourceState, "running", storyOf(run));
  assert.notEqual(source.outcome, "unknown");
});

Deno.test("Source ends at Ctrl-C when its policy had failed before, and its QEMU hangs while it takes the VM back", async () => {
  const operator = new AbortController();
  await using run: SimulatedMigration = new SimulatedMigration({
    ...small,
    sourceOptions: { operatorSignal: operator.signal },
    prepare: (run) => run.sourceVm.cancel = () => new Promise(() => {}),
    sourceEntered: (state, run) => {
      if (state !== "copying") return;
      run.stopSource.abort(new MigrationError("refused", "the policy failed"));
      void run.clock.sleep(1_000).then(() => operator.abort());
    },
  });
  const { sourceEnds } = run.start();
  const source = await Promise.race([sourceEnds, run.tooLong()]);
  assert.equal(source.outcome, "unknown", storyOf(run));
});
