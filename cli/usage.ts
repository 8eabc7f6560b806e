/**
 * `--help`, `--version`, `completion`, and what is wrong with a command line: all that needs every command's
 * parser.
 *
 * @module
 */

import { or } from "@optique/core/constructs";
import { lineBreak, message } from "@optique/core/message";
import { run } from "@optique/run";
import manifest from "../deno.json" with { type: "json" };
import { commands, type Invocation } from "./commands.ts";
import { exitCodes } from "./exit_codes.ts";
import { examples } from "./options.ts";
import { Terminal } from "./terminal.ts";
import { writeAll } from "./write_all.ts";

/** Parses the arguments; on `--help`, `--version`, `completion` and errors it prints and exits. */
export async function parseOrExit(args: readonly string[]): Promise<Invocation> {
  const parsers = await Promise.all(Object.values(commands).map((load) => load()));
  return run(or(...parsers, { errors: { noMatch: message`Missing command.` } }), {
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

/** An error of the parser, in the form of all our errors; the help that follows some of them is left out. */
function reportUsageError(text: string, args: readonly string[]): void {
  if (!text.startsWith("Error: ")) return;
  const error = text.slice("Error: ".length).replace(/\s*\n\s*/g, " ").trim();
  const [command = ""] = args;
  const isKnown = Object.hasOwn(commands, command) || command === "completion";
  const hint = isKnown ? `sealift ${command} --help` : "sealift --help";
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
