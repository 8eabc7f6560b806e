import assert from "node:assert/strict";
import {
  builtInRegistry,
  conformanceChecks,
  type ConformanceVector,
  guardSealer,
} from "../../../mod.ts";
import suite from "../../../scripts/suites/aes_256_gcm_siv.ts";
import { everyClass, migrate } from "../../support/simulated_migration.ts";
import rfc8452 from "../../vectors/aes_gcm_siv.json" with { type: "json" };

const vectors = rfc8452.vectors as ConformanceVector[];

for (const { name, run } of conformanceChecks(suite, { vectors })) Deno.test(name, run);

Deno.test("aes-256-gcm-siv: the vectors are RFC 8452's, with one that must not open", () => {
  assert.equal(vectors.filter(({ result }) => result === "valid").length, 26);
  assert.equal(vectors.filter(({ result }) => result === "tagMismatch").length, 1);
});

Deno.test("aes-256-gcm-siv: update() leaves plaintext alone until finish()", () => {
  using sealer = guardSealer(suite, new Uint8Array(32));
  const view = new Uint8Array(100).fill(7);
  sealer.begin(new Uint8Array(12), new Uint8Array(24));
  sealer.update(view.subarray(0, 60), view.subarray(0, 60));
  sealer.update(view.subarray(60), view.subarray(60));
  assert.ok(view.every((byte) => byte === 7));
  sealer.finish(new Uint8Array(16));
  assert.notDeepEqual(view, new Uint8Array(100).fill(7));
});

Deno.test("aes-256-gcm-siv: Source and Destination move a VM sealed with it", async () => {
  const registry = builtInRegistry();
  registry.register(suite);
  const suites = everyClass(suite.id);
  const { source, destination } = await migrate({
    registry,
    suites: { source: suites, destination: suites },
    pageCounts: [70, 3],
  });
  assert.equal(source.outcome, "completed", source.error?.message);
  assert.equal(source.suites?.user, suite.id);
  assert.equal(destination.backend, "@noble/ciphers");
});
