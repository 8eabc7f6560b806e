import assert from "node:assert/strict";
import { encodeKey } from "../../migration/identity.ts";
import type { OfferMessage } from "../../migration/messages.ts";
import { checkOffer } from "../../migration/offer_check.ts";
import { everyClass, usualLimits } from "../support/simulated_migration.ts";
import { simulatedFacts } from "../support/simulated_source.ts";

const NO_UUID = "00000000-0000-0000-0000-000000000000";
const facts = simulatedFacts([4, 2]);

function offer(changes: Partial<OfferMessage> = {}): OfferMessage {
  const { uuid, name, machine, qemuVersion, memoryBytes, blocks, capabilities } = facts;
  return {
    type: "OFFER",
    uuid,
    name,
    machine,
    qemuVersion,
    memoryBytes,
    blocks,
    capabilities,
    vmId: null,
    sensitivity: null,
    before: "running",
    suites: everyClass("aes-256-gcm"),
    limits: usualLimits,
    dryRun: false,
    sourceRandom: encodeKey(new Uint8Array(32)),
    ...changes,
  };
}

Deno.test("checkOffer() takes an offer that fits, whatever the name and the order of the blocks", () => {
  for (const changes of [{}, { name: null }, { blocks: [...facts.blocks].reverse() }]) {
    assert.deepEqual(checkOffer(offer(changes), { facts, vmId: undefined }), {
      refusal: null,
      warnings: [],
    });
  }
});

Deno.test("checkOffer() warns when neither VM has a uuid, and when the QEMUs differ", () => {
  const checked = checkOffer(offer({ uuid: NO_UUID, qemuVersion: "10.0.2" }), {
    facts: { ...facts, uuid: NO_UUID },
    vmId: undefined,
  });
  assert.equal(checked.refusal, null);
  assert.equal(checked.refusal === null && checked.warnings.length, 2);
});

Deno.test("checkOffer() compares the VM id instead of the uuid where one is given", () => {
  const vmId = "11111111-2222-3333-4444-555555555555";
  const fits = checkOffer(offer({ vmId, uuid: NO_UUID }), { facts, vmId });
  assert.equal(fits.refusal, null);
  for (const [theirs, ours] of [[vmId, undefined], [null, vmId], [NO_UUID, vmId]] as const) {
    assert.ok(checkOffer(offer({ vmId: theirs }), { facts, vmId: ours }).refusal !== null);
  }
});

const misfits: Record<string, Partial<OfferMessage>> = {
  "another uuid": { uuid: NO_UUID },
  "another machine": { machine: "pc-q35-8.0" },
  "a block too many": { blocks: [...facts.blocks, { name: "more", bytes: 4096 }] },
  "a block too few": { blocks: facts.blocks.slice(0, 1) },
  "a block twice": { blocks: [facts.blocks[0]!, facts.blocks[0]!] },
  "a block of another size": {
    blocks: [facts.blocks[0]!, { ...facts.blocks[1]!, bytes: 4096 }],
  },
  "validate-uuid on one side": { capabilities: ["validate-uuid"] },
};

for (const [what, changes] of Object.entries(misfits)) {
  Deno.test(`checkOffer() refuses ${what}`, () => {
    const { refusal } = checkOffer(offer(changes), { facts, vmId: undefined });
    assert.equal(refusal?.code, "vm");
    assert.ok(refusal!.hint);
  });
}
