import assert from "node:assert/strict";
import { defaultRegistry } from "../../ciphers/registry.ts";
import { destinationResult } from "../../migration/destination_result.ts";
import { MigrationError } from "../../migration/errors.ts";
import type { AcceptMessage } from "../../migration/messages.ts";
import { SimulatedMigration } from "../support/simulated_migration.ts";

const ACCEPT: AcceptMessage = {
  type: "ACCEPT",
  suites: {
    user: "aes-256-gcm",
    kernelText: "aes-256-gcm",
    kernelData: "aes-256-gcm",
    unmapped: "aes-256-gcm",
  },
  landing: "mapped",
  backend: "noble",
  notes: ["said to the source"],
  warnings: ["another version"],
  limits: { reconnectMs: 1, maxStopMs: 2, repairBudgetBytes: 3, windowBytes: 4 },
  qemuVersion: "7.2.22",
  destinationRandom: "",
};

type Facts = Parameters<typeof destinationResult>[0];

function report({ clock, destinationVm }: SimulatedMigration, facts: Partial<Facts>) {
  return destinationResult({
    options: { vm: destinationVm, clock, registry: defaultRegistry(), agentCpuSeconds: () => 0.5 },
    profile: "sealed",
    startedAtMs: clock.now() - 250,
    failure: null,
    arrived: null,
    tampered: false,
    destinationState: null,
    lastState: "listening",
    notes: [],
    ...facts,
  });
}

Deno.test("destinationResult() reports of a migration that was bound what came of it", async () => {
  await using run = new SimulatedMigration();
  const hits = [{ time: "1970-01-01T00:00:00.000Z", what: "record 3" }];
  const result = report(run, {
    arrived: {
      migrationId: "ab".repeat(16),
      accept: ACCEPT,
      sensitivity: "high",
      guestBytes: 8_192,
      wireBytes: 700,
      pages: 3,
      records: 9,
      damaged: 1,
      hits,
      reconnects: 2,
    },
    destinationState: "running",
    lastState: "running",
    notes: ["the landing's"],
  });
  assert.equal(result.outcome, "completed");
  assert.equal(result.id, "ab".repeat(16));
  assert.equal(result.totalMs, 250);
  assert.deepEqual(result.suites, ACCEPT.suites);
  assert.deepEqual(result.bytes, { guest: 8_192, wire: 700 });
  assert.deepEqual(result.mistakes, { detected: 1, repaired: 0, hits });
  assert.deepEqual(result.verified, { pages: 3, records: 9 });
  assert.equal(result.reconnects, 2);
  assert.equal(result.vm.sensitivity, "high");
  assert.deepEqual(result.notes, ["the landing's"]);
  assert.deepEqual(result.warnings, ["another version"]);
});

Deno.test("destinationResult() has no numbers of a migration that was not bound", async () => {
  await using run = new SimulatedMigration();
  const failure = new MigrationError("interrupted", "Cannot go on: receiving was cancelled");
  const result = report(run, { failure });
  assert.equal(result.outcome, "aborted");
  assert.equal(result.id, null);
  assert.equal(result.suites, null);
  assert.deepEqual(result.bytes, { guest: 0, wire: 0 });
  assert.deepEqual(result.verified, { pages: 0, records: 0 });
});

Deno.test("destinationResult() calls tampering what the source gave up for that, unless nobody knows how it ended", async () => {
  await using run = new SimulatedMigration();
  for (
    const [code, outcome] of [["vm", "tampered"], ["unknownOutcome", "unknown"]] as const
  ) {
    const failure = new MigrationError(code, "Cannot go on");
    assert.equal(report(run, { failure, tampered: true }).outcome, outcome);
  }
});
