import assert from "node:assert/strict";
import type { SourceJournalState } from "../../migration/ports.ts";
import { type Verdict, verdict } from "../../migration/recovery_rules.ts";
import type { DestinationStanding, SourceStanding } from "../../migration/recovery_standing.ts";

const counters = { dirtySyncCount: 3, normal: 100, duplicate: 20 };
const released: SourceJournalState[] = ["open", "releasing", "released"];

function record(states: SourceJournalState[], { stopped = false } = {}) {
  return { states, counters, stopped };
}

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

Deno.test("verdict() throws no copy away for a VM whose cont had failed, and whose QEMU has ended since", () => {
  const states: SourceJournalState[] = [...released, "aborted"];
  for (const declared of [false, true]) {
    const silent: Act = declared ? "lost" : "unknown";
    const acts: Act[] = ["unknown", "lost", "unknown", "lost", "done", silent];
    const options = { record: record(states, { stopped: true }), declared };
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
