/**
 * `ciphers`: the cipher suites, and what computes each here.
 *
 * @module
 */

import { merge, object } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { command, constant } from "@optique/core/primitives";
import { type CommonOptions, commonOptions, examples } from "./options.ts";

/** What `ciphers` was told. */
export interface CiphersOptions extends CommonOptions {
  command: "ciphers";
}

/** The parser of {@linkcode CiphersOptions}. */
export const ciphersCommand = command(
  "ciphers",
  merge(object({ command: constant("ciphers") }), commonOptions),
  {
    brief: message`The cipher suites, and what computes each here.`,
    footer: examples("sealift ciphers", "sealift ciphers --json"),
  },
);

/** Runs it. @returns the exit code */
export async function executeCiphers(options: CiphersOptions): Promise<number> {
  const { defaultRegistry } = await import("../ciphers/registry.ts");
  const suites = defaultRegistry().list().map((
    { id, profile, keyBytes, nonceBytes, tagBytes, backend },
  ) => ({ id, profile, keyBytes, nonceBytes, tagBytes, backend }));
  if (options.json) {
    const { printJson } = await import("./json_lines.ts");
    printJson({ type: "report", outcome: "completed", ciphers: suites });
  } else {
    const { printTable } = await import("./output.ts");
    printTable([
      ["id", "profile", "key bytes", "nonce bytes", "tag bytes", "backend"],
      ...suites.map((suite) => Object.values(suite).map(String)),
    ]);
  }
  return 0;
}
