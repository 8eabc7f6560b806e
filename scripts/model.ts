/**
 * Searches the model of the switchover, tests/model/switchover.pml, from end to end: `deno task model`.
 *
 * With all rules in place neither search may find an error, and every step of the model must have been taken. Without any
 * one of them the safety search has to find one again: a rule that nothing misses would prove nothing.
 *
 * @module
 * @see https://spinroot.com/spin/Man/Spin.html
 */

import { parseArgs } from "node:util";
import { GuestError } from "../cli/guest/guest_error.ts";
import { isProgram } from "../cli/guest/prerequisites.ts";
import { runTool, tryTool } from "../cli/guest/run_tool.ts";

const USAGE = `deno task model [options]
  --json    print JSON instead of the table`;

const MODEL = new URL("../tests/model/switchover.pml", import.meta.url);
/** Searches at a time. */
const WORKERS = 2;
/** Steps of the longest path: many times those of any that was found. */
const MAX_DEPTH = 500_000;

/** Debian packages, and how to see that they are there. */
const prerequisites: Readonly<Record<string, () => boolean>> = {
  "spin": () => isProgram("spin"),
  "gcc": () => isProgram("gcc"),
  "libc6-dev": () => isFile("/usr/include/stdio.h"),
};

/** One search to be made. */
interface Search {
  /** The rule that is taken away; null for none. */
  without: string | null;
  property: "safety" | "liveness";
}

/** What came of a search. */
interface Found extends Search {
  /** Distinct states; up to the error, when there is one. */
  states: number;
  /** The assertion that does not hold, or `acceptance cycle`; null for none. */
  error: string | null;
  /** Whether it is what it should be. */
  holds: boolean;
  /** What is wrong with it; empty when nothing is. */
  fault: string;
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** As root on a Debian installs what is missing; otherwise names it. @throws {GuestError} `missing`, `offline` */
async function ensurePrerequisites(): Promise<void> {
  const missing = Object.keys(prerequisites).filter((name) => !prerequisites[name]!());
  if (missing.length === 0) return;
  const list = missing.join(" ");
  const hint = `as root: apt-get update && apt-get install -y --no-install-recommends ${list}`;
  if (Deno.uid() !== 0 || !isProgram("apt-get")) {
    throw new GuestError("missing", `Cannot search the model: ${list} not installed`, { hint });
  }
  console.error(`Installing ${list}`);
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  for (
    const args of [["update"], ["install", "-y", "--no-install-recommends", ...missing]]
  ) {
    const { ok, stderr } = await tryTool("apt-get", ["-q", ...args], { env });
    if (!ok) {
      throw new GuestError("offline", `Cannot install ${list}: ${stderr.trim().slice(-1000)}`, {
        hint,
      });
    }
  }
}

/** Makes one search in a directory of its own. @throws {GuestError} `build` when the model does not compile */
async function search(what: Search): Promise<Found> {
  const cwd = await Deno.makeTempDir({ prefix: "sealift-model-" });
  try {
    await Deno.copyFile(MODEL, `${cwd}/switchover.pml`);
    const rules = what.without === null ? [] : [`-D${what.without}`];
    await runTool("spin", ["-a", ...rules, "switchover.pml"], { cwd });
    const kind = what.property === "safety" ? ["-DSAFETY", "-DNOCLAIM"] : [];
    // Without partial order reduction: the model is one process. It runs shorter than it would be optimized.
    await runTool("gcc", ["-w", "-DNOREDUCE", ...kind, "-o", "pan", "pan.c"], { cwd });
    const cycles = what.property === "liveness" ? ["-a"] : [];
    const { stdout } = await tryTool(`${cwd}/pan`, [`-m${MAX_DEPTH}`, ...cycles], { cwd });
    return judge(what, stdout);
  } finally {
    await Deno.remove(cwd, { recursive: true });
  }
}

function judge(what: Search, report: string): Found {
  const errors = /errors: (\d+)/.exec(report)?.[1];
  const states = Number(/(\d+) states, stored/.exec(report)?.[1] ?? 0);
  const error = /^pan:\d+: (.*) \(at depth \d+\)$/m.exec(report)?.[1]?.trim() ?? null;
  const unreached = /unreached in proctype sealift\n(?:\t\D.*\n)*\t\((\d+) of/.exec(report)?.[1];
  let fault = "";
  if (errors === undefined) fault = `the search said nothing: ${report.trim().slice(-200)}`;
  else if (/max search depth too small/.test(report)) fault = "the search was not exhaustive";
  else if (what.without !== null) {
    if (!(error ?? "").startsWith("assertion violated")) fault = "nothing misses this rule";
  } else if (errors !== "0") fault = error ?? "an error";
  else if (unreached !== "0") fault = `${unreached ?? "some"} steps are never taken`;
  return { ...what, states, error, holds: fault === "", fault };
}

/** Every search; results in the order of `searches`. */
async function searchAll(searches: readonly Search[]): Promise<Found[]> {
  const found: Found[] = [];
  const waiting = searches.entries();
  const work = async () => {
    for (const [i, one] of waiting) found[i] = await search(one);
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  return found;
}

/** The model's switches, in its own order. */
function switchesOf(model: string): string[] {
  return [...new Set(Array.from(model.matchAll(/^#ifn?def (NO_\w+)/gm), ([, name]) => name!))];
}

function formatFound({ without, property, states, error, holds, fault }: Found): string {
  const rules = without === null ? "all rules in place" : `without ${without.slice(3)}`;
  const verdict = holds ? error === null ? "errors: 0" : "an error, as expected" : `FAIL: ${fault}`;
  return `${property.padEnd(9)} ${rules.padEnd(19)} ${String(states).padStart(8)}  ${verdict}`;
}

async function main(args: string[]): Promise<number> {
  let json: boolean;
  try {
    json = parseArgs({ args, options: { json: { type: "boolean" } } }).values.json ?? false;
  } catch (error) {
    console.error(`error: ${(error as Error).message}\n${USAGE}`);
    return 2;
  }
  try {
    await ensurePrerequisites();
    const found = await searchAll([
      { without: null, property: "safety" },
      { without: null, property: "liveness" },
      ...switchesOf(await Deno.readTextFile(MODEL)).map((without) =>
        ({ without, property: "safety" }) as const
      ),
    ]);
    const failed = found.filter(({ holds }) => !holds).length;
    if (json) {
      console.log(JSON.stringify({ failed, searches: found }));
    } else {
      console.log(`search    rules                 states  verdict`);
      for (const one of found) console.log(formatFound(one));
      console.log(`${found.length - failed} searches as expected, ${failed} not`);
    }
    return failed === 0 ? 0 : 1;
  } catch (error) {
    if (!(error instanceof GuestError)) throw error;
    console.error(`error: ${error.message}`);
    if (error.hint !== undefined) console.error(`hint: ${error.hint}`);
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
