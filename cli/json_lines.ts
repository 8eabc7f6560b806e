/**
 * `--json`: one object per line on stdout; the last has `"type":"report"`.
 *
 * @module
 */

import { stdout } from "./queued_writer.ts";

/** One line of output; `type` says which. */
export interface JsonLine {
  type: string;
  [key: string]: unknown;
}

/** Prints a line of JSON. A reader that has gone away, or stopped reading, ends nothing: see `queued_writer.ts`. */
export function printJson(line: JsonLine): void {
  stdout.write(JSON.stringify(line, spellBigInt) + "\n");
}

/** Integers above 2^53 go as decimal strings: readers that hold numbers as doubles must not round them. */
function spellBigInt(_key: string, value: unknown): unknown {
  if (typeof value !== "bigint") return value;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}
