import assert from "node:assert/strict";
import type { JournalEntry } from "../../migration/ports.ts";
import type { RecoveryVm } from "../../migration/recovery_options.ts";
import type { SimulatedMigration } from "../support/simulated_migration.ts";
import {
  crashed,
  recoverBoth,
  recoverSide,
  silence,
  unreachable,
} from "../support/simulated_recovery.ts";

/** A QEMU that stands so, and keeps count of what is done to it. */
class Standing implements RecoveryVm {
  readonly hasRun = false;
  onRun = null;
  runState: string;
  readonly done: string[] = [];

  constructor(runState: string) {
    this.runState = runState;
  }

  status() {
    const migration = this.runState === "gone" ? null : "completed";
    return Promise.resolve({ runState: this.runState, migration, counters: null });
  }

  resume(): Promise<void> {
    this.done.push("cont");
    this.runState = "running";
    return Promise.resolve();
  }

  announce(): Promise<void> {
    return Promise.resolve();
  }

  quit(): Promise<void> {
    this.done.push("quit");
    this.runState = "gone";
    return Promise.resolve();
  }
}

/** What the destination's journal holds. */
function journalOf(run: SimulatedMigration): JournalEntry[] {
  return run.destinationJournals.lines.get(`${run.source.id}.destination`)!;
}

/** A VM that ran at the destination, whose disk was full for the line that says so. */
async function ranUnjournalled(): Promise<SimulatedMigration> {
  const run = await crashed({ destination: "running" });
  const journal = journalOf(run);
  while (journal.at(-1)!.state === "running") journal.pop();
  assert.equal(journal.at(-1)!.state, "taking");
  return run;
}

Deno.test("recover() does not run a VM again that came, ran and was moved on under `taking`", async () => {
  await using run = await ranUnjournalled();
  const vm = new Standing("postmigrate");
  const alone = await recoverSide(run, "destination", { meet: unreachable, vm });
  assert.equal(alone.outcome, "completed", alone.error?.message);
  assert.match(alone.notes.at(-1)!, /came here, and may have gone on since/);
  const sworn = await recoverSide(run, "destination", { meet: silence(), vm, declareDead: true });
  assert.equal(sworn.outcome, "completed", sworn.error?.message);
  assert.deepEqual(vm.done, []);
});

Deno.test("recover() at the source takes RUNNING of a VM that was moved on from the destination for the end", async () => {
  for (const listens of ["source", "destination"] as const) {
    await using run = await ranUnjournalled();
    const vm = new Standing("postmigrate");
    const { source, destination } = await recoverBoth(run, listens, { destination: vm });
    assert.equal(source.outcome, "completed", source.error?.message);
    assert.equal(destination.outcome, "completed", destination.error?.message);
    assert.equal(run.sourceJournals.states.at(-1), "done");
    assert.equal(run.world.source, "gone");
    assert.deepEqual(vm.done, []);
  }
});

Deno.test("recover() runs no VM that was moved on while the source was waited for", async () => {
  await using run = await ranUnjournalled();
  const vm = new Standing("paused");
  const meet = {
    dial: () => {
      vm.runState = "postmigrate";
      return Promise.reject(new Error("no route to host"));
    },
  };
  const { outcome } = await recoverSide(run, "destination", { meet, vm });
  assert.equal(outcome, "unknown");
  assert.deepEqual(vm.done, []);
});

Deno.test("recover() does not end what a QEMU took in after the migration that was discarded", async () => {
  await using run = await crashed({ source: "copying" });
  const time = "2025-01-02T00:00:00.000Z";
  journalOf(run).push({ state: "discarded", time });
  const journal = run.sourceJournals.lines.get(`${run.source.id}.source`)!;
  journal.push({ state: "aborted", time }, { state: "ran", time });
  run.world.source = "gone";
  const vm = new Standing("running");
  const { source, destination } = await recoverBoth(run, "destination", { destination: vm });
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.equal(destination.outcome, "completed", destination.error?.message);
  assert.deepEqual(vm.done, []);
});

Deno.test("recover() journals at the destination that the VM was seen to run: no older copy runs unasked once it has ended", async () => {
  await using run = await crashed({ source: "released" });
  const vm = new Standing("running");
  const alone = await recoverSide(run, "destination", { meet: unreachable, vm });
  assert.equal(alone.outcome, "unknown", alone.notes.join("\n"));
  assert.equal(journalOf(run).at(-1)!.state, "ranEarly");
  vm.runState = "gone";
  const { source } = await recoverBoth(run, "destination", { destination: vm });
  assert.equal(source.outcome, "unknown");
  assert.equal(run.world.source, "postmigrate");
});

Deno.test("recover() settles on both sides when a copy that somebody ran beside the VM was ended", async () => {
  await using run = await crashed({ destination: "loaded" });
  assert.equal(run.world.source, "running");
  const vm = new Standing("running");
  const both = await recoverBoth(run, "destination", { destination: vm });
  assert.match(both.source.error!.message, /Cannot settle this/);
  vm.runState = "gone";
  const { source, destination } = await recoverBoth(run, "destination", { destination: vm });
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.equal(destination.outcome, "completed", destination.error?.message);
  assert.equal(journalOf(run).at(-1)!.state, "discarded");
  assert.equal(run.world.source, "running");
});

Deno.test("recover() journals at the destination that the VM is there for good once the source's side has", async () => {
  await using run = await crashed({ source: "released" });
  const vm = new Standing("running");
  const { source, destination } = await recoverBoth(run, "destination", { destination: vm });
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.equal(destination.outcome, "completed", destination.error?.message);
  assert.equal(run.sourceJournals.states.at(-1), "done");
  assert.equal(journalOf(run).at(-1)!.state, "running");
});

Deno.test("recover() discards no copy that somebody ran when its disk takes no line", async () => {
  let full = false;
  await using run = await crashed({ source: "released" }, { destinationDiskFails: () => full });
  journalOf(run).push({ state: "ranEarly", time: "2025-01-02T00:00:00.000Z" });
  full = true;
  const vm = new Standing("paused");
  const { source } = await recoverBoth(run, "destination", { destination: vm });
  assert.equal(source.outcome, "unknown");
  assert.deepEqual(vm.done, []);
  assert.equal(run.world.source, "postmigrate");
});

Deno.test("recover() at a destination lets nobody end a QEMU whose copy was discarded: what it holds came later", async () => {
  await using run = await crashed({ source: "copying" });
  journalOf(run).push({ state: "discarded", time: "2025-01-01T00:00:00.000Z" });
  const vm = new Standing("running");
  const alone = await recoverSide(run, "destination", { meet: unreachable, vm });
  assert.equal(alone.outcome, "completed", alone.error?.message);
  assert.match(alone.notes[0]!, /discarded its copy/);
  assert.doesNotMatch(alone.notes.join("\n"), /can be ended/);
  assert.deepEqual(vm.done, []);
});

Deno.test("recover() with dryRun at a destination that is taking says that it would run the VM", async () => {
  await using run = await ranUnjournalled();
  const vm = new Standing("paused");
  const dry = await recoverSide(run, "destination", { meet: unreachable, vm, dryRun: true });
  assert.match(dry.notes.at(-1)!, /runs the VM if nobody answers/);
  assert.deepEqual(vm.done, []);
  await recoverSide(run, "destination", { meet: unreachable, vm });
  assert.deepEqual(vm.done, ["cont"]);
});

/** The destination's disk takes no line any more. */
function fillDisk(run: SimulatedMigration): void {
  run.destinationJournals.beforeLine = () => Promise.reject(new Error("no space left on device"));
}

Deno.test("recover() obeys DISCARD though its disk is full, and the VM runs at the source", async () => {
  await using run = await crashed({ destination: "loaded" });
  fillDisk(run);
  const { source } = await recoverBoth(run, "destination");
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.equal(run.world.source, "running");
  assert.equal(run.world.destination, "gone");
});

for (const last of ["loaded", "open"] as const) {
  Deno.test(`recover() brings the VM back though the destination's disk is full, its journal at \`${last}\``, async () => {
    await using run = await crashed({ source: "released" });
    const journal = run.destinationJournals.lines.get(`${run.source.id}.destination`)!;
    while (journal.at(-1)!.state !== last) journal.pop();
    if (last === "loaded") run.killDestination();
    fillDisk(run);
    const { source } = await recoverBoth(run, "destination");
    assert.equal(source.outcome, "completed", source.error?.message);
    assert.equal(run.world.source, "running");
  });
}
