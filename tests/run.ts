/**
 * Runs every test: `deno task test [files or folders]`. The last line says what came of it.
 *
 * @module
 */

import { ensurePrerequisites } from "../cli/guest/prerequisites.ts";
import { addCounts, type Counts, countTestcases, formatCounts, noCounts } from "./support/junit.ts";

const root = new URL("../", import.meta.url);

/** Modules whose documentation has examples that run. */
const documented = ["mod.ts", "ciphers", "migration", "kvm", "cli"];

/** What one `deno test` came to; an end without a reason in its report counts as a failure. */
async function runDenoTest(args: readonly string[]): Promise<Counts> {
  const report = await Deno.makeTempFile({ prefix: "sealift-", suffix: ".junit.xml" });
  try {
    const runner = new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-prompt", `--junit-path=${report}`, ...args],
      cwd: root,
      stdin: "null",
    }).spawn();
    const { success } = await runner.status;
    const counts = countTestcases(await Deno.readTextFile(report));
    return !success && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
  } finally {
    await Deno.remove(report);
  }
}

async function main(filters: readonly string[]): Promise<number> {
  const startedAtMs = performance.now();
  let counts = noCounts;
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
  if (filters.length > 0) {
    counts = await runDenoTest(filters);
  } else {
    counts = addCounts(
      await runDenoTest(["tests/"]),
      await runDenoTest(["--doc", "--preload=tests/support/preload_libraries.ts", ...documented]),
    );
  }
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
