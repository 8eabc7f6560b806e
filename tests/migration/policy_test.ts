import assert from "node:assert/strict";
import { sealedSuites } from "../../ciphers/sealed.ts";
import { checkPolicy, definePolicy } from "../../mod.ts";
import { MigrationError } from "../../migration/errors.ts";
import { sampleRound, sampleVm } from "../support/policy_samples.ts";

const bank = definePolicy({
  name: "bank",
  levels: { // VM sensitivity, lowest first
    public: { suites: ["aes-128-gcm", "aes-256-gcm"] },
    confidential: { suites: ["aes-256-gcm"], classes: { kernelText: ["aes-128-gcm"] } },
    restricted: { suites: ["aes-256-gcm"], onTamper: "abort", to: ["host-b"] },
  },
  select: (vm) => vm.labels.includes("pci") ? "restricted" : "confidential",
  round: (stats) => stats.converging ? {} : { autoConverge: true }, // optional, each round
});

const vm = sampleVm;
const stats = sampleRound;
const low = { low: { suites: ["aes-256-gcm"] } };

/** Defines a policy as whoever wrote it without a compiler does. */
function define(policy: unknown): ReturnType<typeof definePolicy> {
  return definePolicy(policy as Parameters<typeof definePolicy<string>>[0]);
}

Deno.test("definePolicy() keeps levels in their order, and answers what its functions say", () => {
  assert.deepEqual(Object.keys(bank.levels), ["public", "confidential", "restricted"]);
  assert.equal(bank.select(vm), "confidential");
  assert.equal(bank.select({ ...vm, labels: ["pci"] }), "restricted");
  assert.deepEqual(bank.round?.(stats), { autoConverge: true });
  assert.deepEqual(bank.round?.({ ...stats, converging: true }), {});
  assert.match(bank.definedAt ?? "", /policy_test\.ts:7:\d+$/);
});

Deno.test("definePolicy() takes a copy: what happens to the object later changes nothing", () => {
  const suites = ["aes-256-gcm"];
  const policy = define({ name: "x", levels: { low: { suites } }, select: () => "low" });
  suites[0] = "none";
  assert.deepEqual(policy.levels["low"]?.suites, ["aes-256-gcm"]);
  assert.throws(() => Object.assign(policy.levels["low"]!, { onTamper: "ask" }), TypeError);
});

const faults: Record<string, [policy: unknown, message: string]> = {
  "is no object": [7, "it is not an object"],
  "has an unknown key": [
    { name: "x", levels: low, select: () => "low", rounds: () => ({}) },
    "rounds is not known here; did you mean round?",
  ],
  "has no name": [
    { levels: low, select: () => "low" },
    "name is not a text of 1 to 64 characters",
  ],
  "has a name that steers a terminal": [
    { name: "\u001b[2J", levels: low, select: () => "low" },
    "name has characters that cannot be printed",
  ],
  "has no levels": [{ name: "x", levels: {}, select: () => "low" }, "levels is empty"],
  "has a list of levels": [
    { name: "x", levels: [{ suites: ["aes-256-gcm"] }], select: () => "low" },
    "levels is not an object",
  ],
  "has an integer for a level": [
    { name: "x", levels: { high: low.low, 1: low.low }, select: () => "high" },
    "levels.1 is an integer, and JavaScript would put it first: the order of levels matters, so " +
    "begin its name with a letter",
  ],
  "has a level without suites": [
    { name: "x", levels: { low: {} }, select: () => "low" },
    "levels.low.suites is not a list",
  ],
  "has a level with no suite": [
    { name: "x", levels: { low: { suites: [] } }, select: () => "low" },
    "levels.low.suites is empty",
  ],
  "has a mistyped key in a level": [
    { name: "x", levels: { low: { ...low.low, onTampr: "ask" } }, select: () => "low" },
    "levels.low.onTampr is not known here; did you mean onTamper?",
  ],
  "has a mistyped class": [
    {
      name: "x",
      levels: { restricted: { ...low.low, classes: { kernelTxt: ["aes-256-gcm"] } } },
      select: () => "restricted",
    },
    "levels.restricted.classes.kernelTxt is not known here; did you mean kernelText?",
  ],
  "has a class without a list": [
    { name: "x", levels: { low: { ...low.low, classes: { user: "none" } } }, select: () => "low" },
    "levels.low.classes.user is not a list",
  ],
  "has a suite that is no text": [
    { name: "x", levels: { low: { suites: [() => "none"] } }, select: () => "low" },
    "levels.low.suites[0] is not a suite's id",
  ],
  "has a hole for a suite": [
    // deno-lint-ignore no-sparse-arrays
    { name: "x", levels: { low: { suites: ["aes-256-gcm", , "none"] } }, select: () => "low" },
    "levels.low.suites[1] is not a suite's id",
  ],
  "has a suite twice": [
    { name: "x", levels: { low: { suites: ["none", "none"] } }, select: () => "low" },
    'levels.low.suites[1] is there twice: "none"',
  ],
  "has a mistyped act": [
    { name: "x", levels: { low: { ...low.low, onTamper: "abrot" } }, select: () => "low" },
    'levels.low.onTamper is none of abort, ask: "abrot"; did you mean abort?',
  ],
  "has an act that nobody knows": [
    { name: "x", levels: { low: { ...low.low, onTamper: "repair" } }, select: () => "low" },
    'levels.low.onTamper is none of abort, ask: "repair"',
  ],
  "lets a VM go nowhere": [
    { name: "x", levels: { low: { ...low.low, to: [] } }, select: () => "low" },
    "levels.low.to is empty",
  ],
  "has a destination that is no peer": [
    { name: "x", levels: { low: { ...low.low, to: ["host b"] } }, select: () => "low" },
    'levels.low.to[0] is no peer\'s name or key: "host b"',
  ],
  "has another profile": [
    { name: "x", levels: { low: { ...low.low, profile: "papre" } }, select: () => "low" },
    'levels.low.profile is none of sealed, paper: "papre"; did you mean paper?',
  ],
  "has classes in the paper's profile": [
    {
      name: "x",
      levels: { low: { profile: "paper", suites: ["rc4"], classes: { user: ["none"] } } },
      select: () => "low",
    },
    'levels.low.classes means nothing with profile: "paper": pages of user space go through the suite, all others in clear',
  ],
  "has no select": [{ name: "x", levels: low }, "select is not a function"],
  "has a round that is no function": [
    { name: "x", levels: low, select: () => "low", round: {} },
    "round is not a function",
  ],
};

for (const [what, [policy, message]] of Object.entries(faults)) {
  Deno.test(`definePolicy() says where a policy ${what}`, () => {
    assert.throws(() => define(policy), (error) => {
      assert.ok(error instanceof MigrationError);
      assert.equal(error.code, "usage");
      assert.equal(error.message, `Cannot use policy: ${message}`);
      return true;
    });
  });
}

Deno.test("checkPolicy() refuses a suite that nobody has registered", () => {
  checkPolicy(bank, Object.values(sealedSuites));
  assert.throws(() => checkPolicy(bank, [sealedSuites["aes-256-gcm"]]), {
    code: "usage",
    message:
      "Cannot use policy bank: levels.public.suites[0] is no suite that is known here: aes-128-gcm; " +
      "did you mean aes-256-gcm?",
  });
});

Deno.test("select() and round() of a policy refuse answers that mean nothing", () => {
  const answers = (select: unknown, round: unknown) =>
    define({ name: "x", levels: low, select: () => select, round: () => round });
  const select = (value: unknown) => () => answers(value, {}).select(vm);
  assert.throws(select("lwo"), /select\(\) returned "lwo", .* \(low\); did you mean low\?/);
  assert.throws(select("toString"), /select\(\) returned "toString"/);
  assert.throws(select(undefined), /select\(\) returned undefined/);
  assert.throws(select(Promise.resolve("low")), /select\(\) returned a promise/);
  const round = (value: unknown) => () => answers("low", value).round?.(stats);
  assert.throws(round(undefined), /round\(\) returned undefined: it must return settings, or \{\}/);
  assert.throws(round(Promise.resolve({})), /round\(\) returned an object/);
  assert.throws(
    round({ autoConverg: true }),
    /round\(\)\.autoConverg is not known here; did you mean autoConverge\?/,
  );
  assert.throws(round({ autoConverge: 1 }), /round\(\)\.autoConverge is not a boolean/);
  for (const bad of [-1, 0.5, NaN, Infinity, "1"]) {
    assert.throws(round({ maxBandwidth: bad }), /round\(\)\.maxBandwidth is not a whole number/);
  }
  assert.throws(round({ downtimeLimitMs: 0 }), /round\(\)\.downtimeLimitMs is not a whole number/);
  const settings = { maxBandwidth: 0, downtimeLimitMs: 300, autoConverge: false };
  assert.deepEqual(round(settings)(), settings);
});

Deno.test("definePolicy() is typed: a compiler finds what is mistyped", () => {
  // Never called: that it compiles is the test, since an error that is expected and missing is one.
  const mistyped = [
    () =>
      // @ts-expect-error: no such level
      definePolicy({ name: "x", levels: { low: { suites: ["none"] } }, select: () => "lwo" }),
    () =>
      definePolicy({
        name: "x",
        // @ts-expect-error: no such suite
        levels: { low: { suites: ["aes-256-gmc"] } },
        select: () => "low",
      }),
    () =>
      definePolicy({
        name: "x",
        // @ts-expect-error: a suite of the lab in a sealed level
        levels: { low: { suites: ["aes-256-gcm", "none"] } },
        select: () => "low",
      }),
    () =>
      definePolicy({
        name: "x",
        // @ts-expect-error: no suite
        levels: { low: { suites: [] } },
        select: () => "low",
      }),
    () =>
      definePolicy({
        name: "x",
        levels: {
          low: {
            suites: ["aes-256-gcm"],
            // @ts-expect-error: no such class
            classes: { kernelTxt: ["aes-256-gcm"] },
          },
        },
        select: () => "low",
      }),
    () =>
      definePolicy({
        name: "x",
        levels: { low: { suites: ["aes-256-gcm"] } },
        select: () => "low",
        // @ts-expect-error: no such setting
        round: (stats) => stats.converging ? {} : { autoConverg: true },
      }),
    () =>
      definePolicy({
        name: "x",
        levels: { low: { suites: ["aes-256-gcm"] } },
        // @ts-expect-error: a VM has labels
        select: (vm) => vm.label === "" ? "low" : "low",
      }),
    () =>
      definePolicy({
        name: "x",
        levels: { low: { suites: ["aes-256-gcm"] } },
        select: () => "low",
        // @ts-expect-error: no such key
        rounds: () => ({}),
      }),
  ];
  assert.equal(mistyped.length, 8);
  const fine = () =>
    definePolicy({
      name: "x",
      levels: {
        lab: { profile: "paper", suites: ["none", "example.com/rot13"] },
        low: { suites: ["example.com/aes-256-gcm-siv"], onTamper: "ask" },
      },
      select: ({ memoryBytes }) => memoryBytes > 2 ** 30 ? "low" : "lab",
      round: ({ round }) => ({ maxBandwidth: round * 1e6, downtimeLimitMs: 100 }),
    });
  assert.ok(fine);
});
