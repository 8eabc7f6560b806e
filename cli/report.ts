/**
 * What `send` and `receive` report at the end: as one JSON object, and as text.
 *
 * @module
 */

import { type PageClass, pageClasses } from "../migration/message_types.ts";
import type { ProfileId } from "../migration/profile.ts";
import type { MigrationResult } from "../migration/result.ts";
import { type Check, formatChecks } from "./checks.ts";
import { type ErrorReport, errorReport, type Outcome, outcomeOf } from "./exit_codes.ts";

/**
 * The last line of `send --json` and `receive --json`: every key is always there; null is what only the other
 * side knows, or what was never reached. A {@linkcode MigrationResult} with its `type` is one.
 */
export type MigrationReport =
  & { type: "report" }
  & Omit<MigrationResult, "outcome" | "vm" | "error">
  & {
    /** The command's outcome: a usage error found late has one of its own. */
    outcome: Outcome;
    /** Null when QEMU was never asked. */
    vm: MigrationResult["vm"] | null;
    /** What a dry run looked at; null for any other. */
    checks: Check[] | null;
    /** Null when the outcome is `completed`. */
    error: ErrorReport | null;
  };

/** What is known before anything has happened. */
export interface ReportStart {
  side: "source" | "destination";
  dryRun: boolean;
  /** As it was asked for. */
  profile: ProfileId;
}

/** The report of a command that failed before its migration began: the VM was not touched. */
export function failedReport(error: unknown, start: ReportStart): MigrationReport {
  const report = errorReport(error);
  return {
    type: "report",
    outcome: outcomeOf(report.code),
    id: null,
    side: start.side,
    dryRun: start.dryRun,
    profile: start.profile,
    suites: null,
    suite: null,
    landing: null,
    backend: null,
    vm: null,
    rounds: null,
    monitor: null,
    setupMs: null,
    totalMs: 0,
    downtimeMs: null,
    holdMs: 0,
    bytes: { guest: 0, wire: 0 },
    mistakes: { detected: 0, repaired: 0, hits: [] },
    reconnects: 0,
    cpuSeconds: { agent: 0, qemu: null },
    verified: { pages: 0, records: 0 },
    sourceState: null,
    destinationState: null,
    lastState: start.side === "source" ? "connecting" : "listening",
    notes: [],
    warnings: [],
    checks: null,
    error: report,
  };
}

/** Bytes in the largest binary unit that leaves at least 1: `1.50 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"] as const;
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

/** Milliseconds in a unit that people read: `8.4 ms`, `1.52 s`, `2 min 5 s`. */
export function formatMs(ms: number): string {
  if (ms < 999.5) return `${ms < 99.95 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
  if (ms < 59_995) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

const headlines = {
  completed: "completed",
  aborted: "aborted",
  usage: "not begun",
  refused: "refused",
  tampered: "stopped because of tampering",
  unknown: "outcome unknown",
} as const satisfies Record<Outcome, string>;

/**
 * The report for people, one string a line. What is null is left out; the error is not in it, because it is
 * printed as `error:` and `hint:` after it.
 */
export function formatReport(report: MigrationReport): string[] {
  const headline = report.dryRun && report.outcome === "completed"
    ? "dry run: every check passed, nothing was moved"
    : headlines[report.outcome];
  const lines = [`${headline} after ${formatMs(report.totalMs)}`];
  const add = (label: string, ...parts: (string | null)[]) => {
    const present = parts.filter((part) => part !== null);
    if (present.length > 0) lines.push(`  ${label.padEnd(12)}${present.join(", ")}`);
  };
  const { vm } = report;
  if (report.checks !== null) lines.push(...formatChecks(report.checks));
  add("migration", report.id);
  if (vm !== null) {
    add(
      "vm",
      vm.name ?? "(no name)",
      vm.uuid,
      formatBytes(vm.memoryBytes),
      vm.sensitivity === null ? null : `sensitivity ${vm.sensitivity}`,
    );
  }
  add(
    report.profile === "paper" ? "encoded" : "sealed with",
    report.suites === null ? null : describeSuites(report.suites),
    report.backend,
    report.profile === "paper" ? "the paper's profile: not for use" : null,
  );
  const { monitor } = report;
  if (monitor !== null) {
    add(
      "monitor",
      `${monitor.addressSpaces} address spaces`,
      `${monitor.refreshes} refreshes, the last took ${formatMs(monitor.lastRefreshMs)}`,
      monitor.why === null
        ? null
        : `every page counted as user after ${monitor.failed} of them: ${monitor.why}`,
    );
  }
  add("landing", report.landing);
  add("source", report.sourceState);
  add("destination", report.destinationState);
  add(
    "time",
    report.setupMs === null ? null : `setup ${formatMs(report.setupMs)}`,
    report.downtimeMs === null ? null : `downtime ${formatMs(report.downtimeMs)}`,
  );
  // Before a migration has an id nothing was sent of it.
  for (const round of report.id === null ? [] : report.rounds ?? []) {
    const { pages } = round;
    const full = pages.user + pages.kernelText + pages.kernelData + pages.unmapped;
    add(
      `round ${round.round}`,
      `${full} pages`,
      // Without a monitor all of them are.
      monitor === null ? null : classesOf(pages),
      `${pages.zero} zero`,
      `${formatBytes(round.sealedBytes)} sealed`,
      formatMs(round.durationMs),
    );
  }
  if (report.id !== null) addTraffic(report, add);
  for (const note of report.notes) add("note", note);
  return lines;
}

/** `aes-256-gcm`, or `aes-256-gcm (user, kernelData), aes-128-gcm (kernelText)`. */
function describeSuites(suites: NonNullable<MigrationReport["suites"]>): string {
  const ids = [...new Set(pageClasses.map((pageClass) => suites[pageClass]))];
  if (ids.length === 1) return ids[0]!;
  return ids.map((id) => {
    const classes = pageClasses.filter((pageClass) => suites[pageClass] === id);
    return `${id} (${classes.join(", ")})`;
  }).join(", ");
}

/** `13 user, 4 kernelData`. */
function classesOf(pages: Record<PageClass, number>): string | null {
  const present = pageClasses.filter((pageClass) => pages[pageClass] > 0);
  if (present.length === 0) return null;
  return present.map((pageClass) => `${pages[pageClass]} ${pageClass}`).join(", ");
}

/** What a migration that was begun has moved, and what it took. */
function addTraffic(
  report: MigrationReport,
  add: (label: string, ...parts: (string | null)[]) => void,
): void {
  const { bytes, mistakes, cpuSeconds, verified } = report;
  add(
    "bytes",
    `${formatBytes(bytes.guest)} of guest`,
    `${formatBytes(bytes.wire)} on the wire`,
  );
  add("verified", `${verified.pages} pages`, `${verified.records} records`);
  add("mistakes", `${mistakes.detected} detected`, `${mistakes.repaired} repaired`);
  if (report.reconnects > 0) add("reconnects", String(report.reconnects));
  add(
    "cpu",
    `agent ${cpuSeconds.agent.toFixed(2)} s`,
    cpuSeconds.qemu === null ? null : `QEMU ${cpuSeconds.qemu.toFixed(2)} s`,
  );
}
