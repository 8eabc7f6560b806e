/**
 * The campaign's results as a table: every fault at every step, and how it ended.
 *
 * @module
 */

import { faults, stepName, steps } from "./cases.ts";
import type { CaseResult } from "./run_case.ts";

/** The table, a line each; then the totals. */
export function summarize(results: readonly CaseResult[]): string[] {
  const rows = [...steps.map(stepName), stepName(null)]
    .filter((step) => results.some((one) => one.step === step));
  const cells = rows.map((step) => [
    step,
    ...faults.map((fault) =>
      cell(results.filter((one) => one.step === step && one.fault === fault))
    ),
  ]);
  const heading = ["step", ...faults];
  const widths = heading.map((_, i) =>
    Math.max(...[heading, ...cells].map((row) => row[i]!.length))
  );
  const line = (row: string[]) =>
    row.map((text, i) => text.padEnd(widths[i]!)).join("  ").trimEnd();
  const passed = results.filter((one) => one.passed).length;
  const early = results.filter(({ reached }) => !reached).length;
  const ends = (end: CaseResult["end"]) => results.filter((one) => one.end === end).length;
  return [
    line(heading),
    ...cells.map(line),
    "",
    "s, d: the VM runs at the source, at the destination; x: it died with the QEMU that held the only copy;",
    "r: recover was needed for it; !: a case that failed",
    "",
    `${results.length} cases: ${passed} passed, ${
      results.length - passed
    } failed, ${early} ended before ` +
    `their step; the VM runs at the ` +
    `source ${ends("source")}, at the destination ${ends("destination")}, died with its QEMU ${
      ends("lost")
    }; recover was run in ${results.filter((one) => one.recovered.length > 0).length}, with the ` +
    `operator's word in ${
      results.filter((one) => one.recovered.some(({ declared }) => declared)).length
    }`,
  ];
}

function cell(results: readonly CaseResult[]): string {
  const letters = { source: "s", destination: "d", lost: "x", nowhere: "" };
  const counts = new Map<string, number>();
  for (const { end, recovered, passed } of results) {
    const key = letters[end] + (recovered.length > 0 ? "r" : "") + (passed ? "" : "!");
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts].map(([key, count]) => count === 1 ? key : `${count}${key}`).toSorted()
    .join(" ") || "-";
}
