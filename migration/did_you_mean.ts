/**
 * A word that somebody mistyped, and the one that was meant.
 *
 * @module
 */

/** Longer words are no typing errors; the work grows with the square. */
const MAX_WORD_LENGTH = 64;

/**
 * The ending of an error's sentence: `; did you mean kernelText?`, or nothing when no known word is near.
 *
 * @example
 * ```ts
 * import { didYouMean } from "./did_you_mean.ts";
 *
 * console.assert(didYouMean("kernelTxt", ["user", "kernelText"]) === "; did you mean kernelText?");
 * console.assert(didYouMean("pages", ["user", "kernelText"]) === "");
 * ```
 */
export function didYouMean(word: string, known: Iterable<string>): string {
  if (word.length > MAX_WORD_LENGTH) return "";
  let best: { word: string; distance: number } | null = null;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance > Math.max(1, Math.floor(candidate.length / 3))) continue;
    if (best === null || distance < best.distance) best = { word: candidate, distance };
  }
  return best === null ? "" : `; did you mean ${best.word}?`;
}

/** Letters put in, left out, changed or swapped with their neighbour (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const next = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let cost = Math.min(
        last[column]! + 1,
        next[column - 1]! + 1,
        last[column - 1]! + (same ? 0 : 1),
      );
      const swapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (row > 1 && column > 1 && swapped) cost = Math.min(cost, before[column - 2]! + 1);
      next.push(cost);
    }
    [before, last] = [last, next];
  }
  return last[b.length]!;
}
