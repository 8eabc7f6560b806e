/**
 * What the journals of this host say, also those that a crash cut short.
 *
 * @module
 */

import {
  destinationJournalStates,
  type JournalEntry,
  sourceJournalStates,
  type VmProcess,
} from "../migration/ports.ts";
import { CliError, systemCode, systemReason } from "./cli_error.ts";
import { readCapped } from "./files.ts";
import type { JournalSide } from "./journal_store.ts";

/** A journal has some ten lines, the longest with a VM's facts: under 100 KiB for 255 RAM blocks. */
const MAX_JOURNAL_BYTES = 1024 * 1024;

/** One side of one migration, as far as its journal can be read. */
export interface JournalFile {
  /** 32 hexadecimal digits. */
  id: string;
  side: JournalSide;
  path: string;
  /** The lines that are whole, in order. */
  entries: JournalEntry[];
  /** What is wrong with the rest, or null. A last line without its end was never durable: its step was not taken. */
  damage: string | null;
}

/**
 * Every journal in a directory, by the time of its last line, newest last; none when there is no directory.
 *
 * @throws {CliError} when the directory cannot be read; a journal that cannot is among the result, with `damage`
 */
export async function readJournals(directory: string): Promise<JournalFile[]> {
  const journals: JournalFile[] = [];
  try {
    for await (const { name } of Deno.readDir(directory)) {
      const match = /^([0-9a-f]{32})\.(source|destination)\.jsonl$/.exec(name);
      if (match === null) continue;
      const [, id = "", side] = match;
      const path = `${directory}/${name}`;
      journals.push(
        await readJournal({ id, side: side === "source" ? "source" : "destination", path }),
      );
    }
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return [];
    throw new CliError(
      systemCode(cause),
      `Cannot read journals ${directory}: ${systemReason(cause)}`,
      {
        cause,
      },
    );
  }
  return journals.sort(byTime);
}

function byTime(a: JournalFile, b: JournalFile): number {
  const [timeA, timeB] = [a, b].map(({ entries }) => entries.at(-1)?.time ?? "");
  return (timeA ?? "").localeCompare(timeB ?? "") || a.path.localeCompare(b.path);
}

async function readJournal(
  journal: { id: string; side: JournalSide; path: string },
): Promise<JournalFile> {
  let text: string;
  try {
    text = await readCapped(journal.path, { what: "journal", maxBytes: MAX_JOURNAL_BYTES });
  } catch (error) {
    if (!(error instanceof CliError)) throw error;
    return { ...journal, entries: [], damage: error.message };
  }
  return { ...journal, ...parseJournal(text, journal.side) };
}

/**
 * The entries of a journal's text.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const text = '{"state":"open","time":"2026-01-01T00:00:00.000Z"}\n{"state":"rel';
 * const { entries, damage } = parseJournal(text, "source");
 * assert.equal(entries.length, 1);
 * assert.equal(damage, "line 2 is cut off");
 * ```
 */
export function parseJournal(
  text: string,
  side: JournalSide,
): Pick<JournalFile, "entries" | "damage"> {
  const states: readonly string[] = side === "source"
    ? sourceJournalStates
    : destinationJournalStates;
  const lines = text.split("\n");
  const rest = lines.pop();
  const entries: JournalEntry[] = [];
  const damages: string[] = [];
  for (const [index, line] of lines.entries()) {
    const entry = parseEntry(line, states);
    if (entry === null) damages.push(`line ${index + 1} is damaged`);
    else entries.push(entry);
  }
  if (rest !== "") damages.push(`line ${lines.length + 1} is cut off`);
  if (entries.length === 0 && damages.length === 0) damages.push("it is empty");
  return { entries, damage: damages.length === 0 ? null : damages.join(", ") };
}

function parseEntry(line: string, states: readonly string[]): JournalEntry | null {
  try {
    const entry: unknown = JSON.parse(line);
    if (typeof entry !== "object" || entry === null) return null;
    const { state, time } = entry as { state?: unknown; time?: unknown };
    if (typeof state !== "string" || !states.includes(state)) return null;
    if (typeof time !== "string" || Number.isNaN(Date.parse(time))) return null;
    return entry as JournalEntry;
  } catch {
    return null;
  }
}

/** The process of QEMU that a journal's first line names, or null. */
export function journalProcess(journal: JournalFile): VmProcess | null {
  const process = journal.entries[0]?.["qemu"];
  if (typeof process !== "object" || process === null) return null;
  const { pid, startTime, bootId } = process as Record<string, unknown>;
  if (typeof pid !== "number" || typeof startTime !== "string" || typeof bootId !== "string") {
    return null;
  }
  return { pid, startTime, bootId };
}
