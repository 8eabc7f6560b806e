import assert from "node:assert/strict";
import type {
  DestinationJournalState,
  SourceJournalState,
  StateBefore,
} from "../../migration/ports.ts";
import {
  type DestinationStanding,
  destinationStanding,
  type SourceStanding,
  sourceStanding,
} from "../../migration/recovery_standing.ts";

const counters = { dirtySyncCount: 3, normal: 100, duplicate: 20 };
const released: SourceJournalState[] = ["open", "releasing", "released"];

function record(states: SourceJournalState[], { known = true, stopped = false } = {}) {
  return { states, counters: known ? counters : null, stopped };
}

const sources: [string, string, string | null, SourceJournalState[], SourceStanding][] = [
  ["runs", "running", null, ["open"], "here"],
  ["runs, its migration having failed", "running", "failed", released, "here"],
  ["is paused", "paused", "cancelled", ["open"], "here"],
  ["was never started", "prelaunch", null, ["open"], "here"],
  ["hangs in the last round", "finish-migrate", "device", ["open", "releasing"], "waiting"],
  ["stands as before, in postmigrate", "postmigrate", "failed", released, "here"],
  ["stands as before, cancelled", "postmigrate", "cancelled", ["open"], "here"],
  ["is about to be completed", "postmigrate", "device", released, "waiting"],
  ["has completed", "postmigrate", "completed", released, "postmigrate"],
  ["has completed unjournalled", "postmigrate", "completed", ["open", "releasing"], "postmigrate"],
  ["went on to another migration", "postmigrate", "completed", [...released, "ran"], "elsewhere"],
  ["was reset where it stood", "prelaunch", "completed", released, "reset"],
  ["was reset, having gone on", "prelaunch", "completed", [...released, "aborted"], "here"],
  ["was reset in another migration", "prelaunch", "completed", [...released, "ran"], "here"],
  ["is gone", "gone", null, released, "gone"],
];

for (const [what, runState, migration, states, standing] of sources) {
  Deno.test(`sourceStanding() is ${standing} when the source's QEMU ${what}`, () => {
    assert.equal(sourceStanding({ runState, migration, counters }, record(states)), standing);
  });
}

Deno.test("sourceStanding() takes only this migration's postmigrate for its own", () => {
  const vm = { runState: "postmigrate", migration: "completed" };
  const ours = record(released);
  for (const other of ["dirtySyncCount", "normal", "duplicate"] as const) {
    const changed = { ...counters, [other]: counters[other] + 1 };
    assert.equal(sourceStanding({ ...vm, counters: changed }, ours), "elsewhere", other);
  }
  // It was never released: another migration completed.
  assert.equal(
    sourceStanding({ ...vm, counters }, record(["open"], { known: false })),
    "elsewhere",
  );
  // Nobody knows whose it is: nothing is discarded for that.
  assert.equal(sourceStanding({ ...vm, counters: null }, ours), "waiting");
});

const destinations: [string, string | null, DestinationJournalState, DestinationStanding][] = [
  ["inmigrate", null, "open", "neverRan"],
  ["inmigrate", "active", "open", "neverRan"],
  ["paused", "completed", "open", "loaded"],
  ["prelaunch", "completed", "open", "loaded"],
  ["gone", null, "open", "neverRan"],
  ["paused", "completed", "loaded", "loaded"],
  ["gone", null, "loaded", "neverRan"],
  ["running", "completed", "loaded", "running"],
  ["paused", "completed", "taking", "taking"],
  ["running", "completed", "taking", "running"],
  ["io-error", "completed", "taking", "taking"],
  ["gone", null, "taking", "takingGone"],
  // It came here, and another migration took it away.
  ["postmigrate", "completed", "taking", "running"],
  ["postmigrate", "completed", "loaded", "running"],
  ["finish-migrate", "device", "taking", "running"],
  // One that did not get away.
  ["postmigrate", "failed", "taking", "taking"],
  ["postmigrate", "cancelled", "loaded", "loaded"],
  ["running", "completed", "running", "running"],
  ["paused", "completed", "running", "running"],
  ["gone", null, "running", "running"],
  ["paused", "completed", "ranEarly", "loaded"],
  ["io-error", "completed", "ranEarly", "loaded"],
  ["running", "completed", "ranEarly", "running"],
  ["postmigrate", "completed", "ranEarly", "running"],
  ["gone", null, "ranEarly", "takingGone"],
  ["gone", null, "discarded", "neverRan"],
];

for (const [runState, migration, journal, standing] of destinations) {
  Deno.test(`destinationStanding() is ${standing} with QEMU ${runState} (${migration}) under journal ${journal}`, () => {
    const before = runState === "prelaunch" ? "prelaunch" : "running";
    assert.equal(destinationStanding({ runState, migration }, { journal, before }), standing);
  });
}

Deno.test("destinationStanding() takes a VM that was reset for one that is gone", () => {
  const vm = { runState: "prelaunch", migration: "completed" };
  const of = (journal: DestinationJournalState, before: StateBefore) =>
    destinationStanding(vm, { journal, before });
  assert.equal(of("loaded", "running"), "neverRan");
  assert.equal(of("loaded", "paused"), "neverRan");
  assert.equal(of("loaded", "prelaunch"), "loaded");
  assert.equal(of("taking", "running"), "takingGone");
  assert.equal(of("ranEarly", "running"), "takingGone");
});

Deno.test("sourceStanding() gives a VM back to no QEMU whose cont had failed, and that was reset since", () => {
  const reset = { runState: "prelaunch", migration: "completed", counters };
  const back = record([...released, "aborted"], { stopped: true });
  assert.equal(sourceStanding(reset, back), "reset");
});
