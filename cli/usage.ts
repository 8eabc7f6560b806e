/**
 * `--help`, `--version`, `completion`, and what is wrong with a command line: all that needs every command's
 * parser.
 *
 * @module
 */

import { or } from "@optique/core/constructs";
import { lineBreak, message } from "@optique/core/message";
import { suggestSync } from "@optique/core/parser";
import { run } from "@optique/run";
import manifest from "../deno.json" with { type: "json" };
import { type CommandParser, commands, type Invocation } from "./commands.ts";
import { exitCodes } from "./exit_codes.ts";
import { examples } from "./options.ts";
import { Terminal } from "./terminal.ts";
import { writeAll } from "./write_all.ts";

/** Parses the arguments; on `--help`, `--version`, `completion` and errors it prints and exits. */
export async function parseOrExit(args: readonly string[]): Promise<Invocation> {
  const parsers = await Promise.all(Object.values(commands).map((load) => load()));
  const parser = or(...parsers, { errors: { noMatch: message`Missing command.` } });
  return run(parser, {
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
    stderr: (text) => reportUsageError(text, { args, parser }),
  });
}

/** An error of the parser, in the form of all our errors; the help that follows some of them is left out. */
function reportUsageError(
  text: string,
  { args, parser }: { args: readonly string[]; parser: CommandParser },
): void {
  if (!text.startsWith("Error: ")) return;
  const error = text.slice("Error: ".length).replace(/\s*\n\s*/g, " ").trim();
  const hint = `sealift ${[...commandOf(args, parser), "--help"].join(" ")}`;
  // The parser ends the process right after this: nothing may wait in a queue.
  new Terminal({ writer: { write: (text) => writeAll(Deno.stderr, text) } }).error(error, hint);
  if (args.includes("--json")) {
    const report = {
      type: "report",
      outcome: "usage",
      error: { code: "usage", message: error, hint },
    };
    writeAll(Deno.stdout, JSON.stringify(report) + "\n");
  }
}

/** The command that the arguments begin with, and its subcommand. */
function commandOf(args: readonly string[], parser: CommandParser): readonly string[] {
  const [command = "", subcommand = ""] = args;
  if (command === "completion") return [command];
  if (!Object.hasOwn(commands, command)) return [];
  const isKnown = /^\w/.test(subcommand) &&
    suggestSync(parser, [command, subcommand])
      .some((suggestion) => suggestion.kind === "literal" && suggestion.text === subcommand);
  return isKnown ? [command, subcommand] : [command];
}
