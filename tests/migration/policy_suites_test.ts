import assert from "node:assert/strict";
import { paperSuiteTable } from "../../ciphers/paper_suites.ts";
import { sealedSuites } from "../../ciphers/sealed.ts";
import { PolicyFault } from "../../migration/policy_check.ts";
import { checkPolicySuites, levelSuites, type SuiteFacts } from "../../migration/policy_suites.ts";
import type { PolicyLevel } from "../../migration/policy_types.ts";

const suites: SuiteFacts[] = [
  ...Object.values(sealedSuites),
  ...Object.values(paperSuiteTable),
  { id: "example.com/aes-256-gcm-siv", profile: "sealed", keyBytes: 32 },
];

function check(levels: Record<string, PolicyLevel>): void {
  checkPolicySuites({ name: "x", levels }, suites);
}

Deno.test("checkPolicySuites() takes levels that rise, or stay, for every class", () => {
  check({
    lab: { profile: "paper", suites: ["rc4-round"] },
    better: { profile: "paper", suites: ["aes-256-ctr", "rc4"] },
    public: { suites: ["aes-128-gcm", "aes-256-gcm"] },
    confidential: {
      suites: ["example.com/aes-256-gcm-siv"],
      classes: { kernelText: ["aes-128-gcm"] },
    },
    restricted: { suites: ["chacha20-poly1305"] },
    same: { suites: ["aes-256-gcm"] },
  });
});

const faults: Record<string, [Record<string, PolicyLevel>, RegExp]> = {
  "a suite that nobody knows": [
    { low: { suites: ["aes-256-gmc" as "aes-256-gcm"] } },
    /^levels\.low\.suites\[0\] is no suite that is known here: aes-256-gmc; did you mean aes-256-gcm\?$/,
  ],
  "a third party's suite that was not loaded": [
    { low: { suites: ["aes-256-gcm"], classes: { user: ["example.com/other"] } } },
    /^levels\.low\.classes\.user\[0\] is no suite that is known here: example\.com\/other$/,
  ],
  "a suite of the lab in a sealed level": [
    { low: { suites: ["aes-256-gcm", "rc4-round" as "aes-256-gcm"] } },
    /^levels\.low\.suites\[1\] is a suite of the lab, which protects nothing: rc4-round;/,
  ],
  "a suite of the lab for a class of a sealed level": [
    { low: { suites: ["aes-256-gcm"], classes: { unmapped: ["none" as "aes-256-gcm"] } } },
    /^levels\.low\.classes\.unmapped\[0\] is a suite of the lab, which protects nothing: none;/,
  ],
  "a sealed suite in a level of the lab": [
    { low: { profile: "paper", suites: ["aes-256-gcm" as "none"] } },
    /^levels\.low\.suites\[0\] is a sealed suite: aes-256-gcm;/,
  ],
  "a level above with a shorter key": [
    { high: { suites: ["aes-256-gcm"] }, low: { suites: ["aes-256-gcm", "aes-128-gcm"] } },
    /^levels\.low accepts aes-128-gcm for pages of class user, which is weaker than aes-256-gcm, the least that levels\.high below it accepts; levels go from low to high$/,
  ],
  "a level above with a shorter key for one class": [
    {
      low: { suites: ["aes-256-gcm"] },
      high: { suites: ["aes-256-gcm"], classes: { kernelData: ["aes-128-gcm"] } },
    },
    /^levels\.high accepts aes-128-gcm for pages of class kernelData, which is weaker/,
  ],
  "a level of the lab above a sealed one": [
    { low: { suites: ["aes-128-gcm"] }, lab: { profile: "paper", suites: ["aes-256-ctr"] } },
    /^levels\.lab accepts aes-256-ctr for pages of class user, which is weaker than aes-128-gcm/,
  ],
  "no cipher above one of the lab": [
    { low: { profile: "paper", suites: ["rc4"] }, high: { profile: "paper", suites: ["none"] } },
    /^levels\.high accepts none for pages of class user, which is weaker than rc4/,
  ],
};

for (const [what, [levels, message]] of Object.entries(faults)) {
  Deno.test(`checkPolicySuites() refuses ${what}`, () => {
    assert.throws(() => check(levels), (error) => {
      assert.ok(error instanceof PolicyFault);
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("levelSuites() takes a class's own suites, else those of the level", () => {
  assert.deepEqual(
    levelSuites({ suites: ["aes-256-gcm"], classes: { kernelText: ["aes-128-gcm"] } }),
    {
      user: ["aes-256-gcm"],
      kernelText: ["aes-128-gcm"],
      kernelData: ["aes-256-gcm"],
      unmapped: ["aes-256-gcm"],
    },
  );
});
