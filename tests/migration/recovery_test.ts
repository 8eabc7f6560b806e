import assert from "node:assert/strict";
import { connect, NO_PSK, RECOVER } from "../../migration/opening.ts";
import type { RecoveryOptions, RecoveryResult } from "../../migration/recovery.ts";
import { destinationTransitions, sourceTransitions } from "../../migration/states.ts";
import { Loopback } from "../support/loopback.ts";
import { runCase, type SimulatedCase } from "../support/simulated_case.ts";
import {
  forEachCase,
  identities,
  type SimulatedMigration,
} from "../support/simulated_migration.ts";
import {
  crashed,
  recoverBoth,
  recoverSide,
  silence,
  unreachable,
} from "../support/simulated_recovery.ts";

const plain: SimulatedCase = {
  seed: 1,
  before: "running",
  pageCounts: [4],
  liveRounds: 1,
  paceMs: 1,
  happenings: [],
  weather: { damageOneIn: 0, cutOneIn: 0, otherOneIn: 0 },
  sourceDiskFails: null,
  destinationDiskFails: null,
  runFails: 0,
  loadFails: false,
  reconnectMs: 5_000,
  maxStopMs: 5_000,
  repairBudgetBytes: 2 ** 26,
};

const states = [
  ...Object.keys(sourceTransitions).map((state) => ({ side: "source" as const, state })),
  ...Object.keys(destinationTransitions).map((state) => ({ side: "destination" as const, state })),
];

const victims = {
  "the source's agent is": ["kill source agent"],
  "the destination's agent is": ["kill destination agent"],
  "both agents are": ["kill source agent", "kill destination agent"],
} as const;

for (const [who, agents] of Object.entries(victims)) {
  Deno.test(`recover() leaves exactly one copy when ${who} killed in any state of either, whoever listens`, async () => {
    const qemus = [null, "kill source QEMU", "kill destination QEMU"] as const;
    const cases = states.flatMap((at) =>
      // Seeds 1 and 2 let different sides listen.
      qemus.flatMap((qemu) => (qemu === null ? [1, 2] : [1]).map((seed) => ({ at, qemu, seed })))
    );
    const ways = new Set<string>();
    await forEachCase(cases, async ({ at, qemu, seed }) => {
      const events = qemu === null ? agents : [...agents, qemu];
      const { vm } = await runCase({
        ...plain,
        seed,
        before: seed === 2 && qemu === null ? "paused" : "running",
        // The way back has states of its own.
        runFails: ["stuck", "discarding", "returning"].includes(at.state) ? 1_000 : 0,
        happenings: events.map((event) => ({ event, at: { ...at, afterMs: 0 } })),
      });
      ways.add(vm);
    });
    assert.ok(ways.has("source") && ways.has("destination"), [...ways].join());
  });
}

function lines(run: SimulatedMigration): string[][] {
  return [run.sourceJournals.states, run.destinationJournals.states];
}

Deno.test("recover() at the source alone leaves a VM that runs there, and says what to do about the copy", async () => {
  await using run = await crashed({ destination: "loaded" });
  const result = await recoverSide(run, "source", { meet: unreachable });
  assert.equal(result.outcome, "completed");
  assert.match(result.notes.join("\n"), /if the destination still holds a copy/);
  assert.equal(run.world.source, "running");
  assert.equal(run.world.destination, "paused");
});

Deno.test("recover() refuses --declare-dead of a side that answers, and nothing is changed", async () => {
  for (const side of ["source", "destination"] as const) {
    await using run = await crashed({ source: "released" });
    const journals = lines(run);
    const listener = new Loopback();
    const ends = new AbortController();
    const other = side === "source" ? "destination" : "source";
    const meets = {
      source: { dial: () => Promise.resolve(listener.dial()) },
      destination: { listener },
    };
    const there = recoverSide(run, other, { meet: meets[other], signal: ends.signal });
    const result = await recoverSide(run, side, { meet: meets[side], declareDead: true });
    assert.equal(result.outcome, "refused", result.error?.message);
    assert.match(result.error!.message, /it answers/);
    ends.abort();
    await there;
    // The source may have got as far as saying RELEASE, once more, to a side that did not listen.
    assert.deepEqual(lines(run).map((own) => own.at(-1)), journals.map((own) => own.at(-1)));
    assert.equal(run.world.source, "postmigrate");
    assert.equal(run.world.destination, "paused");
  }
});

Deno.test("recover() refuses --declare-dead when something listens there that hangs, within a bounded time", async () => {
  await using run = await crashed({ source: "released" });
  const listener = new Loopback();
  const startedAtMs = run.clock.now();
  const result = await recoverSide(run, "source", {
    meet: { dial: () => Promise.resolve(listener.dial()) },
    declareDead: true,
  });
  assert.equal(result.outcome, "refused", result.error?.message);
  assert.ok(run.clock.now() - startedAtMs < 120_000);
  assert.equal(run.world.source, "postmigrate");
  listener.close();
});

Deno.test("recover() gives up on a dial that hangs, within a bounded time", async () => {
  await using run = await crashed({ source: "released" });
  const result = await recoverSide(run, "source", {
    meet: { dial: () => new Promise(() => {}) },
  });
  assert.equal(result.outcome, "unknown");
  assert.equal(run.clock.pending, 0);
});

Deno.test("recover() with --declare-dead takes the operator's word where no journal can tell", async () => {
  // The source's QEMU died before the release: nobody can say whether it ran on.
  await using lost = await crashed({ destination: "loaded", also: (run) => run.killSource() });
  const both = await recoverBoth(lost, "destination");
  assert.equal(both.source.outcome, "unknown");
  assert.equal(both.destination.outcome, "unknown");
  const alone = await recoverSide(lost, "destination", { meet: unreachable });
  assert.equal(alone.outcome, "unknown");
  assert.match(
    alone.error!.hint!,
    /has not run since it stopped for this migration, after 2025-01-01T.*--declare-dead source/s,
  );
  const word = await recoverSide(lost, "destination", { meet: silence(), declareDead: true });
  assert.equal(word.outcome, "completed");
  assert.equal(lost.world.destination, "running");
  assert.deepEqual(lost.world.violations, []);

  await using run = await crashed({ source: "released" });
  run.killDestination();
  run.destinationJournals.lines.get(`${run.source.id}.destination`)!.push({
    state: "taking",
    time: "2025-01-01T00:00:00.000Z",
  });
  const asked = await recoverBoth(run, "destination");
  assert.equal(asked.source.outcome, "unknown");
  assert.match(asked.source.error!.hint!, /--declare-dead destination/);
  assert.equal(run.world.source, "postmigrate");
  const sworn = await recoverSide(run, "source", { meet: unreachable, declareDead: true });
  assert.equal(sworn.outcome, "completed");
  assert.equal(run.world.source, "running");
});

Deno.test("recover() at the destination with --declare-dead source runs only a copy that is whole", async () => {
  await using run = await crashed({ destination: "receiving" });
  const result = await recoverSide(run, "destination", { meet: silence(), declareDead: true });
  assert.equal(result.outcome, "refused");
  assert.equal(run.world.destinationRan, false);
});

Deno.test("recover() run twice at once settles the same", async () => {
  await using run = await crashed({ source: "released" });
  const listener = new Loopback();
  const there = recoverSide(run, "destination", { meet: { listener } });
  const meet = { dial: () => Promise.resolve(listener.dial()) };
  const here = await Promise.all([
    recoverSide(run, "source", { meet }),
    recoverSide(run, "source", { meet }),
  ]);
  await there;
  assert.ok(here.some(({ outcome }) => outcome === "completed"));
  assert.deepEqual(run.world.violations, []);
  assert.equal(run.world.destination, "running");
  assert.ok(["gone", "postmigrate"].includes(run.world.source));
});

Deno.test("recover() lets in only the peer that its journal names, for that migration, past a thousand silent connections", async () => {
  await using run = await crashed({ source: "released" });
  const listener = new Loopback();
  const there = recoverSide(run, "destination", { meet: { listener } });
  const silent = Array.from({ length: 1_000 }, () => listener.dial());
  const strange = async (identity: typeof identities.source, id: Uint8Array) => {
    const transport = listener.dial();
    await assert.rejects(connect(transport, {
      identity,
      remotePublic: identities.destination.publicKey,
      migrationId: id,
      clock: run.clock,
      kind: RECOVER,
      psk: NO_PSK,
      onCut: () => {},
    }));
    if (!transport.closed) transport.close();
  };
  const id = Uint8Array.from(run.source.id.match(/../g)!, (byte) => parseInt(byte, 16));
  await strange(identities.stranger, id);
  await strange(identities.source, new Uint8Array(16));
  const startedAtMs = run.clock.now();
  const here = await recoverSide(run, "source", {
    meet: { dial: () => Promise.resolve(listener.dial()) },
  });
  assert.equal(here.outcome, "completed", here.error?.message);
  // None of the silent ones was waited for.
  assert.ok(run.clock.now() - startedAtMs < 1_000);
  assert.equal((await there).outcome, "completed");
  assert.equal(run.world.destination, "running");
  for (const end of silent) if (!end.closed) end.close();
});

Deno.test("recover() looks again when the other side comes: what it saw an hour ago does not count", async () => {
  await using run = await crashed({ source: "released" });
  const listener = new Loopback();
  const there = recoverSide(run, "destination", { meet: { listener } });
  await run.clock.sleep(3_600_000);
  run.killDestination();
  const here = await recoverSide(run, "source", {
    meet: { dial: () => Promise.resolve(listener.dial()) },
  });
  await there;
  // Loaded, and gone before it was told to run: the VM goes on at the source.
  assert.equal(here.outcome, "completed", here.error?.message);
  assert.equal(run.world.source, "running");

  await using other = await crashed({ source: "released" });
  const door = new Loopback();
  const source = recoverSide(other, "source", { meet: { listener: door } });
  await other.clock.sleep(3_600_000);
  // Somebody who looked at neither journal.
  await other.sourceVm.resume();
  await recoverSide(other, "destination", { meet: { dial: () => Promise.resolve(door.dial()) } });
  await source;
  assert.equal(other.world.destinationRan, false);
  assert.equal(other.world.destination, "gone");
  assert.deepEqual(other.world.violations, []);
});

Deno.test("recover() brings the VM back to the source when the destination cannot run it, and never did", async () => {
  for (const listens of ["source", "destination"] as const) {
    await using run = await crashed({ source: "released" }, { destination: { runFails: 1_000 } });
    const { source, destination } = await recoverBoth(run, listens);
    assert.equal(source.outcome, "completed", source.error?.message);
    assert.equal(destination.outcome, "completed", destination.error?.message);
    assert.equal(run.world.source, "running");
    assert.equal(run.world.destination, "gone");
    assert.deepEqual(lines(run), [
      // Before `cont`, and behind it.
      ["open", "releasing", "released", "released", "aborted", "aborted"],
      ["open", "loaded", "taking", "discarded"],
    ]);
  }
});

Deno.test("recover() discards no copy that may have run: it is mended, and recovered again", async () => {
  await using run = await crashed({ destination: "stuck" }, { destination: { runFails: 1_000 } });
  const { source, destination } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "unknown");
  assert.equal(destination.outcome, "unknown");
  assert.match(destination.error!.message, /"write" lock/);
  assert.equal(run.world.source, "postmigrate");
  assert.equal(run.world.destination, "paused");
  run.destinationVm.runFails = 0;
  const mended = await recoverBoth(run, "destination");
  assert.equal(mended.source.outcome, "completed");
  assert.equal(run.world.destination, "running");
});

Deno.test("recover() discards no copy whose `cont` was not answered, which ran all the same and was stopped", async () => {
  await using run = await crashed({ source: "released" });
  const { destinationVm, world } = run;
  const cont = destinationVm.run.bind(destinationVm);
  destinationVm.run = async () => {
    await cont();
    world.destination = "paused";
    throw new Error("no answer came");
  };
  const { source, destination } = await recoverBoth(run, "destination");
  assert.deepEqual(world.violations, []);
  assert.equal(source.outcome, "unknown");
  assert.equal(destination.outcome, "unknown");
  assert.equal(world.source, "postmigrate");
  assert.equal(world.destination, "paused");
});

Deno.test("recover() changes nothing when both have the VM, and says so", async () => {
  await using run = await crashed({ source: "done" });
  await run.sourceVm.resume().catch(() => {});
  run.world.violations.length = 0;
  run.sourceJournals.lines.get(`${run.source.id}.source`)!.push({
    state: "done",
    time: "2025-01-01T00:00:00.000Z",
  });
  const journals = lines(run);
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "unknown");
  assert.match(source.error!.message, /Nothing was changed/);
  assert.equal(run.world.source, "running");
  assert.equal(run.world.destination, "running");
  assert.deepEqual(lines(run)[0], journals[0]);
});

Deno.test("recover() says RELEASE only after `released` is on disk", async () => {
  const run = await crashed({ source: "releasing" }, {
    // Both agents are killed before it is written; then the disk is full.
    sourceDiskFails: (append) => append >= 2,
  });
  await using _run = run;
  if (run.world.source !== "postmigrate") return;
  const { source } = await recoverBoth(run, "destination");
  assert.notEqual(source.outcome, "completed");
  assert.equal(run.world.destinationRan, false);
});

Deno.test("recover() explains and changes nothing with dryRun", async () => {
  for (const state of ["copying", "finishing", "released", "done"] as const) {
    await using run = await crashed({ source: state });
    const journals = lines(run);
    const world = [run.world.source, run.world.destination];
    const listener = new Loopback();
    const ends = new AbortController();
    const options: { meet: RecoveryOptions["meet"]; signal: AbortSignal } = {
      meet: { listener },
      signal: ends.signal,
    };
    const there: Promise<RecoveryResult> | null = journals[1]!.length === 0
      ? null
      : recoverSide(run, "destination", options);
    const result = await recoverSide(run, "source", {
      meet: there === null ? unreachable : { dial: () => Promise.resolve(listener.dial()) },
      dryRun: true,
    });
    assert.equal(result.outcome, "completed", `${state} ${result.error?.message}`);
    assert.ok(result.notes.length >= 3, state);
    ends.abort();
    await there;
    if (!listener.closed) listener.close();
    assert.deepEqual([run.world.source, run.world.destination], world, state);
    assert.deepEqual(lines(run)[0], journals[0], state);
  }
});

Deno.test("recover() names the same time in the oath whoever wrote `loaded`", async () => {
  await using run = await crashed({ destination: "loading" });
  // EOF had reached QEMU.
  run.killSource();
  run.world.destination = "paused";
  assert.deepEqual(lines(run)[1], ["open"]);
  const opened = run.destinationJournals.lines.get(`${run.source.id}.destination`)![0]!.time;
  for (let times = 0; times < 2; times++) {
    await run.clock.sleep(600_000);
    const { error } = await recoverSide(run, "destination", { meet: unreachable });
    assert.ok(
      error?.hint?.includes(
        `the VM has not run since it stopped for this migration, after ${opened}*`,
      ),
      error?.hint,
    );
  }
  assert.deepEqual(lines(run)[1], ["open", "loaded"]);
});
