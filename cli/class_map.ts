/**
 * Which class each page of a VM is in, counted and drawn in text.
 *
 * @module
 */

import { type PageClass, pageClasses } from "../migration/message_types.ts";

/** The classes of pages that are not zeros, and `zero` for those that are. */
export const shownClasses = [...pageClasses, "zero"] as const;
/** One of {@linkcode shownClasses}. */
export type ShownClass = typeof shownClasses[number];

/** A RAM block with the class of each page, as an index in {@linkcode shownClasses}. */
export interface BlockClasses {
  name: string;
  classes: Uint8Array;
}

/** Pages and bytes by class. */
export type ClassCounts = Record<ShownClass, { pages: number; bytes: number }>;

const PAGE_BYTES = 4096;
/** How a class looks in the map. */
const letters: Record<ShownClass, string> = {
  user: "U",
  kernelText: "T",
  kernelData: "D",
  unmapped: "-",
  zero: ".",
};

/** The letters of {@linkcode mapRows}, explained. */
export const legend: string = shownClasses.map((name) => `${letters[name]} ${name}`).join("  ");

/** Index in {@linkcode shownClasses}. */
export function shownIndex(name: ShownClass): number {
  return shownClasses.indexOf(name);
}

/** Counts the pages of each class. */
export function countClasses(blocks: readonly BlockClasses[]): ClassCounts {
  const pages = new Uint32Array(shownClasses.length);
  for (const { classes } of blocks) for (const index of classes) pages[index]!++;
  const count = (name: PageClass | "zero") => {
    const found = pages[shownIndex(name)]!;
    return { pages: found, bytes: found * PAGE_BYTES };
  };
  return {
    user: count("user"),
    kernelText: count("kernelText"),
    kernelData: count("kernelData"),
    unmapped: count("unmapped"),
    zero: count("zero"),
  };
}

/**
 * Cuts a block into at most `cells` pieces of one size, and says of each which class most of its pages are in. Zeros count only
 * where nothing else is: a piece with anything in it shows that.
 *
 * @returns the pages of a piece, and an index in {@linkcode shownClasses} for each
 */
export function summarize(
  classes: Uint8Array,
  cells: number,
): { pagesPerCell: number; cells: Uint8Array } {
  const pagesPerCell = Math.max(1, Math.ceil(classes.length / cells));
  const zero = shownIndex("zero");
  const found = new Uint8Array(Math.ceil(classes.length / pagesPerCell)).map((_, cell) => {
    const counts = new Uint32Array(shownClasses.length);
    const from = cell * pagesPerCell;
    for (const index of classes.subarray(from, from + pagesPerCell)) counts[index]!++;
    counts[zero] = 0;
    const most = Math.max(...counts);
    return most === 0 ? zero : counts.indexOf(most);
  });
  return { pagesPerCell, cells: found };
}

/**
 * A block as lines of letters, each for the same number of pages.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const { rows } = mapRows({ name: "m0", classes: Uint8Array.of(0, 0, 4, 2) }, { columns: 2, rows: 2 });
 * assert.deepEqual(rows, ["UU", ".D"]);
 * ```
 */
export function mapRows(
  block: BlockClasses,
  size: { columns: number; rows: number },
): { bytesPerLetter: number; rows: string[] } {
  const { pagesPerCell, cells } = summarize(block.classes, size.columns * size.rows);
  const text = Array.from(cells, (index) => letters[shownClasses[index]!]).join("");
  const rows: string[] = [];
  for (let at = 0; at < text.length; at += size.columns) {
    rows.push(text.slice(at, at + size.columns));
  }
  return { bytesPerLetter: pagesPerCell * PAGE_BYTES, rows };
}

/** A bar of `width` characters at most, for a share from 0 to 1. */
export function bar(share: number, width: number): string {
  const length = Math.round(share * width);
  return "#".repeat(share > 0 ? Math.max(1, length) : 0);
}
