/**
 * What `deno bench --json` measured, as figures to keep: with throughput, and in relation to the baseline.
 *
 * @module
 */

/** Nanoseconds of one iteration, over all of them; and how many there were. */
export interface BenchTimes {
  n: number;
  avg: number;
  min: number;
  max: number;
  p75: number;
  p99: number;
}

/** One bench in the output of `deno bench --json`, as far as it is used. */
export interface BenchEntry {
  /** URL of its file. */
  origin: string;
  group: string | null;
  name: string;
  baseline: boolean;
  results: readonly ({ ok: BenchTimes } | { failed: unknown })[];
}

/** One bench. */
export interface BenchFigure {
  /** Path from the root of the repository. */
  file: string;
  group: string | null;
  name: string;
  /** Whether the others of its group are compared with it. */
  baseline: boolean;
  iterations: number;
  /** Mean time of one iteration. */
  meanNs: number;
  minNs: number;
  p75Ns: number;
  p99Ns: number;
  /** What one iteration moves: the first size in the group's name, else in its own; null when there is none. */
  bytes: number | null;
  /** Of the mean, in units of 10^6 bytes; null without a size. */
  megabytesPerSecond: number | null;
  /** Speed against the group's baseline; null when there is none. */
  ofBaseline: number | null;
}

const units = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 } as const;

/**
 * Bytes of the first size that a text names.
 *
 * @example
 * ```ts
 * import { sizeIn } from "./bench_figures.ts";
 * import { equal } from "node:assert/strict";
 *
 * equal(sizeIn("seal 64 KiB"), 65_536);
 * equal(sizeIn("reader"), null);
 * ```
 */
export function sizeIn(text: string): number | null {
  const match = /\b(\d+) (KiB|MiB|GiB)\b/.exec(text);
  return match === null ? null : Number(match[1]) * units[match[2] as keyof typeof units];
}

/**
 * The figures of every bench, in order.
 *
 * @param root URL of the repository, with a slash at its end
 * @throws {Error} when a bench failed
 */
export function benchFigures(entries: readonly BenchEntry[], root: string): BenchFigure[] {
  const figures = entries.map((entry): BenchFigure => {
    const { origin, group, name, baseline } = entry;
    const [result] = entry.results;
    if (result === undefined || !("ok" in result)) {
      throw new Error(`Cannot report bench "${name}" of ${origin}: it failed`);
    }
    const { n, avg, min, p75, p99 } = result.ok;
    const bytes = sizeIn(group ?? "") ?? sizeIn(name);
    return {
      file: origin.startsWith(root) ? origin.slice(root.length) : origin,
      group,
      name,
      baseline,
      iterations: n,
      meanNs: Math.round(avg),
      minNs: Math.round(min),
      p75Ns: Math.round(p75),
      p99Ns: Math.round(p99),
      bytes,
      megabytesPerSecond: bytes === null ? null : round(bytes * 1e3 / avg),
      ofBaseline: null,
    };
  });
  return figures.map((figure) => {
    const base = figures.find((one) =>
      one.baseline && one.group === figure.group && one.file === figure.file
    );
    return base === undefined ? figure : {
      ...figure,
      ofBaseline: round(base.meanNs / figure.meanNs),
    };
  });
}

/** To three digits: the next ones are noise. */
function round(value: number): number {
  return Number(value.toPrecision(3));
}
