import { deepEqual, equal, notDeepEqual, ok } from "node:assert/strict";
import { makeCase, soakFaults } from "../../scripts/soak/cases.ts";
import { runCase } from "../../scripts/soak/run_case.ts";
import { kvmTest } from "../support/kvm.ts";

const SEED = 20_261_125;

Deno.test("makeCase() makes the same case of the same seed and number", () => {
  deepEqual(makeCase(7, 41), makeCase(7, 41));
  notDeepEqual({ ...makeCase(7, 41), index: 0 }, { ...makeCase(7, 32), index: 0 });
  for (let index = 0; index < 200; index++) {
    const { memoryMiB, workingSetBytes, vcpus, fault } = makeCase(SEED, index);
    ok(memoryMiB >= 4 && memoryMiB <= 96 && memoryMiB % 2 === 0);
    ok(workingSetBytes >= 4096 * vcpus && workingSetBytes <= (memoryMiB - 2) * 2 ** 20);
    equal(fault, soakFaults[index % soakFaults.length]);
  }
});

for (const [index, fault] of soakFaults.entries()) {
  kvmTest(`runCase() finds one copy of the micro-VM, and whole, after: ${fault}`, async () => {
    const result = await runCase(makeCase(SEED, index));
    if (fault === "none") deepEqual(result.outcomes, ["completed", "completed"]);
    if (result.holder === "destination") ok(result.compared > 0);
  });
}
