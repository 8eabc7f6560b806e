import assert from "node:assert/strict";
import { faults, gridSize, makeCase, stepName, steps } from "../../../scripts/faults/cases.ts";
import { destinationTransitions, sourceTransitions } from "../../../migration/states.ts";

const all = Array.from({ length: gridSize() }, (_, index) => makeCase(7, index));

Deno.test("makeCase() goes through every fault at every step, once, before any random moment", () => {
  const cells = new Set(all.map(({ fault, step }) => `${fault} ${stepName(step)}`));
  assert.equal(cells.size, gridSize());
  for (const step of steps) {
    const own = all.filter((one) => stepName(one.step) === stepName(step));
    // Where the destination's QEMU is dead already nothing more can happen to it.
    const missing = faults.filter((fault) => own.every((one) => one.fault !== fault));
    assert.ok(missing.every((fault) => step.lead === "refuse" && fault.endsWith("destination")));
  }
  assert.ok(all.every(({ step }) => step !== null));
  const later = Array.from({ length: 100 }, (_, i) => makeCase(7, gridSize() + i));
  assert.ok(later.some(({ step }) => step === null));
});

Deno.test("makeCase() gives the same case for a seed and a number, and others for another seed", () => {
  assert.deepEqual(makeCase(7, 300), makeCase(7, 300));
  const other = all.map(({ index }) => makeCase(8, index));
  assert.notDeepEqual(other, all);
});

Deno.test("steps are states of the two machines, and leave out only those that nothing happens in", () => {
  const named = (side: string) =>
    steps.filter((one) => one.side === side).map(({ state }) => state);
  const left = (transitions: object, side: string) =>
    Object.keys(transitions).filter((state) => !named(side).includes(state));
  const [source, destination] = [named("send"), named("receive")];
  assert.ok(source.every((state) => state in sourceTransitions));
  assert.ok(destination.every((state) => state in destinationTransitions));
  // Before anything is said, and where everything is over.
  assert.deepEqual(left(sourceTransitions, "send").toSorted(), [
    ...["aborted", "checked", "connecting", "failed", "unknown"],
  ]);
  assert.deepEqual(left(destinationTransitions, "receive").toSorted(), [
    ...["discarded", "failed", "listening", "unknown"],
  ]);
});
