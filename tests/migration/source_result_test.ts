import assert from "node:assert/strict";
import { type SourceFacts, sourceResult } from "../../migration/source_result.ts";

/** A source that has failed before it did anything, but for `facts`. */
function result(facts: Partial<SourceFacts> = {}) {
  return sourceResult({
    common: {
      outcome: "aborted",
      profile: "sealed",
      suites: null,
      suite: null,
      landing: null,
      backend: null,
      vm: { name: null, uuid: "u", memoryBytes: 4096, sensitivity: null },
      cpuSeconds: { agent: 1, qemu: 2 },
      notes: [],
      warnings: ["of the destination"],
      error: null,
    },
    id: null,
    dryRun: false,
    before: "running",
    qemuSeconds: null,
    times: { startedAtMs: 100, firstPageAtMs: null, stoppedAtMs: null, endedAtMs: 150 },
    holdMs: 0,
    sent: null,
    wireBytes: 10,
    reconnects: 0,
    loaded: null,
    running: null,
    sourceState: null,
    destinationState: null,
    released: false,
    lastState: "connecting",
    doubts: [],
    ...facts,
  });
}

/** When things happened in a migration that went well. */
const times = { startedAtMs: 100, firstPageAtMs: 140, stoppedAtMs: 1_000, endedAtMs: 2_000 };

Deno.test("sourceResult() knows nothing of what never came", () => {
  const { setupMs, totalMs, downtimeMs, rounds, bytes, verified, warnings, cpuSeconds } = result();
  assert.deepEqual([setupMs, totalMs, downtimeMs, rounds], [null, 50, null, null]);
  assert.deepEqual(bytes, { guest: 0, wire: 10 });
  assert.deepEqual(verified, { pages: 0, records: 0 });
  assert.deepEqual(warnings, ["of the destination"]);
  assert.deepEqual(cpuSeconds, { agent: 1, qemu: 2 });
});

Deno.test("sourceResult() takes from the downtime what the destination measured after RESUME, and what hooks held", () => {
  const running = { atMs: 1_300, sinceResumeUs: 20_500 };
  const { setupMs, totalMs, downtimeMs } = result({ times, running, holdMs: 200 });
  assert.deepEqual([setupMs, totalMs, downtimeMs], [40, 1_700, 79.5]);
});

Deno.test("sourceResult() has no downtime of a VM that did not run before, or that nobody saw run", () => {
  const running = { atMs: 1_300, sinceResumeUs: 0 };
  assert.equal(result({ times, running, before: "paused" }).downtimeMs, null);
  assert.equal(result({ times }).downtimeMs, null);
  assert.equal(result({ times: { ...times, stoppedAtMs: null }, running }).downtimeMs, null);
});

Deno.test("sourceResult() says where the VM stands, and unknown where nobody can know", () => {
  const states = (facts: Partial<SourceFacts>) => {
    const { sourceState, destinationState } = result(facts);
    return [sourceState, destinationState];
  };
  assert.deepEqual(states({}), ["running", null]);
  assert.deepEqual(states({ id: "a", dryRun: true, before: "paused" }), ["paused", null]);
  assert.deepEqual(states({ id: "a" }), ["unknown", null]);
  assert.deepEqual(states({ id: "a", released: true }), ["unknown", "unknown"]);
  assert.deepEqual(
    states({ id: "a", released: true, sourceState: "quit", destinationState: "running" }),
    ["quit", "running"],
  );
});

Deno.test("sourceResult() adds up what was sent, and what was damaged of it", () => {
  const pages = { user: 1, kernelText: 0, kernelData: 0, unmapped: 0, zero: 0 };
  const rounds = [4096, 8192].map((bytes, round) => ({
    round,
    pages,
    bytes,
    sealedBytes: bytes,
    durationMs: 1,
    keyNumber: round,
    mistakes: 0,
  }));
  const hits = [{ time: "t", what: "record 3" }];
  const report = result({
    sent: {
      rounds,
      monitor: null,
      hits,
      mostUsedSuite: () => "aes-256-gcm",
      repair: { mistakes: 1, repairedPages: 7 },
    },
    qemuSeconds: 9,
    loaded: { pages: 3, records: 4 },
    doubts: ["of the end"],
  });
  assert.equal(report.suite, "aes-256-gcm");
  assert.equal(report.bytes.guest, 12_288);
  assert.deepEqual(report.rounds, rounds);
  assert.deepEqual(report.mistakes, { detected: 1, repaired: 7, hits });
  assert.deepEqual(report.verified, { pages: 3, records: 4 });
  assert.deepEqual(report.cpuSeconds, { agent: 1, qemu: 9 });
  assert.deepEqual(report.warnings, ["of the destination", "of the end"]);
});
