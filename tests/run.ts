/**
 * Runs every test: `deno task test [files or folders]`. The last line says what came of it.
 *
 * Most tests wait for machines more than they compute, so parts of the whole run side by side, each in a
 * process of its own; what a part prints is shown when it has ended.
 *
 * @module
 */

import { ensurePrerequisites } from "../cli/guest/prerequisites.ts";
import { writeAll } from "../cli/write_all.ts";
import { addCounts, type Counts, countTestcases, formatCounts } from "./support/junit.ts";

const root = new URL("../", import.meta.url);

/** Modules whose documentation has examples that run. */
const documented = ["mod.ts", "ciphers", "migration", "kvm", "cli"];

/** Needs most of the machine's memory. */
const ALONE = "tests/integration/agent_memory_test.ts";

/** Parts at once: each may have two VMs and two agents. */
const LANES = Math.min(navigator.hardwareConcurrency, 4);

/** What one `deno test` came to; an end without a reason in its report counts as a failure. */
async function runDenoTest(
  args: readonly string[],
  { quiet = false }: { quiet?: boolean } = {},
): Promise<Counts> {
  const report = await Deno.makeTempFile({ prefix: "sealift-", suffix: ".junit.xml" });
  try {
    const runner = new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-prompt", `--junit-path=${report}`, ...args],
      cwd: root,
      stdin: "null",
      stdout: quiet ? "piped" : "inherit",
      stderr: quiet ? "piped" : "inherit",
    }).spawn();
    const printed = quiet
      ? Promise.all([collected(runner.stdout), collected(runner.stderr)])
      : Promise.resolve([]);
    const { success } = await runner.status;
    for (const text of await printed) writeAll(Deno.stdout, text);
    const counts = countTestcases(await Deno.readTextFile(report));
    return !success && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
  } finally {
    await Deno.remove(report);
  }
}

async function collected(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  for await (const part of stream.pipeThrough(new TextDecoderStream())) text += part;
  return text;
}

/** Every file with tests below `folder`, a URL that ends with a slash. */
async function* testFiles(folder: URL): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) yield* testFiles(new URL(`${name}/`, folder));
    else if (name.endsWith("_test.ts")) yield new URL(name, folder).pathname;
  }
}

/** Everything but what runs alone: a folder is a part, and so is each file that has real QEMUs. */
async function parts(): Promise<(readonly string[])[]> {
  const names = new Set<string>();
  for await (const path of testFiles(new URL("tests/", root))) {
    const name = path.slice(root.pathname.length);
    if (name === ALONE) continue;
    names.add(name.startsWith("tests/integration/") ? name : `${dirname(name)}/`);
  }
  return [
    ["--doc", "--preload=tests/support/preload_libraries.ts", ...documented],
    ...[...names].sort().map((name) => [name]),
  ];
}

/** `tests/FOLDER` of a file at any depth. */
function dirname(name: string): string {
  return name.split("/").slice(0, 2).join("/");
}

/** Once for all parts: each would check most of the modules again. @returns a failure for types that are wrong */
async function checkTypes(): Promise<Counts> {
  const checker = new Deno.Command(Deno.execPath(), { args: ["check", "--quiet"], cwd: root });
  const { success } = await checker.spawn().status;
  return { passed: 0, failed: success ? 0 : 1, skipped: 0 };
}

async function runAll(): Promise<Counts> {
  let counts = addCounts(await checkTypes(), await runDenoTest(["--no-check", ALONE]));
  const queue = await parts();
  const lane = async () => {
    for (let part; (part = queue.shift()) !== undefined;) {
      const isDoc = part[0] === "--doc";
      console.error(`running ${isDoc ? "the documentation's examples" : part[0]}`);
      // Nobody else has checked the examples.
      const args = isDoc ? part : ["--no-check", ...part];
      // Added when it is known: another lane adds meanwhile.
      const more = await runDenoTest(args, { quiet: true });
      counts = addCounts(counts, more);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return counts;
}

async function main(filters: readonly string[]): Promise<number> {
  const startedAtMs = performance.now();
  try {
    await ensurePrerequisites({
      install: true,
      tests: true,
      log: (line) => console.error(line),
    });
  } catch (error) {
    // The tests that need what is missing say so themselves.
    const { message, hint } = error as { message?: string; hint?: string };
    console.error(`warning: ${message ?? error}`);
    if (hint !== undefined) console.error(`hint: ${hint}`);
  }
  let counts = filters.length > 0 ? await runDenoTest(filters) : await runAll();
  // Nothing executed proves nothing.
  if (counts.passed + counts.failed === 0) counts = { ...counts, failed: 1 };
  if (Deno.env.get("CI") === "true") {
    // CI, as root, promises all that a test can need: what is skipped there hides a missing part.
    if (Deno.uid() === 0 && counts.skipped > 0) {
      console.error(`error: ${counts.skipped} skipped, though nothing may be missing here`);
      counts = { ...counts, failed: counts.failed + counts.skipped, skipped: 0 };
    }
    console.log(`${((performance.now() - startedAtMs) / 1000).toFixed(1)} s in all`);
  }
  console.log(formatCounts(counts));
  return counts.failed > 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
