/**
 * What was asked for, on stdout: a key, a list, a table.
 *
 * @module
 */

import { printable } from "./terminal.ts";
import { stdout } from "./queued_writer.ts";

/** Prints a line on stdout, without anything that could steer a terminal. */
export function printLine(text: string): void {
  stdout.write(printable(text) + "\n");
}

/**
 * Prints rows in columns, the first row being their names.
 *
 * @param rows all of one length
 */
export function printTable(rows: readonly (readonly string[])[]): void {
  for (const line of formatTable(rows)) printLine(line);
}

/**
 * Rows as lines, each column as wide as its widest cell.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(formatTable([["id", "key"], ["aes", "32"]]), ["id   key", "aes  32"]);
 * ```
 */
export function formatTable(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => widths[column] = Math.max(widths[column] ?? 0, cell.length));
  }
  return rows.map((row) =>
    row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd()
  );
}
