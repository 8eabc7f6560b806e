/**
 * Medians, and ratios taken pair by pair: on a shared machine two figures compare only when they were measured
 * one right after the other.
 *
 * @module
 */

/** What is told of a series of figures. */
export interface Summary {
  median: number;
  min: number;
  max: number;
}

/**
 * The middle one of `values`, or the mean of the two in the middle.
 *
 * @throws {RangeError} when there are none
 *
 * @example
 * ```ts
 * import { median } from "./statistics.ts";
 * import { equal } from "node:assert/strict";
 *
 * equal(median([3, 1, 2]), 2);
 * equal(median([4, 1, 2, 3]), 2.5);
 * ```
 */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("Cannot take a median: there are no values");
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted.length >>> 1;
  return sorted.length % 2 === 1 ? sorted[upper]! : (sorted[upper - 1]! + sorted[upper]!) / 2;
}

/** Median, least and most of `values`. @throws {RangeError} when there are none */
export function summarize(values: readonly number[]): Summary {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * `values[i] / baseline[i]` for each round `i`, summarized.
 *
 * @throws {RangeError} when the two have not the same rounds, or none
 */
export function summarizeRatios(values: readonly number[], baseline: readonly number[]): Summary {
  if (values.length !== baseline.length) {
    throw new RangeError(`Cannot compare ${values.length} rounds with ${baseline.length}`);
  }
  return summarize(values.map((value, round) => value / baseline[round]!));
}
