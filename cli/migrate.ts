/**
 * The command line: `deno run -A cli/migrate.ts <command>`. Only what parses is loaded here; each command
 * loads what it needs when it runs.
 *
 * @module
 */

import { or } from "@optique/core/constructs";
import { lineBreak, message } from "@optique/core/message";
import { run } from "@optique/run";
import manifest from "../deno.json" with { type: "json" };
import { ciphersCommand, executeCiphers } from "./ciphers.ts";
import { demoCommand, executeDemo } from "./demo.ts";
import { errorReport, exitCodes, outcomeOf } from "./exit_codes.ts";
import { printJson } from "./json_lines.ts";
import { executeKey, keyCommand } from "./key.ts";
import type { CommonOptions } from "./options.ts";
import { examples } from "./options.ts";
import { executePeer, peerCommand } from "./peer.ts";
import { executeReceive, receiveCommand } from "./receive.ts";
import { executeRecover, recoverCommand } from "./recover.ts";
import { executeSend, sendCommand } from "./send.ts";
import { executeStatus, statusCommand } from "./status.ts";
import { Terminal } from "./terminal.ts";

const commands = or(
  demoCommand,
  sendCommand,
  receiveCommand,
  recoverCommand,
  statusCommand,
  keyCommand,
  peerCommand,
  ciphersCommand,
  { errors: { noMatch: message`Missing command.` } },
);

/** Parses the arguments; on `--help`, `--version`, `completion` and errors it prints and exits. */
function parseArguments(args: readonly string[]) {
  return run(commands, {
    args,
    programName: "sealift",
    help: "option",
    version: { value: manifest.version, option: true },
    completion: "command",
    errorExitCode: exitCodes.usage,
    aboveError: "none",
    showDefault: true,
    showChoices: true,
    commandList: "top-level",
    usageLine: [{ type: "ellipsis" }],
    termWidth: "auto",
    colors: Deno.stdout.isTerminal() && !Deno.noColor,
    brief: message`Moves a running QEMU VM to another host, sealed.`,
    footer: [
      ...examples(
        "sealift demo",
        "sealift key generate",
        "sealift receive --qmp /run/vm1.qmp --listen [::]:7900 --allow host-a",
        "sealift send --qmp /run/vm1.qmp --to host-b:7900 --peer host-b",
        "sealift completion bash",
      ),
      lineBreak(),
      lineBreak(),
      ...message`sealift stands for deno run -A cli/migrate.ts; deno install -g -A -n sealift --config deno.json cli/migrate.ts gives it that name.`,
    ],
    stderr: (text) => reportUsageError(text, args),
  });
}

const commandNames = [
  "demo",
  "send",
  "receive",
  "recover",
  "status",
  "key",
  "peer",
  "ciphers",
  "completion",
];

/** An error of the parser, in the form of all our errors; the help that follows some of them is left out. */
function reportUsageError(text: string, args: readonly string[]): void {
  if (!text.startsWith("Error: ")) return;
  const error = text.slice("Error: ".length).replace(/\s*\n\s*/g, " ").trim();
  const [command = ""] = args;
  const hint = commandNames.includes(command) ? `sealift ${command} --help` : "sealift --help";
  new Terminal().error(error, hint);
  if (args.includes("--json")) {
    printJson({ type: "report", outcome: "usage", error: { code: "usage", message: error, hint } });
  }
}

type Parsed = ReturnType<typeof parseArguments>;

function execute(options: Parsed): Promise<number> {
  switch (options.command) {
    case "demo":
      return executeDemo(options);
    case "send":
      return executeSend(options);
    case "receive":
      return executeReceive(options);
    case "recover":
      return executeRecover(options);
    case "status":
      return executeStatus(options);
    case "key generate":
    case "key show":
      return executeKey(options);
    case "peer add":
    case "peer list":
    case "peer remove":
      return executePeer(options);
    case "ciphers":
      return executeCiphers(options);
  }
}

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
  const options = parseArguments(Deno.args);
  try {
    return await execute(options);
  } catch (error) {
    return reportError(error, options);
  }
}

if (import.meta.main) Deno.exit(await main());
