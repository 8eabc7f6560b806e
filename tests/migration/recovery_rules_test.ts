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
  type Verdict,
  verdict,
} from "../../migration/recovery_rules.ts";

const counters = { dirtySyncCount: 3, normal: 100, duplicate: 20 };
const released: SourceJournalState[] = ["open", "releasing", "released"];

function record(states: SourceJournalState[], known = true, stopped = false) {
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
  assert.equal(sourceStanding({ ...vm, counters }, record(["open"], false)), "elsewhere");
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

type Act = Verdict["act"];
const columns: DestinationStanding[] = [
  "loaded",
  "neverRan",
  "taking",
  "takingGone",
  "running",
  "unreachable",
];
/** PROTOCOL.md section 7.4, a row for each standing of the source; with `--declare-dead destination` where it differs. */
const rows: [string, SourceStanding, SourceJournalState[], (Act | [Act, Act])[]][] = [
  ["here", "here", ["open"], [
    "discard",
    "discard",
    "conflict",
    "discard",
    "conflict",
    "settled",
  ]],
  ...([
    ["here, given back", "here", [...released, "aborted"]],
    ["elsewhere, given back", "elsewhere", [...released, "aborted", "ran"]],
  ] as [string, SourceStanding, SourceJournalState[]][]).map((
    row,
  ): typeof rows[number] => [...row, [
    "discard",
    "discard",
    "conflict",
    "discard",
    "conflict",
    "settled",
  ]]),
  // It may run over there, too.
  ...([
    ["here, released", "here", released],
    ["here, ranHere", "here", [...released, "ranHere"]],
    ["elsewhere, ran", "elsewhere", [...released, "ran"]],
    ["gone, ran", "gone", [...released, "ran"]],
  ] as [string, SourceStanding, SourceJournalState[]][]).map((
    row,
  ): typeof rows[number] => [...row, [
    "discard",
    "discard",
    "conflict",
    "discard",
    "conflict",
    ["unknown", "settled"],
  ]]),
  ["gone, ranHere", "gone", [...released, "ranHere"], [
    "unknown",
    "lost",
    "unknown",
    "lost",
    "done",
    ["unknown", "settled"],
  ]],
  ["waiting", "waiting", ["open", "releasing"], [
    "unknown",
    "unknown",
    "unknown",
    "unknown",
    "unknown",
    "unknown",
  ]],
  ["postmigrate", "postmigrate", ["open", "releasing"], [
    "release",
    "resume",
    "release",
    ["unknown", "resume"],
    "done",
    ["unknown", "resume"],
  ]],
  ["postmigrate, released", "postmigrate", released, [
    "release",
    "resume",
    "release",
    ["unknown", "resume"],
    "done",
    ["unknown", "resume"],
  ]],
  ["postmigrate, given back", "postmigrate", [...released, "aborted"], [
    "resume",
    "resume",
    "conflict",
    "resume",
    "conflict",
    "resume",
  ]],
  ["postmigrate, released anew", "postmigrate", [...released, "aborted", "released"], [
    "release",
    "resume",
    "release",
    ["unknown", "resume"],
    "done",
    ["unknown", "resume"],
  ]],
  ["gone", "gone", ["open"], [
    "unknown",
    "lost",
    "release",
    "lost",
    "done",
    "unknown",
  ]],
  ["gone, released", "gone", released, [
    "release",
    "lost",
    "release",
    "lost",
    "done",
    "unknown",
  ]],
  ["gone, released anew", "gone", [...released, "aborted", "released"], [
    "release",
    "lost",
    "release",
    "lost",
    "done",
    "unknown",
  ]],
  ...([
    ["gone, aborted", ["open", "aborted"]],
    ["gone, released and aborted", [...released, "aborted"]],
    ["gone, aborted and ran", [...released, "aborted", "ran"]],
  ] as [string, SourceJournalState[]][]).map((
    [name, states],
  ): typeof rows[number] => [name, "gone", states, [
    "discard",
    "discard",
    "conflict",
    "discard",
    "conflict",
    "settled",
  ]]),
  [
    "elsewhere, done",
    "elsewhere",
    [...released, "done", "ran"],
    columns.map(() => "done" as const),
  ],
  ["postmigrate, done", "postmigrate", [...released, "done"], columns.map(() => "done" as const)],
  ["gone, done", "gone", [...released, "done"], columns.map(() => "done" as const)],
  ["here, done", "here", [...released, "done"], columns.map(() => "conflict" as const)],
  ["reset", "reset", released, [
    "unknown",
    "lost",
    "unknown",
    "lost",
    "unknown",
    "unknown",
  ]],
  ["reset, done", "reset", [...released, "done"], columns.map(() => "conflict" as const)],
];

for (const [name, source, states, acts] of rows) {
  Deno.test(`verdict() does what the table says with the source ${name}`, () => {
    columns.forEach((destination, i) => {
      const act = acts[i]!;
      const [undeclared, declared] = Array.isArray(act) ? act : [act, act];
      const of = (word: boolean) =>
        verdict(source, destination, { record: record(states), declared: word }).act;
      assert.equal(of(false), undeclared, destination);
      assert.equal(of(true), declared, `${destination}, declared dead`);
    });
  });
}

Deno.test("verdict() gives a VM back to no QEMU whose cont had failed, and that was reset or has ended since", () => {
  const states: SourceJournalState[] = [...released, "aborted"];
  const reset = { runState: "prelaunch", migration: "completed", counters };
  assert.equal(sourceStanding(reset, record(states, true, true)), "reset");
  const acts: Act[] = ["unknown", "lost", "unknown", "lost", "done", "unknown"];
  for (const declared of [false, true]) {
    const options = { record: record(states, true, true), declared };
    assert.deepEqual(columns.map((column) => verdict("gone", column, options).act), acts);
  }
});

Deno.test("verdict() never runs a copy that may be older than one that ran, and never two", () => {
  for (const [, source, states] of rows) {
    const back = states.findLastIndex((state) => ["aborted", "ran", "ranHere"].includes(state));
    const wentOn = back > states.lastIndexOf("released");
    for (const destination of columns) {
      const { act } = verdict(source, destination, { record: record(states), declared: false });
      const may = `${source} ${destination} ${states.at(-1)}`;
      if (act === "release") {
        assert.ok(source === "postmigrate" || source === "gone", may);
        assert.ok(destination === "loaded" || destination === "taking", may);
        assert.ok(!wentOn, may);
        assert.ok(
          source !== "gone" || destination === "taking" || states.includes("released"),
          may,
        );
      }
      if (act === "resume") {
        assert.equal(source, "postmigrate", may);
        assert.ok(
          wentOn
            ? destination !== "taking" && destination !== "running"
            : destination === "neverRan",
          may,
        );
      }
      if (act === "discard") {
        assert.ok(["loaded", "neverRan", "takingGone"].includes(destination), may);
      }
      if (act === "done") {
        assert.ok(source !== "here", may);
        assert.ok(destination === "running" || states.includes("done"), may);
      }
    }
  }
});

Deno.test("verdict() never calls a VM lost that went on from the source", () => {
  for (const destination of columns) {
    for (const last of ["aborted", "ran"] as const) {
      const told = verdict("gone", destination, {
        record: record([...released, last]),
        declared: false,
      });
      assert.ok(!("text" in told) || !told.text.includes("anew"), `${destination} ${last}`);
    }
  }
});
