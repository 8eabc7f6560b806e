/**
 * Somebody runs a copy with QMP `cont` while neither side's agent asked for it: what is journalled at once, and which copy
 * may no longer be run, or let go, from then on.
 */

import assert from "node:assert/strict";
import { resultHint } from "../../cli/hints.ts";
import type { PageSink } from "../../migration/ports.ts";
import type { RecoveryVm } from "../../migration/recovery.ts";
import type { SourceState } from "../../migration/states.ts";
import {
  migrate,
  SimulatedMigration,
  type SimulatedMigrationOptions,
} from "../support/simulated_migration.ts";
import {
  crashed,
  destinationRecoveryVm,
  recoverBoth,
  recoverSide,
  sourceRecoveryVm,
  unreachable,
} from "../support/simulated_recovery.ts";

const small = { pageCounts: [4], seed: 5, source: { liveRounds: 1 } };

function storyOf(run: SimulatedMigration): string {
  return run.world.log.join("\n");
}

function runAtDestination(run: SimulatedMigration): void {
  run.meddled = true;
  run.world.destination = "running";
  run.world.destinationRan = true;
  run.destinationVm.onEnd?.({ kind: "resumed", text: "somebody else made the VM run" });
}

/** What the source says in `state` is lost with its connection, once; `meanwhile` is called before each dial that follows. */
function cutAt(
  state: SourceState,
  options: {
    kind?: "truncate" | "cutAfter";
    meanwhile: (run: SimulatedMigration) => void;
    dialFails?: boolean;
  },
): Pick<SimulatedMigrationOptions, "prepare" | "fault" | "dialFails"> {
  const { kind = "truncate", meanwhile, dialFails = false } = options;
  let run: SimulatedMigration;
  let cut = false;
  return {
    prepare: (made) => run = made,
    fault: ({ direction }) => {
      if (direction !== "there" || run.source.state !== state || cut) return undefined;
      cut = true;
      return kind === "cutAfter" ? { kind } : { kind, bytes: 0 };
    },
    dialFails: (run) => {
      if (!cut) return false;
      meanwhile(run);
      return dialFails;
    },
  };
}

for (const then of ["running", "paused"] as const) {
  Deno.test(`Source says RELEASE to no connection more when its VM was run by hand, ${then} since`, async () => {
    const { source, destination, run } = await migrate({
      ...small,
      ...cutAt("released", {
        meanwhile: (run) => {
          if (run.meddled) return;
          run.meddled = true;
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
        if (run.meddled) return;
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

/** A QEMU of `recover` that `meddle` is done to at its `at`th look. */
function meddledVm(
  real: RecoveryVm,
  { at, meddle }: { at: number; meddle: () => void },
): RecoveryVm {
  let looks = 0;
  const vm: RecoveryVm = {
    get hasRun() {
      return real.hasRun;
    },
    onRun: null,
    status: async () => {
      if (++looks === at) {
        meddle();
        if (real.hasRun) vm.onRun?.();
      }
      return await real.status();
    },
    resume: () => real.resume(),
    announce: () => real.announce(),
    quit: () => real.quit(),
  };
  return vm;
}

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

Deno.test("recover() does not call a VM settled that runs by hand at the source, and was released to a silent host", async () => {
  await using run = await crashed({ destination: "running" });
  assert.equal(run.world.destination, "running");
  run.world.source = "running";
  const alone = await recoverSide(run, "source", { meet: unreachable });
  assert.equal(alone.outcome, "unknown", alone.notes.join("\n"));
  assert.match(alone.error!.hint!, /never ran there.*--declare-dead destination/);
  assert.equal(run.sourceJournals.states.at(-1), "ranHere");
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
    prepare: ({ destinationVm, world }) => {
      const open = destinationVm.open.bind(destinationVm);
      destinationVm.open = async (): Promise<PageSink> => {
        const sink = await open();
        const load = sink.load;
        sink.load = async (state) => {
          await load(state);
          // `cont` in inmigrate arms its autostart again.
          world.destination = "running";
          world.destinationRan = true;
          throw new Error("Cannot hold the VM: it runs already");
        };
        return sink;
      };
    },
    destinationEntered: (state, run) => {
      if (state === "loading") run.killSource();
    },
  });
  assert.deepEqual(run.world.violations, [], storyOf(run));
  assert.equal(run.world.destination, "running", storyOf(run));
  assert.equal(destination.outcome, "unknown");
  assert.equal(run.destinationJournals.states.at(-1), "ranEarly");
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
