import { parse } from "@optique/core/parser";
import { object } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import assert from "node:assert/strict";
import { parseVm, policyCommand } from "../../cli/policy.ts";
import { parseLabel, parseSensitivity, policyOptions } from "../../cli/policy_options.ts";
import { checkPolicyOptions } from "../../cli/protection.ts";
import { parseSize } from "../../cli/values.ts";

const uuid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";

Deno.test("parseVm() reads what is said of a VM, and leaves the rest empty", () => {
  assert.deepEqual(parseVm(`name=web1,memory=4GiB,uuid=${uuid.toUpperCase()},machine=pc-q35-7.2`), {
    ok: true,
    value: { name: "web1", memoryBytes: 2 ** 32, uuid, machine: "pc-q35-7.2" },
  });
  assert.deepEqual(parseVm("name=a=b"), {
    ok: true,
    value: {
      name: "a=b",
      memoryBytes: 0,
      uuid: "00000000-0000-0000-0000-000000000000",
      machine: "",
    },
  });
});

Deno.test("parseVm() refuses what it does not know", () => {
  for (
    const text of ["", "web1", "nmae=web1", "name=", "memory=4", "uuid=1", "name=a,,memory=1GiB"]
  ) {
    assert.equal(parseVm(text).ok, false, text);
  }
});

Deno.test("parseSize() wants a unit, and nothing after it", () => {
  assert.deepEqual(parseSize("1.5GiB"), { ok: true, value: 1.5 * 2 ** 30 });
  for (const text of ["", "4", "0B", "-1MB", "4GiB/s", "4 GiB"]) {
    assert.equal(parseSize(text).ok, false, text);
  }
});

Deno.test("parseLabel() and parseSensitivity() take words", () => {
  for (const text of ["pci", "team:payments", "größe-l", "a/b=c@d"]) {
    assert.equal(parseLabel(text).ok, true, text);
  }
  for (const text of ["", "a b", "a\n", "\u001b[2J", "x".repeat(129)]) {
    assert.equal(parseLabel(text).ok, false, text);
  }
  for (const text of ["restricted", "l1", "a.b_c-d"]) {
    assert.equal(parseSensitivity(text).ok, true, text);
  }
  for (const text of ["", "1", "__proto__", "a b", "x".repeat(65)]) {
    assert.equal(parseSensitivity(text).ok, false, text);
  }
});

Deno.test("policyOptions() takes a policy, a level and any number of labels", () => {
  const parser = object({ policy: policyOptions({ sensitivity: message`The level.` }) });
  const args = ["--label", "a", "--policy", "x.ts", "--sensitivity", "low", "--label", "b"];
  assert.deepEqual(parse(parser, args), {
    success: true,
    value: { policy: { policy: "x.ts", sensitivity: "low", labels: ["a", "b"] } },
  });
  const none = parse(parser, []);
  assert.ok(none.success);
  assert.deepEqual(none.value.policy.labels, []);
  const tooMany = Array.from({ length: 65 }, (_, index) => ["--label", `l${index}`]).flat();
  assert.equal(parse(parser, tooMany).success, false);
});

Deno.test("checkPolicyOptions() refuses what means nothing without a policy", () => {
  const none = { policy: undefined, sensitivity: undefined, labels: [] };
  checkPolicyOptions(none);
  checkPolicyOptions({ policy: "x.ts", sensitivity: "low", labels: ["a"] });
  assert.throws(() => checkPolicyOptions({ ...none, sensitivity: "low" }), {
    code: "usage",
    message: "Cannot use --sensitivity: there is no policy that knows it",
  });
  assert.throws(() => checkPolicyOptions({ ...none, labels: ["a"] }), {
    code: "usage",
    message: "Cannot use --label: there is no policy that knows it",
  });
});

Deno.test("policyCommand takes a file, and flags before and after it", () => {
  const parsed = parse(policyCommand, ["policy", "check", "--label", "a", "x.ts", "--peer", "b"]);
  assert.ok(parsed.success);
  const { command, file, labels, peer } = parsed.value;
  assert.deepEqual([command, file, labels, peer], ["policy check", "x.ts", ["a"], "b"]);
});
