import assert from "node:assert/strict";
import type { JournalEntry } from "../../migration/ports.ts";
import type { RecoveryVm } from "../../migration/recovery.ts";
import { storyOf } from "../support/by_hand.ts";
import type { SimulatedMigration } from "../support/simulated_migration.ts";
import {
  crashed,
  recoverBoth,
  recoverSide,
  sourceRecoveryVm,
  unreachable,
} from "../support/simulated_recovery.ts";

function lines(run: SimulatedMigration): string[][] {
  return [run.sourceJournals.states, run.destinationJournals.states];
}

/** Lines that somebody else has written to the source's journal. */
function writes(run: SimulatedMigration, ...states: JournalEntry["state"][]): void {
  const journal = run.sourceJournals.lines.get(`${run.source.id}.source`)!;
  for (const state of states) journal.push({ state, time: "2025-01-02T00:00:00.000Z" });
}

Deno.test("recover() discards a copy that comes back when the VM went on from the source, whose QEMU has ended", async () => {
  for (const then of ["moved on", "was shut down"] as const) {
    await using run = await crashed({ source: "released" });
    const sworn = await recoverSide(run, "source", { meet: unreachable, declareDead: true });
    assert.equal(sworn.outcome, "completed");
    assert.equal(run.world.source, "running");
    // The next `send` says so.
    if (then === "moved on") writes(run, "ran");
    run.world.source = "gone";
    const journal = lines(run)[0];
    const { source, destination } = await recoverBoth(run, "destination");
    assert.equal(source.outcome, "completed", source.error?.message);
    assert.equal(destination.outcome, "completed", destination.error?.message);
    assert.deepEqual(run.world.violations, []);
    assert.equal(run.world.destinationRan, false);
    assert.equal(run.world.destination, "gone");
    assert.equal(run.destinationJournals.states.at(-1), "discarded");
    assert.deepEqual(lines(run)[0], journal);
  }

  await using byHand = await crashed({ source: "released" });
  byHand.world.sourceRuns("somebody's cont");
  writes(byHand, "ran");
  byHand.world.source = "gone";
  await recoverBoth(byHand, "source");
  assert.deepEqual(byHand.world.violations, []);
  assert.equal(byHand.world.destination, "gone");
});

Deno.test("recover() journals `ranHere` when it sees under `released` that the VM went on here by hand: no copy is released later", async () => {
  for (const listens of ["source", "destination"] as const) {
    await using run = await crashed({ source: "released" });
    run.world.sourceRuns("somebody's cont");
    const alone = await recoverSide(run, "source", { meet: unreachable });
    // It may run over there as well.
    assert.equal(alone.outcome, "unknown");
    assert.match(alone.error!.message, /may run there, too/);
    assert.deepEqual(lines(run)[0], ["open", "releasing", "released", "ranHere"]);
    run.world.source = "gone";
    const { source, destination } = await recoverBoth(run, listens);
    // It is older than what ran, and nobody's to throw away.
    assert.deepEqual([source.outcome, destination.outcome], ["unknown", "unknown"]);
    assert.match(source.error!.message, /copy at the destination is older/);
    assert.deepEqual(run.world.violations, []);
    assert.equal(run.world.destinationRan, false);
    assert.equal(run.world.destination, "paused");
    run.world.destination = "gone";
    const lost = await recoverBoth(run, listens);
    assert.match(lost.source.error!.message, /start the VM anew/);
    assert.deepEqual(lines(run)[0], ["open", "releasing", "released", "ranHere"]);
  }
});

Deno.test("recover() asks for no oath that the source's journal knows to be false", async () => {
  await using run = await crashed({ destination: "loaded" });
  const alone = await recoverSide(run, "source", { meet: unreachable });
  assert.equal(alone.outcome, "completed");
  assert.deepEqual(lines(run)[0], ["open", "aborted"]);
  run.world.source = "gone";
  const { source, destination } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "completed", source.error?.hint);
  assert.equal(destination.outcome, "completed", destination.error?.hint);
  assert.equal(run.world.destination, "gone");
  assert.equal(run.world.destinationRan, false);
});

Deno.test("recover() does not have a VM started anew that went on from the source", async () => {
  await using run = await crashed({ source: "released" });
  run.killDestination();
  writes(run, "aborted", "ran");
  run.world.source = "gone";
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.doesNotMatch(source.notes.join("\n"), /anew/);
});

Deno.test("recover() changes nothing when the VM went back to the source, and the destination was about to take it", async () => {
  await using run = await crashed({ source: "released" });
  writes(run, "aborted");
  run.world.source = "gone";
  run.destinationJournals.lines.get(`${run.source.id}.destination`)!.push({
    state: "taking",
    time: "2025-01-01T00:00:00.000Z",
  });
  const [ours, theirs] = lines(run);
  for (let times = 0; times < 2; times++) {
    const { source } = await recoverBoth(run, "destination");
    assert.equal(source.outcome, "unknown");
    assert.match(source.error!.message, /Nothing was changed/);
    // But for what the other side must know when it is alone.
    assert.deepEqual(lines(run), [ours, [...theirs!, "taking"]]);
  }
  assert.equal(run.world.destination, "paused");
});

Deno.test("recover() journals `aborted` before cont, and goes on with cont when it died in between", async () => {
  await using run = await crashed({ source: "released" });
  run.sourceVm.resumeFails = "the agent died";
  const sworn = await recoverSide(run, "source", { meet: unreachable, declareDead: true });
  assert.equal(sworn.outcome, "unknown");
  assert.equal(run.world.source, "postmigrate");
  const [sworn1, stopped] = run.sourceJournals.lines.get(`${run.source.id}.source`)!.slice(-2);
  assert.deepEqual([sworn1?.state, sworn1?.["declaredDead"]], ["aborted", "destination"]);
  // `status` still names it.
  assert.deepEqual([stopped?.state, stopped?.["stopped"]], ["aborted", "the agent died"]);
  run.sourceVm.resumeFails = null;
  const journal = lines(run)[0];
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.deepEqual(run.world.violations, []);
  assert.equal(run.world.source, "running");
  assert.equal(run.world.destination, "gone");
  assert.deepEqual(lines(run)[0], [...journal!, "aborted"]);
  const last = run.sourceJournals.lines.get(`${run.source.id}.source`)!.at(-1)!;
  assert.equal(last["stopped"], undefined);
});

Deno.test("recover() journals no `aborted` for a QEMU that died while its copy was discarded", async () => {
  await using run = await crashed({ source: "released" }, { destination: { runFails: 1_000 } });
  const { destinationVm } = run;
  const quit = destinationVm.quit.bind(destinationVm);
  destinationVm.quit = () => {
    run.killSource();
    return quit();
  };
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "unknown");
  assert.match(source.error!.message, /Cannot run the VM at the source again: its QEMU is gone/);
  assert.deepEqual(lines(run)[0], ["open", "releasing", "released", "released"]);
  const again = await recoverBoth(run, "destination");
  assert.match(again.source.error!.message, /both QEMUs are gone: start the VM anew/);
});

Deno.test("recover() does not run the VM at the source while its disk takes no line", async () => {
  let full = false;
  await using run = await crashed({ source: "released" }, { sourceDiskFails: () => full });
  full = true;
  const word = { meet: unreachable, declareDead: true };
  const sworn = await recoverSide(run, "source", word);
  assert.equal(sworn.outcome, "unknown");
  assert.match(sworn.error!.message, /no space left/);
  assert.equal(run.world.source, "postmigrate");
  full = false;
  assert.equal((await recoverSide(run, "source", word)).outcome, "completed");
  assert.equal(run.world.source, "running");
});

for (const became of ["prelaunch", "gone"] as const) {
  Deno.test(`recover() throws no copy away for a VM whose cont had failed, and that is ${became} since`, async () => {
    await using run = await crashed({ source: "released" });
    run.sourceVm.resumeFails = 'Failed to get "write" lock';
    const one = await recoverSide(run, "source", { meet: unreachable, declareDead: true });
    assert.equal(one.outcome, "unknown");
    run.world.source = became;
    const both = await recoverBoth(run, "destination");
    assert.deepEqual([both.source.outcome, both.destination.outcome], ["unknown", "unknown"]);
    assert.equal(run.world.destination, "paused", storyOf(run));
    run.world.destination = "gone";
    const { source } = await recoverBoth(run, "destination");
    assert.match(source.error!.message, /start the VM anew/, storyOf(run));
  });
}

for (const how of ["ran for a moment", "was not answered, and worked later"] as const) {
  Deno.test(`recover() does not say that the copy over there is the VM when its cont ${how}`, async () => {
    await using run = await crashed({ source: "released" });
    const real = sourceRecoveryVm(run);
    let silent = false;
    const vm: RecoveryVm = {
      get hasRun() {
        return real.hasRun;
      },
      onRun: null,
      status: () => silent ? Promise.reject(new Error("QEMU does not answer")) : real.status(),
      resume: async () => {
        if (how === "ran for a moment") {
          await run.sourceVm.resume();
          run.world.source = "paused";
        } else {
          silent = true;
          void run.clock.sleep(60_000).then(() => run.sourceVm.resume());
          await run.clock.sleep(10_000);
        }
        throw new Error("it does not run");
      },
      announce: () => real.announce(),
      quit: () => real.quit(),
    };
    const one = await recoverSide(run, "source", { meet: unreachable, declareDead: true, vm });
    assert.equal(one.outcome, "unknown", storyOf(run));
    await run.clock.sleep(100_000);
    assert.ok(run.world.sourceRanOn);
    run.killSource();
    const { source } = await recoverBoth(run, "destination");
    if (how === "ran for a moment") {
      assert.equal(source.outcome, "completed", storyOf(run));
      assert.equal(run.world.destination, "gone");
    } else {
      assert.equal(source.outcome, "unknown", storyOf(run));
      assert.match(source.error!.message, /the only one, or older than what was lost/);
      assert.equal(run.world.destination, "paused");
    }
  });
}

for (
  const frozen of [
    "while `aborted` is written",
    "with cont unanswered",
    "no more, its disk full",
  ] as const
) {
  Deno.test(`recover() throws no copy away for a VM that died before it went on, its QEMU frozen ${frozen}`, async () => {
    await using run = await crashed({ source: "released" });
    const real = sourceRecoveryVm(run);
    let silent = false;
    let full = false;
    const vm: RecoveryVm = {
      get hasRun() {
        return real.hasRun;
      },
      onRun: null,
      status: () => silent ? Promise.reject(new Error("QEMU does not answer")) : real.status(),
      resume: async () => {
        full = frozen === "no more, its disk full";
        silent = !full;
        await run.clock.sleep(10_000);
        throw new Error("no answer came");
      },
      announce: () => real.announce(),
      quit: () => real.quit(),
    };
    run.sourceJournals.beforeLine = ({ state }) => {
      if (full) return Promise.reject(new Error("no space left on device"));
      silent ||= state === "aborted" && frozen === "while `aborted` is written";
      return Promise.resolve();
    };
    const one = await recoverSide(run, "source", { meet: unreachable, declareDead: true, vm });
    assert.equal(one.outcome, "unknown", storyOf(run));
    full = false;
    run.killSource();
    const { source } = await recoverBoth(run, "destination");
    assert.equal(source.outcome, "unknown", storyOf(run));
    assert.equal(run.world.destination, "paused", storyOf(run));
    assert.equal(run.world.sourceRanOn, false);
  });
}

Deno.test("recover() leaves alone a QEMU that has served another migration since", async () => {
  await using run = await crashed({ source: "done" });
  writes(run, "done");
  const journal = run.sourceJournals.lines.get(`${run.source.id}.source`)!;
  const releasing = journal.find(({ state }) => state === "releasing")!;
  releasing["counters"] = { dirtySyncCount: 77, normal: 7, duplicate: 7 };
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.match(source.notes.join("\n"), /has served another migration since, and is left alone/);
  assert.equal(run.world.source, "postmigrate");
  assert.equal(run.world.destination, "running");
});
