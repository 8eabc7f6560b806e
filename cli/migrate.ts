/**
 * The command line: `deno run -A cli/migrate.ts <command>`. Only the command that is asked for is loaded, and
 * what it needs when it runs.
 *
 * @module
 */

import { errorReport, exitCodes, outcomeOf } from "./exit_codes.ts";
import { printJson } from "./json_lines.ts";
import type { CommonOptions } from "./options.ts";
import { readPlainLine } from "./plain_line.ts";
import { outputDrained } from "./queued_writer.ts";
import { Terminal } from "./terminal.ts";

/** What a command could not deal with itself, for people and, with `--json`, as the report. */
function reportError(thrown: unknown, options: CommonOptions): number {
  // What failed first; that something failed again while it was cleaned up is a detail.
  const error = thrown instanceof SuppressedError ? thrown.suppressed : thrown;
  const report = errorReport(error);
  const outcome = outcomeOf(report.code);
  const terminal = new Terminal(options);
  terminal.error(report.message, report.hint);
  if (report.code === "internal" && error instanceof Error && error.stack !== undefined) {
    for (const line of error.stack.split("\n").slice(1)) terminal.detail(line);
  }
  if (options.json) printJson({ type: "report", outcome, error: report });
  return exitCodes[outcome];
}

async function main(): Promise<number> {
  const { options, execute } = readPlainLine(Deno.args) ??
    await (await import("./library_line.ts")).readLine(Deno.args);
  try {
    return await execute();
  } catch (error) {
    return reportError(error, options);
  }
}

if (import.meta.main) {
  const code = await main();
  await outputDrained();
  Deno.exit(code);
}
