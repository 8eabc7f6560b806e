/**
 * `--plugin FILE`: cipher suites of third parties. A plug-in is code that is trusted like Sealift's own: it runs
 * in this process with all its rights. What is not trusted is that its suites are right: none can be used
 * before it has passed the conformance kit.
 *
 * @module
 */

import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { conformanceChecks } from "../ciphers/conformance.ts";
import { CipherError } from "../ciphers/errors.ts";
import { CipherRegistry, defaultRegistry } from "../ciphers/registry.ts";
import type { CipherSuite } from "../ciphers/suite.ts";
import { CliError, systemReason } from "./cli_error.ts";

/** A suite of a plug-in, checked and registered. */
export interface PluginSuite {
  /** As it was given to `--plugin`. */
  file: string;
  suite: CipherSuite;
  /** Checks of the conformance kit that it passed. */
  checks: number;
}

/** What a suite has to have, by the type of it. */
const suiteShape = {
  id: "string",
  profile: "string",
  keyBytes: "number",
  nonceBytes: "number",
  tagBytes: "number",
  maxMessagesPerKey: "number",
  maxBytesPerKey: "number",
  backend: "string",
  createSealer: "function",
  createOpener: "function",
} as const satisfies Record<keyof CipherSuite, string>;

const EXPORT_HINT =
  "a plug-in has `export default` of a CipherSuite, or of a list of them: see scripts/suites";
const KIT_HINT =
  "run conformanceChecks() of mod.ts over it in a test of your own: these are the checks that it must pass";

/**
 * Loads plug-ins, checks their suites and registers them, one after the other.
 *
 * @param files paths, from the working directory on
 * @returns every suite, in order
 * @throws {CliError} `usage` for the first that cannot be used: the file, the suite, what is wrong, and the line
 *   where there is one
 */
export async function loadPlugins(
  files: readonly string[],
  options: { registry?: CipherRegistry } = {},
): Promise<PluginSuite[]> {
  const registry = options.registry ?? defaultRegistry();
  const loaded: PluginSuite[] = [];
  for (const file of files) {
    for (const candidate of await importSuites(file)) {
      const suite = checkShape(candidate, file);
      register(suite, { file, registry: new CipherRegistry() });
      const checks = checkConformance(suite, file);
      register(suite, { file, registry });
      loaded.push({ file, suite, checks });
    }
  }
  return loaded;
}

/** The default export of a file, as a list. */
async function importSuites(file: string): Promise<unknown[]> {
  const path = resolve(file);
  try {
    if (!(await Deno.stat(path)).isFile) {
      throw new CliError("usage", `Cannot load plug-in ${file}: it is no file`);
    }
  } catch (cause) {
    if (cause instanceof CliError) throw cause;
    throw new CliError("usage", `Cannot load plug-in ${file}: ${systemReason(cause)}`, { cause });
  }
  let module: { default?: unknown };
  try {
    module = await import(pathToFileURL(path).href);
  } catch (cause) {
    const { place, reason } = describe(cause, path);
    throw new CliError("usage", `Cannot load plug-in ${place ?? file}: ${reason}`, {
      hint: `\`deno check ${file}\` may say more`,
      cause,
    });
  }
  const value = module.default;
  const suites: unknown[] = Array.isArray(value) ? value : [value];
  if (value !== undefined && suites.length > 0) return suites;
  const problem = value === undefined ? "it has no default export" : "its list is empty";
  throw new CliError("usage", `Cannot load plug-in ${file}: ${problem}`, { hint: EXPORT_HINT });
}

/** Whoever wrote it may have had no compiler look at it. */
function checkShape(candidate: unknown, file: string): CipherSuite {
  if (typeof candidate !== "object" || candidate === null) {
    throw new CliError(
      "usage",
      `Cannot use plug-in ${file}: its default export is no cipher suite`,
      { hint: EXPORT_HINT },
    );
  }
  const suite = candidate as Partial<Record<keyof CipherSuite, unknown>>;
  for (const [name, type] of Object.entries(suiteShape)) {
    const found = typeof suite[name as keyof CipherSuite];
    if (found === type) continue;
    const which = typeof suite.id === "string" ? `suite ${suite.id}` : "its suite";
    const problem = found === "undefined"
      ? `has no ${name}`
      : `has a ${name} that is a ${found}, not a ${type}`;
    throw new CliError("usage", `Cannot use plug-in ${file}: ${which} ${problem}`, {
      hint: EXPORT_HINT,
    });
  }
  return suite as CipherSuite;
}

/** Id and numbers are the registry's to judge. */
function register(
  suite: CipherSuite,
  options: { file: string; registry: CipherRegistry },
): void {
  try {
    options.registry.register(suite);
  } catch (cause) {
    throw new CliError("usage", `Cannot use plug-in ${options.file}: ${messageOf(cause)}`, {
      cause,
    });
  }
}

/** Runs the whole kit: half a second for a suite in plain JavaScript. @returns how many checks it passed */
function checkConformance(suite: CipherSuite, file: string): number {
  const checks = conformanceChecks(suite);
  for (const { title, run } of checks) {
    try {
      run();
    } catch (cause) {
      throw new CliError(
        "usage",
        `Cannot use plug-in ${file}: suite ${suite.id} fails the check "${title}": ` +
          failure(cause, file),
        { hint: KIT_HINT, cause },
      );
    }
  }
  return checks.length;
}

/** What the kit found; for an error of the suite's own also where it was thrown. */
function failure(error: unknown, file: string): string {
  const thrown = error instanceof CipherError && error.code === "suiteFailed"
    ? error.cause ?? error
    : error;
  if (thrown instanceof CipherError) return thrown.message.replace(/^Cannot pass suite: /, "");
  const { place, reason } = describe(thrown, resolve(file));
  return place === null ? reason : `${reason} (${place})`;
}

/** An error in one line, and the place in a file that it speaks of: the first that is not Sealift's own. */
function describe(error: unknown, path: string): { place: string | null; reason: string } {
  // On a terminal Deno colours the place in the message itself.
  const stack = stripVTControlCharacters(
    error instanceof Error ? `${error.message}\n${error.stack ?? ""}` : "",
  );
  const places = Array.from(
    stack.matchAll(/(file:\/\/[^\s"'()]+?):(\d+):(\d+)/g),
    ([, url = "", line, column]) => ({ file: fileURLToPath(url), at: `:${line}:${column}` }),
  );
  const place = places.find((one) => one.file === path) ?? places[0];
  const [reason = ""] = messageOf(error).split("\n");
  return {
    place: place === undefined ? null : place.file + place.at,
    reason: reason.replace(/ at file:\/\/\S+$/, "").trim() ||
      "it throws an error without a message",
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
