import assert from "node:assert/strict";
import { doubleRun } from "../../../scripts/faults/vms.ts";

const stop = (hostTimeMs: number) => ({ name: "STOP", hostTimeMs });
const resume = (hostTimeMs: number) => ({ name: "RESUME", hostTimeMs });

Deno.test("doubleRun() finds nothing where one copy ran after the other, or one only", () => {
  const quiet = { source: [], destination: [], sourceKilledAtMs: null };
  assert.equal(doubleRun(quiet), null);
  assert.equal(doubleRun({ ...quiet, source: [stop(5)], destination: [resume(7)] }), null);
  assert.equal(doubleRun({ ...quiet, source: [stop(5), resume(7)], destination: [stop(6)] }), null);
  assert.equal(doubleRun({ source: [], destination: [resume(7)], sourceKilledAtMs: 5 }), null);
});

Deno.test("doubleRun() finds two copies that ran at once", () => {
  const lost = { source: [], destination: [resume(7)], sourceKilledAtMs: null };
  assert.match(doubleRun(lost) ?? "", /at once/);
  assert.match(doubleRun({ ...lost, source: [stop(8)] }) ?? "", /at once/);
  assert.match(doubleRun({ ...lost, sourceKilledAtMs: 8 }) ?? "", /at once/);
});

Deno.test("doubleRun() finds a stale copy, whichever it is", () => {
  const killed = { sourceKilledAtMs: null };
  assert.match(
    doubleRun({ ...killed, source: [stop(5), resume(6)], destination: [resume(7)] }) ?? "",
    /stale/,
  );
  assert.match(
    doubleRun({ ...killed, source: [stop(5), resume(9)], destination: [resume(7)] }) ?? "",
    /stale/,
  );
});
