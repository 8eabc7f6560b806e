/**
 * `key generate`, `key show`: this host's identity.
 *
 * @module
 */

import { merge, object, or } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { optional } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import { type CommonOptions, commonOptions, examples, pathValue } from "./options.ts";

/** What `key generate` was told. */
export interface KeyGenerateOptions extends CommonOptions {
  command: "key generate";
  /** `--out`; default: `--identity`, else the state directory's. */
  out: string | undefined;
}

/** What `key show` was told. */
export interface KeyShowOptions extends CommonOptions {
  command: "key show";
}

/** The parser of `key`. */
export const keyCommand = command(
  "key",
  or(
    command(
      "generate",
      merge(
        object({
          command: constant("key generate"),
          out: optional(option("--out", pathValue("FILE"), {
            description: message`Where to keep it (default: the state directory).`,
          })),
        }),
        commonOptions,
      ),
      {
        brief: message`Make an identity, mode 0600, and print its public key.`,
        footer: examples("sealift key generate", "sealift key generate --out ./host-a.identity"),
      },
    ),
    command("show", merge(object({ command: constant("key show") }), commonOptions), {
      brief: message`Print the public key of this host's identity.`,
      footer: examples("sealift key show", "sealift key show --identity ./host-a.identity"),
    }),
    { errors: { noMatch: message`Missing command.` } },
  ),
  {
    brief: message`This host's identity: an X25519 key.`,
    footer: examples("sealift key generate", "sealift key show"),
  },
);

/** Runs it. @returns the exit code */
export async function executeKey(options: KeyGenerateOptions | KeyShowOptions): Promise<number> {
  const { generateIdentityFile, makeStateDirectory, readIdentityFile, stateDirectory } =
    await import("./state_directory.ts");
  let publicKey: string;
  let path: string;
  if (options.command === "key generate") {
    const given = options.out ?? options.identity;
    if (given === undefined) {
      const directory = stateDirectory(options);
      await makeStateDirectory(directory);
      path = directory.identity;
    } else {
      path = given;
    }
    publicKey = await generateIdentityFile(path);
  } else {
    const { encodeKey } = await import("../migration/identity.ts");
    path = options.identity ?? stateDirectory(options).identity;
    publicKey = encodeKey((await readIdentityFile(path)).publicKey);
  }
  if (options.json) {
    const { printJson } = await import("./json_lines.ts");
    printJson({ type: "report", outcome: "completed", publicKey, path });
  } else {
    const { printLine } = await import("./output.ts");
    printLine(publicKey);
  }
  return 0;
}
