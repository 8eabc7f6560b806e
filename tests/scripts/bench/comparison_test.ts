import { deepEqual, equal, throws } from "node:assert/strict";
import { compare, formatComparison, judge } from "../../../scripts/bench/comparison.ts";
import type { Competitor, Sample } from "../../../scripts/bench/competitors.ts";
import { median, summarizeRatios } from "../../../scripts/bench/statistics.ts";

function sample(round: number, competitor: Competitor, seconds: number): Sample {
  return {
    round,
    memory: "fresh",
    competitor,
    seconds,
    runningSeconds: seconds,
    receiveStartSeconds: 0,
    downtimeMs: 10,
    cpuSeconds: { sourceQemu: 1, destinationQemu: 1, agents: 1, total: 3 },
    othersCpuSeconds: 0,
    phases: null,
  };
}

Deno.test("median() takes the middle, or the mean of two, and refuses nothing", () => {
  equal(median([9, 1, 5]), 5);
  equal(median([4, 1, 2, 3]), 2.5);
  throws(() => median([]), RangeError);
});

Deno.test("summarizeRatios() divides round by round when medians alone would say otherwise", () => {
  // The medians' ratio would be 2.
  deepEqual(summarizeRatios([1, 20, 30], [2, 10, 20]), { median: 1.5, min: 0.5, max: 2 });
  throws(() => summarizeRatios([1], [1, 2]), RangeError);
});

Deno.test("judge() takes the better of mapped and process, and never stream, when it compares", () => {
  const samples = [1, 2, 3].flatMap((round) => [
    sample(round, "plaintext", 1),
    sample(round, "tls", 4),
    sample(round, "mapped", 1.3),
    sample(round, "process", 1.1),
    sample(round, "stream", 0.5),
  ]);
  const cells = compare(samples);
  const judged = judge(cells);
  deepEqual(
    judged.map(({ against, by, passed }) => [against, by, passed]),
    [["plaintext", "process", true], ["tls", "process", true]],
  );
  equal(judged[0]?.measured, 1.1);
  const slower = judge(compare(samples.filter(({ competitor }) => competitor !== "process")));
  deepEqual(slower.map(({ by, passed }) => [by, passed]), [["mapped", false], ["mapped", true]]);
  equal(formatComparison(cells, judged).filter((line) => line.startsWith("pass")).length, 2);
});

Deno.test("judge() says nothing about targets whose competitors were not measured", () => {
  deepEqual(judge(compare([sample(1, "mapped", 1), sample(1, "tls", 2)])).map((t) => t.against), [
    "tls",
  ]);
});
