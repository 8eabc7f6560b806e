/**
 * `inspect`, put together: the VM's page tables, the classes, tables and pictures of them.
 *
 * @module
 */

import { GuestPaging } from "../kvm/page_tables.ts";
import { peerCredentials } from "../kvm/peer_credentials.ts";
import { readProcess } from "../kvm/process.ts";
import { type QemuFacts, readFacts } from "../kvm/qemu_facts.ts";
import { QmpClient } from "../kvm/qmp.ts";
import { Monitor } from "../migration/monitor.ts";
import {
  bar,
  type BlockClasses,
  type ClassCounts,
  countClasses,
  legend,
  mapRows,
  shownClasses,
  shownIndex,
} from "./class_map.ts";
import { classMapSvg } from "./class_map_svg.ts";
import { CliError, systemCode, systemReason } from "./cli_error.ts";
import { systemClock } from "./clock.ts";
import { explained } from "./hints.ts";
import type { InspectOptions } from "./inspect.ts";
import { printJson } from "./json_lines.ts";
import { printLine, printTable } from "./output.ts";
import { formatBytes } from "./report.ts";
import { Terminal } from "./terminal.ts";

const PAGE_WORDS = 1024;
/** Nothing waits for it but a person. */
const BUDGET_MS = 60_000;
/** Signals and events are heard this often while memory is read. */
const PIECES_AT_ONCE = 64;
const BAR_COLUMNS = 40;
const MAP = { columns: 64, rows: 32 };

/** What `inspect` found. */
export interface Inspection {
  facts: QemuFacts;
  blocks: BlockClasses[];
  counts: ClassCounts;
  addressSpaces: number;
  levels: 4 | 5 | null;
  isolated: boolean;
  refreshMs: number;
  why: string | null;
  notes: readonly string[];
}

/** Runs `inspect`. @returns the exit code */
export async function runInspect(options: InspectOptions): Promise<number> {
  using terminal = new Terminal(options);
  const found = await inspectVm(options.qmp).catch((error) => {
    throw explained(error, "source");
  });
  if (options.svg !== undefined) await writePicture(options.svg, found);
  for (const note of found.notes) terminal.warn(note);
  if (found.why !== null) {
    terminal.warn(
      `the guest's page tables cannot be read (${found.why}): every page counts as user`,
    );
  }
  if (options.json) printReport(found);
  else print(found);
  return 0;
}

/**
 * Looks at the VM behind a monitor. Nothing in it is changed, and it is not stopped.
 *
 * @throws {QmpError} when nobody answers there
 */
export async function inspectVm(qmpPath: string): Promise<Inspection> {
  await using qmp = await QmpClient.connect(qmpPath);
  const process = readProcess(peerCredentials(qmp.unsafeConn).pid);
  const facts = await readFacts(qmp, process);
  using paging = await GuestPaging.attach({ qmp, process, facts });
  const monitor = new Monitor({ reader: paging, clock: systemClock, budgetMs: BUDGET_MS });
  monitor.refresh();
  const { addressSpaces, lastRefreshMs, why } = monitor.summary();
  const blocks = await classify(paging, monitor, facts);
  return {
    facts,
    blocks,
    counts: countClasses(blocks),
    addressSpaces,
    levels: why === null ? paging.levels : null,
    isolated: paging.isolated,
    refreshMs: lastRefreshMs,
    why,
    notes: paging.notes,
  };
}

/** The blocks that the guest sees; without their zeros where memory cannot be read. */
async function classify(
  paging: GuestPaging,
  monitor: Monitor,
  facts: QemuFacts,
): Promise<BlockClasses[]> {
  const pieces = paging.pieces();
  const zero = shownIndex("zero");
  const all = facts.blocks.map(({ name, bytes }, block) => {
    const classes = new Uint8Array(Math.floor(bytes / 4096));
    if (pieces !== null) classes.fill(zero);
    else classes.forEach((_, page) => classes[page] = shownIndex(monitor.classOf(block, page)));
    return { name, classes };
  });
  let read = 0;
  for (const { block, first, words } of pieces ?? []) {
    for (let at = 0, page = first; at < words.length; at += PAGE_WORDS, page++) {
      if (isZero(words, at)) continue;
      all[block]!.classes[page] = shownIndex(monitor.classOf(block, page));
    }
    if (++read % PIECES_AT_ONCE === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return all.filter((_, block) => pieces === null || paging.covers(block));
}

function isZero(words: Uint32Array, from: number): boolean {
  for (let at = from; at < from + PAGE_WORDS; at++) if (words[at] !== 0) return false;
  return true;
}

async function writePicture(path: string, found: Inspection): Promise<void> {
  const { name, uuid } = found.facts;
  const title = `${name ?? uuid}: ${found.addressSpaces} address spaces`;
  const svg = classMapSvg({ title, blocks: found.blocks, counts: found.counts });
  try {
    await Deno.writeTextFile(path, svg);
  } catch (cause) {
    throw new CliError(systemCode(cause), `Cannot write ${path}: ${systemReason(cause)}`, {
      cause,
    });
  }
}

function printReport(found: Inspection): void {
  const { facts, blocks, counts, addressSpaces, levels, isolated, refreshMs, why, notes } = found;
  const { name, uuid, memoryBytes } = facts;
  printJson({
    type: "report",
    outcome: "completed",
    vm: { name, uuid, memoryBytes },
    addressSpaces,
    levels,
    isolated,
    classes: counts,
    blocks: blocks.map((block) => ({ name: block.name, classes: countClasses([block]) })),
    refreshMs,
    why,
    notes,
  });
}

function print(found: Inspection): void {
  const { facts, blocks, counts, addressSpaces, levels, isolated, refreshMs } = found;
  const tables = levels === null
    ? "page tables not read"
    : `${addressSpaces} address spaces, ${levels} levels of page tables${
      isolated ? ", isolated" : ""
    }, read in ${refreshMs.toFixed(1)} ms`;
  printLine(`vm ${facts.name ?? facts.uuid}, ${formatBytes(facts.memoryBytes)}: ${tables}`);
  const total = shownClasses.reduce((sum, name) => sum + counts[name].pages, 0);
  printTable([
    ["class", "pages", "size", "share", ""],
    ...shownClasses.map((name) => {
      const { pages, bytes } = counts[name];
      const share = total === 0 ? 0 : pages / total;
      const percent = `${(share * 100).toFixed(1)} %`;
      return [name, String(pages), formatBytes(bytes), percent, bar(share, BAR_COLUMNS)];
    }),
  ]);
  for (const block of blocks) {
    const { bytesPerLetter, rows } = mapRows(block, MAP);
    printLine(`block ${block.name}, ${formatBytes(bytesPerLetter)} a letter: ${legend}`);
    for (const row of rows) printLine(`  ${row}`);
  }
}
