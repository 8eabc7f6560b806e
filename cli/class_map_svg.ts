/**
 * The class map as a picture: each block a grid of cells, colored by class.
 *
 * @module
 */

import {
  type BlockClasses,
  type ClassCounts,
  type ShownClass,
  shownClasses,
  summarize,
} from "./class_map.ts";
import { formatBytes } from "./report.ts";

/** Told apart by people who do not see all colors. @see Okabe and Ito, "Color Universal Design" */
const colors: Record<ShownClass, string> = {
  user: "#d55e00",
  kernelText: "#0072b2",
  kernelData: "#56b4e9",
  unmapped: "#999999",
  zero: "#eeeeee",
};

const COLUMNS = 128;
const MAX_ROWS = 64;
const CELL = 6;
const MARGIN = 16;
const LINE = 20;

/** What the picture shows. */
export interface ClassMapPicture {
  /** The line above the picture. */
  title: string;
  blocks: readonly BlockClasses[];
  counts: ClassCounts;
}

/**
 * An SVG document. Every text in it is escaped: names come from outside.
 *
 * @see https://www.w3.org/TR/SVG2/
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { countClasses } from "./class_map.ts";
 * const blocks = [{ name: "m0", classes: Uint8Array.of(0, 0, 4, 2) }];
 * assert.match(classMapSvg({ title: "vm", blocks, counts: countClasses(blocks) }), /^<svg /);
 * ```
 */
export function classMapSvg({ title, blocks, counts }: ClassMapPicture): string {
  const parts = [text(title, { x: MARGIN, y: MARGIN + LINE / 2, weight: "bold" })];
  let y = MARGIN + LINE;
  for (const [index, name] of shownClasses.entries()) {
    const x = MARGIN + index * (COLUMNS * CELL / shownClasses.length);
    parts.push(rectangle({ x, y, width: 12, height: 12, color: colors[name] }));
    parts.push(text(`${name} ${formatBytes(counts[name].bytes)}`, { x: x + 16, y: y + 10 }));
  }
  y += LINE;
  for (const { name, classes } of blocks) {
    const { pagesPerCell, cells } = summarize(classes, COLUMNS * MAX_ROWS);
    const label = `${name}, ${formatBytes(pagesPerCell * 4096)} a cell`;
    parts.push(text(label, { x: MARGIN, y: y + LINE / 2 }));
    y += LINE;
    parts.push(...grid(cells, y));
    y += Math.ceil(cells.length / COLUMNS) * CELL + LINE / 2;
  }
  const [width, height] = [COLUMNS * CELL + 2 * MARGIN, y + MARGIN];
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" ` +
    `viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="11">\n` +
    rectangle({ x: 0, y: 0, width, height, color: "#ffffff" }) + "\n" +
    parts.join("\n") + "\n</svg>\n";
}

/** Rows of cells; neighbors of one class are one rectangle. */
function grid(cells: Uint8Array, top: number): string[] {
  const parts: string[] = [];
  for (let at = 0; at < cells.length;) {
    const rowEnd = Math.min(cells.length, (Math.floor(at / COLUMNS) + 1) * COLUMNS);
    let end = at + 1;
    while (end < rowEnd && cells[end] === cells[at]) end++;
    parts.push(rectangle({
      x: MARGIN + at % COLUMNS * CELL,
      y: top + Math.floor(at / COLUMNS) * CELL,
      width: (end - at) * CELL,
      height: CELL,
      color: colors[shownClasses[cells[at]!]!],
    }));
    at = end;
  }
  return parts;
}

function rectangle(
  it: { x: number; y: number; width: number; height: number; color: string },
): string {
  return `<rect x="${it.x}" y="${it.y}" width="${it.width}" height="${it.height}" fill="${it.color}"/>`;
}

function text(content: string, at: { x: number; y: number; weight?: "bold" }): string {
  const weight = at.weight === undefined ? "" : ` font-weight="${at.weight}"`;
  return `<text x="${at.x}" y="${at.y}"${weight}>${escaped(content)}</text>`;
}

function escaped(text: string): string {
  return text.replace(/[\p{Cc}]/gu, "\uFFFD").replaceAll("&", "&amp;").replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
}
