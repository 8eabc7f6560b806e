/**
 * `recover`: settles where a VM is after a crash.
 *
 * @module
 */

import { merge, object, or } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { optional } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import { choice } from "@optique/core/valueparser";
import {
  addressValue,
  type CommonOptions,
  commonOptions,
  examples,
  pathValue,
  valueParser,
} from "./options.ts";
import { type Address, parseMigrationId } from "./values.ts";

/** What `recover` was told. */
export interface RecoverOptions extends CommonOptions {
  command: "recover";
  /** 32 hexadecimal digits; undefined: the one migration here that is not settled. */
  id: string | undefined;
  /** Where this host was both sides. */
  side: "source" | "destination" | undefined;
  /** How the two hosts meet. */
  meet: { to: Address } | { listen: Address };
  /** The side that is dead for good, and whose copy did not run. */
  declareDead: "source" | "destination" | undefined;
  /** QEMU's QMP socket, where it is not the journal's any more. */
  qmp: string | undefined;
  dryRun: boolean;
}

const migrationId = valueParser(parseMigrationId, {
  metavar: "ID",
  format: String,
  placeholder: "0".repeat(32),
});

/** The parser of {@linkcode RecoverOptions}. */
export const recoverCommand = command(
  "recover",
  merge(
    object({
      command: constant("recover"),
      id: optional(option("--id", migrationId, {
        description: message`The migration (default: the one here that is not settled).`,
      })),
      side: optional(
        option("--side", choice(["source", "destination"] as const, { metavar: "SIDE" }), {
          description: message`Which of its sides, where this host was both.`,
        }),
      ),
      meet: or(
        object({
          to: option("--to", addressValue({ listen: false }), {
            description: message`Where the other side listens: receive, or recover --listen.`,
          }),
        }),
        object({
          listen: option("--listen", addressValue({ listen: true }), {
            description: message`Where to wait for recover on the other host.`,
          }),
        }),
        { errors: { noMatch: message`Missing option \`--to\` or \`--listen\`.` } },
      ),
      declareDead: optional(
        option("--declare-dead", choice(["source", "destination"] as const, { metavar: "SIDE" }), {
          description:
            message`Swear that the other side's QEMU is dead for good, and that its copy of the VM has not run since the migration stopped it.`,
        }),
      ),
      qmp: optional(option("--qmp", pathValue("PATH"), {
        description: message`QEMU's QMP socket (default: the one in the journal).`,
      })),
      dryRun: option("--dry-run", { description: message`Explain, change nothing.` }),
    }),
    commonOptions,
  ),
  {
    brief: message`After a crash: says what is known of a migration, and settles it.`,
    footer: examples(
      "sealift recover --to host-b:7900",
      "sealift recover --listen [::]:7900 --id 6f1c0f4c2f0e4b0f9b1d2f0a9c3e5d77",
      "sealift recover --to host-b:7900 --dry-run",
      "sealift recover --to host-b:7900 --declare-dead destination",
    ),
  },
);

/** Runs it; what it needs is loaded only now. */
export async function executeRecover(options: RecoverOptions): Promise<number> {
  const { runRecover } = await import("./recover_run.ts");
  return await runRecover(options);
}
