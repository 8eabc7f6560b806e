/**
 * The frame around `send` and `receive`: signals, errors explained, one report at the end, the exit code.
 *
 * @module
 */

import type { MigrationResult } from "../migration/result.ts";
import { Checks } from "./checks.ts";
import { exitCodes } from "./exit_codes.ts";
import { explained, resultHint } from "./hints.ts";
import { printJson } from "./json_lines.ts";
import type { CommonOptions } from "./options.ts";
import { failedReport, formatReport, type MigrationReport, type ReportStart } from "./report.ts";
import { Interrupt } from "./signals.ts";
import { Terminal } from "./terminal.ts";

/** What the body of a command works with. */
export interface CommandWorld {
  terminal: Terminal;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
  /** Where {@linkcode CommandWorld.signal} comes from. */
  interrupt: Interrupt;
  /** What a dry run looked at. */
  checks: Checks;
  /** Warns now, and in the report. */
  warn: (text: string) => void;
}

/** Runs `body` and reports how it ended. @returns the exit code */
export async function withReport(
  options: CommonOptions,
  start: ReportStart,
  body: (world: CommandWorld) => Promise<MigrationResult>,
): Promise<number> {
  using terminal = new Terminal(options);
  using interrupt = new Interrupt(terminal);
  const checks = new Checks();
  const warned: string[] = [];
  const warn = (text: string) => {
    terminal.warn(text);
    warned.push(text);
  };
  let report: MigrationReport;
  try {
    const result = await body({ terminal, signal: interrupt.signal, interrupt, checks, warn });
    report = { type: "report", ...withHint(result), checks: null };
  } catch (error) {
    checks.failed(error);
    report = failedReport(explained(error, start.side), start);
  }
  if (start.dryRun) report.checks = checks.list();
  terminal.endProgress();
  for (const warning of report.warnings) terminal.warn(warning);
  report.warnings = [...warned, ...report.warnings];
  // Of a VM that was never asked there is nothing to tell but the error.
  if (!options.json && (report.vm !== null || start.dryRun)) {
    for (const line of formatReport(report)) terminal.line(line);
  }
  if (report.error !== null) terminal.error(report.error.message, report.error.hint);
  if (options.json) printJson({ ...report });
  return exitCodes[report.outcome];
}

/** The result with what to do next, where its error does not say it. */
function withHint(result: MigrationResult): MigrationResult {
  const hint = resultHint(result);
  if (result.error === null || hint === null) return result;
  return { ...result, error: { ...result.error, hint } };
}
