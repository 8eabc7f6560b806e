/**
 * `ciphers`: the cipher suites, what computes each here, and how fast.
 *
 * @module
 */

import { merge, object } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { command, constant, option } from "@optique/core/primitives";
import type { CipherSuite } from "../ciphers/suite.ts";
import type { CipherSpeed } from "./measure_ciphers.ts";
import { type CommonOptions, commonOptions, examples } from "./options.ts";
import { pluginsOption } from "./plugin_options.ts";
import { Terminal } from "./terminal.ts";

/** What `ciphers` was told. */
export interface CiphersOptions extends CommonOptions {
  command: "ciphers";
  /** Files with suites of third parties. */
  plugins: readonly string[];
  /** Seal and open with every suite, and tell how fast that is. */
  measure: boolean;
}

/** The parser of {@linkcode CiphersOptions}. */
export const ciphersCommand = command(
  "ciphers",
  merge(
    object({
      command: constant("ciphers"),
      measure: option("--measure", {
        description: message`Measure how fast each suite seals and opens on this machine.`,
      }),
      plugins: pluginsOption,
    }),
    commonOptions,
  ),
  {
    brief: message`The cipher suites, and what computes each here.`,
    footer: examples(
      "sealift ciphers",
      "sealift ciphers --measure --json",
      "sealift ciphers --measure --plugin scripts/suites/aes_256_gcm_siv.ts",
    ),
  },
);

/** Runs it. @returns the exit code */
export async function executeCiphers(options: CiphersOptions): Promise<number> {
  const { defaultRegistry } = await import("../ciphers/registry.ts");
  const { loadPlugins } = await import("./plugin.ts");
  using terminal = new Terminal(options);
  const registry = defaultRegistry();
  for (const { file, suite, checks } of await loadPlugins(options.plugins, { registry })) {
    terminal.line(`Plug-in ${file}: ${suite.id} passed ${checks} checks`);
  }
  const suites = registry.list();
  const speeds = options.measure ? await measure(suites, terminal) : null;
  const rows = suites.map((suite, index) => ({ ...describe(suite), ...speeds?.[index] }));
  if (options.json) {
    const { printJson } = await import("./json_lines.ts");
    printJson({ type: "report", outcome: "completed", ciphers: rows });
  } else {
    const { printTable } = await import("./output.ts");
    printTable([
      ["id", "profile", "key bytes", "nonce bytes", "tag bytes", "backend"]
        .concat(speeds === null ? [] : ["seal MB/s", "open MB/s"]),
      ...rows.map((row) => Object.values(row).map(String)),
    ]);
  }
  return 0;
}

function describe({ id, profile, keyBytes, nonceBytes, tagBytes, backend }: CipherSuite) {
  return { id, profile, keyBytes, nonceBytes, tagBytes, backend };
}

/** Whole MB/s: more digits would be those of the moment. */
async function measure(
  suites: readonly CipherSuite[],
  terminal: Terminal,
): Promise<CipherSpeed[]> {
  const { MEASURED_MESSAGE_BYTES, MEASURED_RUNS, measureCiphers } = await import(
    "./measure_ciphers.ts"
  );
  const speeds = measureCiphers(suites, (turn) => {
    terminal.progress(`Measuring: turn ${turn} of ${MEASURED_RUNS}`);
  });
  terminal.endProgress();
  terminal.line(
    `Measured on this machine, now: messages of ${MEASURED_MESSAGE_BYTES / 1024} KiB, ` +
      `median of ${MEASURED_RUNS} runs of each suite in turn`,
  );
  return speeds.map(({ sealMBps, openMBps }) => ({
    sealMBps: Math.round(sealMBps),
    openMBps: Math.round(openMBps),
  }));
}
