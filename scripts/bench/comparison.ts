/**
 * What the samples come to: medians, ratios pair by pair, the targets, and all of it as a table.
 *
 * @module
 */

import type { MemoryState } from "./bench_vm.ts";
import { type Competitor, competitors, type Sample } from "./competitors.ts";
import { summarize, summarizeRatios, type Summary } from "./statistics.ts";

/** One competitor over one kind of destination memory. */
export interface Cell {
  memory: MemoryState;
  competitor: Competitor;
  seconds: Summary;
  runningSeconds: Summary;
  receiveStartSeconds: Summary;
  downtimeMs: Summary;
  cpuSeconds: Summary;
  /** Where the CPU seconds went, medians. */
  cpu: { sourceQemu: number; destinationQemu: number; agents: number };
  /** Ratios within each round; null where the other was not measured. */
  toPlaintext: Summary | null;
  toTls: Summary | null;
}

/** One figure to reach, by the better of `mapped` and `process`. */
export interface Target {
  memory: MemoryState;
  against: "plaintext" | "tls";
  limit: number;
  measured: number;
  by: Competitor;
  passed: boolean;
}

const targets = [
  { memory: "fresh", against: "plaintext", limit: 1.2 },
  { memory: "fresh", against: "tls", limit: 0.6 },
  { memory: "prealloc", against: "plaintext", limit: 4 },
  { memory: "prealloc", against: "tls", limit: 1 },
] as const;

/** Summarizes; every competitor has one sample a round for each memory that it was measured on. */
export function compare(samples: readonly Sample[]): Cell[] {
  const cells: Cell[] = [];
  for (const memory of new Set(samples.map((sample) => sample.memory))) {
    for (const competitor of competitors) {
      const own = series(samples, { memory, competitor });
      if (own.length > 0) cells.push(cell(own, samples));
    }
  }
  return cells;
}

function cell(own: readonly Sample[], samples: readonly Sample[]): Cell {
  const { memory, competitor } = own[0]!;
  const of = (figure: (sample: Sample) => number) => summarize(own.map(figure));
  const ratioTo = (baseline: Competitor) => {
    const other = series(samples, { memory, competitor: baseline });
    if (other.length === 0) return null;
    return summarizeRatios(own.map(secondsOf), other.map(secondsOf));
  };
  return {
    memory,
    competitor,
    seconds: of(secondsOf),
    runningSeconds: of((sample) => sample.runningSeconds),
    receiveStartSeconds: of((sample) => sample.receiveStartSeconds),
    downtimeMs: of((sample) => sample.downtimeMs),
    cpuSeconds: of((sample) => sample.cpuSeconds.total),
    cpu: {
      sourceQemu: of((sample) => sample.cpuSeconds.sourceQemu).median,
      destinationQemu: of((sample) => sample.cpuSeconds.destinationQemu).median,
      agents: of((sample) => sample.cpuSeconds.agents).median,
    },
    toPlaintext: ratioTo("plaintext"),
    toTls: ratioTo("tls"),
  };
}

function secondsOf(sample: Sample): number {
  return sample.seconds;
}

function series(
  samples: readonly Sample[],
  which: { memory: MemoryState; competitor: Competitor },
): Sample[] {
  return samples.filter((sample) =>
    sample.memory === which.memory && sample.competitor === which.competitor
  );
}

/** The share of all cores that other work used during a sample. */
export function disturbance({ othersCpuSeconds, seconds }: Sample): number {
  return othersCpuSeconds / (seconds * navigator.hardwareConcurrency);
}

/** How far the figures can be trusted, in a line: `noise` summarizes {@linkcode disturbance}. */
export function formatNoise(noise: Summary): string {
  const [middle, most] = [noise.median, noise.max].map((share) => `${(100 * share).toFixed(0)} %`);
  return `other work used ${middle} of the machine (median over the samples), at most ${most}`;
}

/** The targets whose cells were measured. */
export function judge(cells: readonly Cell[]): Target[] {
  return targets.flatMap((target) => {
    const ratioOf = (cell: Cell) =>
      (target.against === "tls" ? cell.toTls : cell.toPlaintext)?.median;
    const [best] = cells
      .filter(({ memory, competitor }) =>
        memory === target.memory && (competitor === "mapped" || competitor === "process")
      )
      .flatMap((cell) => ({ by: cell.competitor, measured: ratioOf(cell) ?? NaN }))
      .filter(({ measured }) => !Number.isNaN(measured))
      .toSorted((a, b) => a.measured - b.measured);
    return best === undefined
      ? []
      : [{ ...target, ...best, passed: best.measured <= target.limit }];
  });
}

const heading = [
  "memory",
  "competitor",
  "time s",
  "(min to max)",
  "downtime ms",
  "CPU s",
  "QEMUs+agents",
  "x plaintext",
  "x TLS",
  "running s",
  "receive s",
];

/** The table, one line a cell, then one line a target. */
export function formatComparison(cells: readonly Cell[], judged: readonly Target[]): string[] {
  const rows = cells.map((cell) => [
    cell.memory,
    cell.competitor,
    cell.seconds.median.toFixed(2),
    `(${cell.seconds.min.toFixed(2)} to ${cell.seconds.max.toFixed(2)})`,
    cell.downtimeMs.median.toFixed(1),
    cell.cpuSeconds.median.toFixed(2),
    `${(cell.cpu.sourceQemu + cell.cpu.destinationQemu).toFixed(2)}+${cell.cpu.agents.toFixed(2)}`,
    cell.toPlaintext?.median.toFixed(2) ?? "",
    cell.toTls?.median.toFixed(2) ?? "",
    cell.runningSeconds.median.toFixed(2),
    cell.receiveStartSeconds.median.toFixed(2),
  ]);
  const widths = heading.map((_, i) =>
    Math.max(...[heading, ...rows].map((row) => row[i]!.length))
  );
  const lines = [heading, ...rows].map((row) =>
    row.map((text, i) => i < 2 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!)).join("  ")
      .trimEnd()
  );
  lines.push("");
  for (const { memory, against, limit, measured, by, passed } of judged) {
    lines.push(
      `${passed ? "pass" : "FAIL"}  ${memory}: ${measured.toFixed(2)} x ${against} by ${by}, ` +
        `to reach: at most ${limit.toFixed(1)}`,
    );
  }
  return lines;
}
