import assert from "node:assert/strict";
import { destinationTransitions, sourceTransitions } from "../../migration/states.ts";
import { readModel, type Side, sides } from "./_model_steps.ts";

const text = await Deno.readTextFile(new URL("switchover.pml", import.meta.url));
const model = readModel(text);

const tables: Record<Side, Readonly<Record<string, readonly string[]>>> = {
  source: sourceTransitions,
  destination: destinationTransitions,
};

/** The model begins when the source's VM has stopped: states that are left by then. */
const statesBefore: Record<Side, readonly string[]> = {
  source: ["connecting", "offering", "checked", "starting", "setup", "copying"],
  destination: ["listening"],
};

/** Steps that the model leaves out, and why. */
const leftOut: Record<Side, Readonly<Record<string, string>>> = {
  source: {},
  destination: {
    "receiving -> failed": "no byte has reached QEMU, so that nothing could run: before the model",
    "loading -> unknown": "QEMU hangs: to the model an agent that is killed there",
    "discarding -> unknown":
      "QEMU cannot be ended, or somebody's `cont` came first: neither is in it",
  },
};

for (const side of sides) {
  const table = tables[side];
  const steps = Object.entries(table).flatMap(([from, next]) =>
    next.map((to) => `${from} -> ${to}`)
  );
  const inModel = [...model.steps[side]].filter((step) => step.includes(" -> "));

  Deno.test(`${side}Transitions has no step that the model lacks`, () => {
    const expected = steps.filter((step) =>
      !statesBefore[side].includes(step.split(" ")[0]!) && !Object.hasOwn(leftOut[side], step)
    );
    assert.deepEqual(expected.filter((step) => !inModel.includes(step)), []);
  });

  Deno.test(`the model takes no step that ${side}Transitions lacks`, () => {
    assert.deepEqual(inModel.filter((step) => !steps.includes(step)), []);
  });

  Deno.test(`the model ends a ${side} only where ${side}Transitions ends`, () => {
    const ends = [...model.steps[side]].filter((step) => step.endsWith(" ends"));
    assert.deepEqual(ends.filter((step) => table[step.split(" ")[0]!]?.length !== 0), []);
    assert.notDeepEqual(ends, []);
  });

  Deno.test(`${side}Transitions has all states of the model, which leaves out only what it says`, () => {
    assert.deepEqual([...model.states[side]].filter((state) => !Object.hasOwn(table, state)), []);
    for (const state of statesBefore[side]) {
      assert.ok(Object.hasOwn(table, state) && !model.states[side].has(state), state);
    }
    for (const step of Object.keys(leftOut[side])) {
      assert.ok(steps.includes(step) && !inModel.includes(step), step);
    }
  });
}

Deno.test("the model's comments say what its options do", () => {
  assert.deepEqual(model.faults, []);
});

Deno.test("readModel() sees a step that a comment does not name, and one that it names wrongly", () => {
  for (
    const [from, to, fault] of [
      ["/* source: finishing -> releasing */", "", /^source: {} is said, {finishing -> releasing}/],
      ["/* source: stopping -> finishing */", "/* source: stopping -> released */", /is said/],
      ["da = D_LDED; mLOADED = up", "da = D_TAKE; mLOADED = up", /{loading -> taking} is done/],
      ["da = D_TAKE }", "da = D_REFU }", /{loaded -> refusing} is done/],
      ["/* source: released -> failed */", "/* source: released -> done */", /{released -> \?}/],
      ["/* destination: taking -> stuck */", "/* recover */", /^not recover's/],
    ] as const
  ) {
    assert.ok(text.includes(from), from);
    const { faults } = readModel(text.replace(from, to));
    assert.ok(faults.some((one) => fault.test(one)), `${from}: ${faults}`);
  }
});

Deno.test("the model explains each of its switches, and has each that it explains", () => {
  const explained = Array.from(text.matchAll(/^ \* {3}(NO_\w+) /gm), ([, name]) => name!);
  const used = new Set(Array.from(text.matchAll(/^#ifn?def (NO_\w+)/gm), ([, name]) => name!));
  assert.deepEqual(explained.toSorted(), [...used].sort());
  assert.notEqual(explained.length, 0);
});
