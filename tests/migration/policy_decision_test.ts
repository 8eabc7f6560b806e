import assert from "node:assert/strict";
import { negotiateSuites, pageClasses } from "../../migration/message_types.ts";
import { definePolicy } from "../../migration/policy.ts";
import { decide, judge } from "../../migration/policy_decision.ts";
import type { PolicyVm } from "../../migration/policy_types.ts";

const key = `${"A".repeat(43)}=`;
const policy = definePolicy({
  name: "bank",
  levels: {
    lab: { profile: "paper", suites: ["rc4-round"] },
    public: { suites: ["aes-128-gcm", "aes-256-gcm"], onTamper: "ask" },
    confidential: { suites: ["aes-256-gcm"], classes: { kernelText: ["aes-128-gcm"] } },
    restricted: {
      suites: ["aes-256-gcm"],
      to: ["host-b", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
    },
  },
  select: (vm) => vm.labels.includes("pci") ? "restricted" : "confidential",
});
const vm: PolicyVm = {
  name: "web1",
  uuid: "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
  memoryBytes: 2 ** 32,
  machine: "pc-q35-7.2",
  labels: [],
};
const offer = { ...vm, sensitivity: null };

Deno.test("decide() takes the operator's level, else the one that the policy selects", async () => {
  const selected = await decide(policy, vm, {});
  assert.equal(selected.refusal, null);
  assert.deepEqual(selected, {
    refusal: null,
    level: "confidential",
    levelFrom: "select",
    profile: "sealed",
    suites: {
      user: ["aes-256-gcm"],
      kernelText: ["aes-128-gcm"],
      kernelData: ["aes-256-gcm"],
      unmapped: ["aes-256-gcm"],
    },
    onTamper: null,
    to: null,
  });
  const given = await decide(policy, vm, { sensitivity: "public" });
  assert.ok(given.refusal === null);
  assert.deepEqual([given.level, given.levelFrom, given.onTamper], ["public", "operator", "ask"]);
});

Deno.test("decide() throws when the operator names no level", async () => {
  for (const sensitivity of ["restrcted", "toString", "__proto__"]) {
    await assert.rejects(decide(policy, vm, { sensitivity }), { code: "usage" });
  }
  await assert.rejects(decide(policy, vm, { sensitivity: "restrcted" }), {
    message:
      "Cannot use sensitivity restrcted: policy bank has no such level; did you mean restricted?",
  });
});

Deno.test("decide() lets a VM go to the level's destinations only, by name or by key", async () => {
  const pci = { ...vm, labels: ["pci"] };
  const to = async (name: string | null, key: string | null) =>
    (await decide(policy, pci, { peer: { name, key } })).refusal?.code ?? null;
  assert.equal(await to("host-b", null), null);
  assert.equal(await to(null, key), null);
  assert.equal(await to("other", key), null);
  assert.equal(await to("host-c", `${"B".repeat(42)}A=`), "policy");
  assert.equal(await to(null, null), "policy");
  const anywhere = await decide(policy, vm, { peer: { name: "host-c", key: null } });
  assert.equal(anywhere.refusal, null);
});

Deno.test("decide() refuses a level of the profile that this run is not of", async () => {
  const lab = { sensitivity: "lab" };
  assert.equal((await decide(policy, vm, { ...lab, profile: "paper" })).refusal, null);
  assert.equal((await decide(policy, vm, { ...lab, profile: "sealed" })).refusal?.code, "profile");
  assert.equal((await decide(policy, vm, { profile: "paper" })).refusal?.code, "profile");
});

Deno.test("judge() takes the offer's level, else its own policy's", async () => {
  const named = await judge(policy, { ...offer, sensitivity: "public" }, {});
  assert.ok(named.refusal === null);
  assert.deepEqual([named.level, named.levelFrom], ["public", "offer"]);
  const selected = await judge(policy, offer, { labels: ["pci"] });
  assert.ok(selected.refusal === null);
  assert.deepEqual([selected.level, selected.levelFrom], ["restricted", "select"]);
});

Deno.test("judge() refuses a level that its policy does not have", async () => {
  for (const sensitivity of ["secret", "toString"]) {
    const { refusal } = await judge(policy, { ...offer, sensitivity }, {});
    assert.equal(refusal?.code, "policy");
    assert.match(refusal!.text, /is no level of this side's policy bank/);
  }
});

Deno.test("judge() refuses whatever is below the level that the operator demands", async () => {
  const code = async (sensitivity: string | null, minimum: string) =>
    (await judge(policy, { ...offer, sensitivity }, { minimum })).refusal?.code ?? null;
  assert.equal(await code("public", "confidential"), "policy");
  assert.equal(await code("confidential", "confidential"), null);
  assert.equal(await code("restricted", "confidential"), null);
  assert.equal(await code(null, "restricted"), "policy");
  await assert.rejects(code("public", "secret"), { code: "usage" });
});

Deno.test("judge() refuses a level of the profile that this run is not of", async () => {
  const { refusal } = await judge(policy, { ...offer, sensitivity: "lab" }, { profile: "sealed" });
  assert.equal(refusal?.code, "profile");
});

/** One level on each side: what both accept, per class; null where that is nothing. */
async function negotiated(
  source: Parameters<typeof definePolicy<"all">>[0]["levels"]["all"],
  destination: typeof source,
) {
  const of = (all: typeof source) =>
    definePolicy({ name: "x", levels: { all }, select: () => "all" });
  const offered = await decide(of(source), vm, {});
  const accepted = await judge(of(destination), { ...offer, sensitivity: "all" }, {});
  assert.ok(offered.refusal === null && accepted.refusal === null);
  return negotiateSuites(offered.suites, accepted.suites);
}

Deno.test("decide() and judge() leave what both accept, class by class, in the source's order", async () => {
  const chosen = await negotiated(
    { suites: ["chacha20-poly1305", "aes-256-gcm"], classes: { kernelText: ["aes-128-gcm"] } },
    { suites: ["aes-256-gcm", "chacha20-poly1305", "aes-128-gcm"] },
  );
  assert.deepEqual(chosen, {
    user: "chacha20-poly1305",
    kernelText: "aes-128-gcm",
    kernelData: "chacha20-poly1305",
    unmapped: "chacha20-poly1305",
  });
});

Deno.test("decide() and judge() leave nothing when either side demands more than the other has", async () => {
  const strong = { suites: ["aes-256-gcm"] } as const;
  const weak = { suites: ["aes-128-gcm"] } as const;
  for (const [source, destination] of [[strong, weak], [weak, strong]] as const) {
    const chosen = await negotiated(source, destination);
    for (const pageClass of pageClasses) assert.equal(chosen[pageClass], null);
  }
  const mixed = { suites: ["aes-256-gcm"], classes: { kernelText: ["aes-128-gcm"] } } as const;
  assert.equal((await negotiated(mixed, strong)).kernelText, null);
  assert.equal((await negotiated(strong, mixed)).kernelText, null);
});
