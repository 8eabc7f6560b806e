import assert from "node:assert/strict";
import type { StateBefore } from "../../migration/ports.ts";
import {
  type DestinationState,
  destinationTransitions,
  type SourceState,
  sourceTransitions,
} from "../../migration/states.ts";
import {
  forEachCase,
  migrate,
  type SimulatedMigration,
  type SimulatedMigrationOptions,
} from "../support/simulated_migration.ts";

const small = { pageCounts: [4], seed: 3, source: { liveRounds: 1 } };
const sourceStates = Object.keys(sourceTransitions) as SourceState[];
const destinationStates = Object.keys(destinationTransitions) as DestinationState[];

/** A destination whose QEMU cannot run the VM: the way back, and every state on it. */
const cannotRun = { ...small, destination: { runFails: 1_000 } };

/** What becomes of the VM when the source is asked to end in each state. */
const afterSourceStops: Partial<Record<SourceState, string>> = {
  offering: "aborted",
  starting: "aborted",
  setup: "aborted",
  copying: "aborted",
  stopping: "aborted",
  finishing: "aborted",
  // Asked before the shield is up.
  releasing: "aborted",
  released: "unknown",
  done: "completed",
};

Deno.test("Source.run() ends as its state demands when it is cancelled there", async () => {
  const cases = Object.keys(afterSourceStops) as SourceState[];
  for (const before of ["running", "paused"] satisfies StateBefore[]) {
    await forEachCase(cases, async (state) => {
      const { source, destination, run } = await migrate({
        ...small,
        before,
        sourceEntered: (entered, { stopSource }) => {
          if (entered === state) stopSource.abort();
        },
      });
      const story = `${before} ${state}\n${run.world.log.join("\n")}`;
      assert.equal(source.outcome, afterSourceStops[state], story);
      if (source.outcome === "aborted") {
        assert.equal(source.error?.code, "interrupted", story);
        assert.notEqual(destination.outcome, "completed", story);
        assert.ok(run.world.source !== "gone" && run.world.source !== "finish-migrate", story);
      }
      // RELEASE was said, or was about to be: the other side does what it was told.
      if (source.outcome === "unknown") {
        assert.equal(run.world.source, "postmigrate", story);
        assert.ok(["completed", "unknown"].includes(destination.outcome), story);
      }
    });
  }
});

Deno.test("Source.run() ends at once when it is cancelled before it dials, and while it does", async () => {
  const early = await migrate({ ...small, prepare: ({ stopSource }) => stopSource.abort() });
  assert.equal(early.source.outcome, "aborted");
  assert.equal(early.source.lastState, "connecting");
  assert.equal(early.run.injector.seen.length, 0);
  const meanwhile = await migrate({
    ...small,
    fault: ({ direction, index }) =>
      direction === "there" && index === 0 ? { kind: "stall" } : undefined,
    prepare: ({ stopSource, clock }) => void clock.sleep(200).then(() => stopSource.abort()),
  });
  assert.equal(meanwhile.source.outcome, "aborted");
  assert.equal(meanwhile.source.error?.code, "interrupted");
});

const afterDestinationStops: Partial<Record<DestinationState, [source: string, own: string]>> = {
  receiving: ["aborted", "aborted"],
  // No byte of EOF is written yet.
  loading: ["aborted", "aborted"],
  taking: ["completed", "completed"],
  running: ["completed", "completed"],
};

Deno.test("Destination.run() ends as its state demands when it is cancelled there", async () => {
  await forEachCase(Object.keys(afterDestinationStops) as DestinationState[], async (state) => {
    const { source, destination, run } = await migrate({
      ...small,
      destinationEntered: (entered, { stopDestination }) => {
        if (entered === state) stopDestination.abort();
      },
    });
    const story = `${state}\n${run.world.log.join("\n")}`;
    assert.deepEqual([source.outcome, destination.outcome], afterDestinationStops[state], story);
  });
});

Deno.test("Destination.run() keeps what is loaded when it is cancelled after EOF", async () => {
  const cancelled: SimulatedMigrationOptions[] = [
    {
      destinationEntered: (state, { stopDestination, clock }) => {
        if (state === "loading") void clock.sleep(1).then(() => stopDestination.abort());
      },
    },
    {
      destinationEntered: (state, { stopDestination }) => {
        if (state === "loaded") stopDestination.abort();
      },
    },
  ];
  for (const options of cancelled) {
    const { destination, states, run } = await migrate({ ...small, ...options });
    const story = run.world.log.join("\n");
    assert.equal(destination.outcome, "unknown", story);
    assert.equal(run.world.destination, "paused", story);
    assert.deepEqual(states.destination, ["open", "loaded"], story);
  }
});

Deno.test("Source and Destination end well when either QEMU is killed in any state of either", async () => {
  const wayBack = ["released", "discarding", "returning", "taking", "stuck", "discarded"];
  for (const options of [small, cannotRun, { ...small, before: "paused" as const }]) {
    const cases = [
      ...sourceStates.map((at) => ({ at, side: "source" })),
      ...destinationStates.map((at) => ({ at, side: "destination" })),
    ].filter(({ at }) => options !== cannotRun || wayBack.includes(at))
      .flatMap((one) => [{ ...one, who: "source" }, { ...one, who: "destination" }]);
    await forEachCase(cases, async ({ at, who, side }) => {
      const entered = (
        state: string,
        run: { killSource(): void; killDestination(): void },
        own: string,
      ) => {
        if (state !== at || own !== side) return;
        if (who === "source") run.killSource();
        else run.killDestination();
      };
      // The rules are checked by `migrate`.
      const { source, run } = await migrate({
        ...options,
        sourceEntered: (state, run) => entered(state, run, "source"),
        destinationEntered: (state, run) => entered(state, run, "destination"),
      });
      if (who === "destination" && run.world.source === "gone") {
        assert.equal(source.outcome, "completed", run.world.log.join("\n"));
      }
    });
  }
});

Deno.test("Source.run() goes forward when its QEMU is gone after its stream was read to the end", async () => {
  for (const at of ["finishing", "releasing"] as const) {
    const { source, destination, states, run } = await migrate({
      ...small,
      sourceEntered: (state, run) => state === at ? run.killSource() : undefined,
    });
    const story = run.world.log.join("\n");
    assert.equal(source.outcome, "completed", story);
    assert.equal(source.sourceState, "gone", story);
    assert.equal(destination.outcome, "completed", story);
    assert.ok(states.source.includes("released"), story);
  }
});

Deno.test("Source.run() goes forward when its QEMU dies while an abort is under way", async () => {
  const { source, states, run } = await migrate({
    ...small,
    sourceEntered: (state, run) => {
      if (state === "finishing") run.stopSource.abort();
      if (state === "aborting") run.killSource();
    },
  });
  const story = run.world.log.join("\n");
  assert.equal(source.outcome, "completed", story);
  assert.deepEqual(states.source, ["open", "released", "done"]);
});

Deno.test("Source.run() aborts when somebody else cancels its migration", async () => {
  for (const at of ["copying", "stopping", "finishing", "releasing"] as const) {
    const { source, destination, run } = await migrate({
      ...small,
      sourceEntered: (state, run) => {
        if (state !== at) return;
        run.meddled = true;
        run.sourceVm.cancelByOthers();
      },
    });
    const story = `${at}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "aborted", story);
    assert.equal(run.world.source, "running", story);
    assert.equal(destination.outcome, "aborted", story);
    assert.equal(run.world.destination, "gone", story);
  }
});

Deno.test("Source.run() comes back when the destination's cont fails and fails", async () => {
  const { source, destination, states, run } = await migrate(cannotRun);
  const story = run.world.log.join("\n");
  assert.equal(source.outcome, "aborted", story);
  assert.match(source.error?.message ?? "", /"write" lock/);
  assert.equal(source.sourceState, "running");
  assert.equal(run.world.source, "running");
  assert.equal(destination.outcome, "aborted", story);
  assert.equal(run.world.destination, "gone");
  assert.deepEqual(states.destination, ["open", "loaded", "taking", "discarded"]);
  assert.deepEqual(states.source, ["open", "releasing", "released", "aborted"]);
});

Deno.test("Destination.run() tries cont again, and runs the VM, when the source's QEMU is gone", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    destination: { runFails: 4 },
    destinationEntered: (state, run) => state === "stuck" ? run.killSource() : undefined,
  });
  const story = run.world.log.join("\n");
  assert.equal(source.outcome, "completed", story);
  assert.equal(destination.outcome, "completed", story);
  assert.equal(run.destinationVm.runs, 5);
});

Deno.test("Destination.run() never discards the only copy: it keeps it when cont fails for good", async () => {
  const { source, destination, run } = await migrate({
    ...cannotRun,
    destinationEntered: (state, run) => state === "stuck" ? run.killSource() : undefined,
  });
  const story = run.world.log.join("\n");
  assert.equal(source.outcome, "unknown", story);
  assert.equal(destination.outcome, "unknown", story);
  assert.equal(run.world.destination, "paused", story);
});

Deno.test("Destination.run() keeps a VM whose cont worked and was not answered, also when told to discard", async () => {
  const visited: SourceState[] = [];
  const { source, destination, states, run } = await migrate({
    ...small,
    destination: { runAnswerLost: true },
    sourceEntered: (state) => void visited.push(state),
  });
  const story = run.world.log.join("\n");
  // The source was told that it cannot run, and says DISCARD: by then it is seen to run.
  assert.deepEqual(visited.slice(-4), ["released", "discarding", "released", "done"], story);
  assert.equal(source.outcome, "completed", story);
  assert.equal(destination.outcome, "completed", story);
  assert.equal(run.world.destination, "running", story);
  assert.deepEqual(states.destination, ["open", "loaded", "taking", "running"], story);
});

Deno.test("Source.run() knows no outcome when its own cont fails on the way back", async () => {
  const { source, run } = await migrate({
    ...cannotRun,
    prepare: ({ sourceVm }) => sourceVm.resumeFails = "no such image",
  });
  assert.equal(source.outcome, "unknown");
  assert.match(source.error?.message ?? "", /no such image/);
  assert.equal(run.world.source, "postmigrate");
});

Deno.test("Source.run() knows no outcome, and says no ABORT, when its monitor is lost at the release", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    sourceEntered: (state, { sourceVm }) => {
      if (state === "releasing") sourceVm.monitorLost = "QMP has closed";
    },
  });
  const story = run.world.log.join("\n");
  assert.equal(source.outcome, "unknown", story);
  assert.equal(destination.outcome, "unknown", story);
  assert.equal(run.world.destination, "paused", story);
});

Deno.test("Source.run() says no ABORT when nobody saw its VM run again", async () => {
  const { source, destination, states, run } = await migrate({
    ...small,
    sourceEntered: (state, { sourceVm, stopSource }) => {
      if (state !== "finishing") return;
      sourceVm.monitorLost = "QMP has closed";
      stopSource.abort();
    },
  });
  const story = run.world.log.join("\n");
  assert.equal(source.outcome, "unknown", story);
  assert.ok(!states.source.includes("aborted"), story);
  assert.notEqual(destination.outcome, "completed", story);
});

Deno.test("Source.run() brings the VM back when the destination cannot load it", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    destination: { loadFails: "unknown section" },
  });
  assert.equal(source.outcome, "aborted");
  assert.match(source.error?.message ?? "", /unknown section/);
  assert.equal(source.destinationState, "discarded");
  assert.equal(run.world.source, "running");
  assert.equal(destination.outcome, "aborted");
});

Deno.test("Source and Destination end well when either disk fails at any line, once or for good", async () => {
  const cases = (["source", "destination"] as const).flatMap((side) =>
    [0, 1, 2, 3].flatMap((line) => [true, false].map((forGood) => ({ side, line, forGood })))
  );
  for (const options of [small, { ...small, before: "prelaunch" as const }, cannotRun]) {
    await forEachCase(cases, async ({ side, line, forGood }) => {
      const fails = (append: number) => forGood ? append >= line : append === line;
      const { source, destination, run } = await migrate({
        ...options,
        ...(side === "source" ? { sourceDiskFails: fails } : { destinationDiskFails: fails }),
      });
      const story = `${source.outcome}/${destination.outcome}\n${run.world.log.join("\n")}`;
      // Nothing is known only where `cont` was about to be, or a copy was already given up.
      if (line <= 1 && options !== cannotRun) assert.notEqual(source.outcome, "unknown", story);
      if (line === 0) assert.equal(source.outcome, "aborted", story);
    });
  }
});

Deno.test("Source.run() gives up when --max-stop is used up before the release", async () => {
  const { source, destination, run } = await migrate({
    ...small,
    limits: { maxStopMs: 1_000 },
    destinationEntered: (state, { clock }) => state === "loading" ? clock.sleep(3_000) : undefined,
  });
  const story = run.world.log.join("\n");
  assert.equal(source.outcome, "aborted", story);
  assert.equal(source.error?.code, "timeout", story);
  assert.equal(run.world.source, "running", story);
  assert.equal(destination.outcome, "aborted", story);
});

Deno.test("Source.run() counts --max-stop over all states together", async () => {
  const delayed = new Set<string>();
  let migration: SimulatedMigration | null = null;
  const { source, run } = await migrate({
    ...small,
    limits: { maxStopMs: 1_000 },
    prepare: (run) => migration = run,
    // The last records, and then FINISH: each alone is within the limit.
    fault: ({ direction }) => {
      const { state } = migration!.source;
      if (direction !== "there" || !["stopping", "finishing"].includes(state)) return undefined;
      if (delayed.has(state)) return undefined;
      delayed.add(state);
      return { kind: "delay", ms: 600 };
    },
  });
  assert.deepEqual([...delayed], ["stopping", "finishing"]);
  assert.equal(source.error?.code, "timeout", run.world.log.join("\n"));
  assert.equal(run.world.source, "running");
});

Deno.test("Source.run() counts --max-stop from the VM's stop, not from when it hears of it", async () => {
  const { source, run } = await migrate({
    pageCounts: [600],
    source: { liveRounds: 1 },
    limits: { maxStopMs: 1_000, windowBytes: 100_000 },
    // The VM stops behind a network that takes nothing more.
    sourceEntered: (state, { clock, sourceVm }) => {
      if (state === "copying") void clock.sleep(500).then(() => sourceVm.stop());
    },
    fault: ({ direction, index }) =>
      direction === "back" && index > 2 ? { kind: "stall" } : undefined,
  });
  assert.equal(source.error?.code, "timeout", run.world.log.join("\n"));
  assert.equal(run.world.source, "running");
});

Deno.test("Source.run() says ABORT when its QEMU is gone before its stream was read to the end", async () => {
  for (const at of ["setup", "copying", "stopping"] as const) {
    const { source, destination, states, run } = await migrate({
      ...small,
      pageCounts: [90],
      source: { ...small.source, paceMs: 1 },
      sourceEntered: (state, run) => state === at ? run.killSource() : undefined,
    });
    const story = `${at}\n${run.world.log.join("\n")}`;
    assert.equal(source.outcome, "unknown", story);
    assert.equal(source.sourceState, "gone", story);
    assert.deepEqual(states.source, ["open", "aborted"], story);
    assert.notEqual(destination.outcome, "completed", story);
  }
});

Deno.test("Source.run() gives up after maxTimeMs when the VM never stops", async () => {
  const { source, run } = await migrate({
    pageCounts: [4],
    source: { liveRounds: 1_000_000, paceMs: 10, busy: true },
    sourceOptions: { maxTimeMs: 2_000 },
  });
  assert.equal(source.outcome, "aborted");
  assert.equal(source.error?.code, "timeout");
  assert.equal(run.world.source, "running");
});

Deno.test("Source.run() asks for a longer downtime once maxRounds are through", async () => {
  const { source, run } = await migrate({
    pageCounts: [30],
    source: { liveRounds: 3 },
    sourceOptions: { maxRounds: 2 },
  });
  assert.equal(source.outcome, "completed");
  assert.deepEqual(run.sourceVm.live, [{}, { downtimeLimitMs: 5_000 }]);
});

Deno.test("Source.run() gives up when a round more than maxRounds did not bring the stop", async () => {
  const { source, run } = await migrate({
    pageCounts: [30],
    // Not so tiny that several are closed before QEMU has answered.
    source: { liveRounds: 8, busy: true },
    sourceOptions: { maxRounds: 2 },
  });
  assert.equal(source.outcome, "aborted");
  assert.equal(source.error?.code, "timeout");
  assert.equal(run.world.source, "running");
});
