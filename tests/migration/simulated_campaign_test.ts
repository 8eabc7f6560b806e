import { makeCase, runCase } from "../support/simulated_case.ts";
import { forEachCase } from "../support/simulated_migration.ts";

const FIRST_SEED = 1_000;
const CASES = 200;

Deno.test("Source, Destination and recover() leave exactly one copy of the VM, whatever happens when", async () => {
  // `deno task faults:simulated --seed S --count 1` runs one of them again.
  const seeds = Array.from({ length: CASES }, (_, i) => FIRST_SEED + i);
  await forEachCase(seeds, async (seed) => {
    await runCase(makeCase(seed));
  });
});
