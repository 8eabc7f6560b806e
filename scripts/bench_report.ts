/**
 * `deno task bench`: runs every `*_bench.ts` there is, prints what they measured, and keeps it as JSON and as
 * a chart.
 *
 * @module
 */

import { formatTable } from "../cli/output.ts";
import { drawBenchChart } from "./bench/bench_chart.ts";
import { type BenchEntry, type BenchFigure, benchFigures } from "./bench/bench_figures.ts";
import { describeMachine } from "./bench/machine.ts";

const USAGE = `deno task bench [--out DIR] [arguments of deno bench]
  --out DIR  write bench.json and bench.svg there (docs/results; nowhere when only some benches run)
  Files and options such as --filter aes go to deno bench.`;

const root = new URL("../", import.meta.url);

interface Options {
  /** Where to write; undefined is nowhere. */
  out: string | undefined;
  /** For `deno bench`. */
  rest: string[];
}

function readOptions(args: readonly string[]): Options {
  const rest = args.filter((arg) => arg !== "--");
  const at = rest.indexOf("--out");
  if (at < 0) {
    // A part must not take the place of the whole.
    const whole = rest.length === 0;
    return { out: whole ? new URL("docs/results", root).pathname : undefined, rest };
  }
  const [, out] = rest.splice(at, 2);
  if (out === undefined) throw new RangeError("Cannot use --out: it has no value");
  return { out, rest };
}

/** What `deno bench --json` prints, as far as it is used. */
interface BenchOutput {
  benches: readonly BenchEntry[];
}

async function runBenches(args: readonly string[]): Promise<BenchFigure[]> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["bench", "-A", "--no-prompt", "--json", ...args],
    cwd: root,
    stdin: "null",
    stderr: "inherit",
  }).output();
  if (!success) throw new Error("Cannot report benches: `deno bench` failed");
  const { benches } = JSON.parse(new TextDecoder().decode(stdout)) as BenchOutput;
  return benchFigures(benches, root.href);
}

function table(figures: readonly BenchFigure[]): string[] {
  return formatTable([
    ["group", "bench", "time", "MB/s", "of baseline"],
    ...figures.map(({ group, name, meanNs, megabytesPerSecond, ofBaseline }) => [
      group ?? "",
      name,
      meanNs < 1e6 ? `${(meanNs / 1e3).toFixed(1)} us` : `${(meanNs / 1e6).toFixed(1)} ms`,
      megabytesPerSecond?.toFixed(0) ?? "",
      ofBaseline?.toFixed(2) ?? "",
    ]),
  ]);
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--help")) {
    console.error(USAGE);
    return 0;
  }
  const { out, rest } = readOptions(args);
  console.error("Every bench runs for about a second");
  const figures = await runBenches(rest);
  console.log(table(figures).join("\n"));
  if (out === undefined) return 0;
  const machine = await describeMachine();
  const report = {
    command: ["deno task bench", ...args].join(" "),
    date: new Date().toISOString(),
    machine,
    figures,
  };
  const chart = await drawBenchChart(figures, {
    subtitle: `${machine.cpu}, Deno ${machine.deno}, ${report.date.slice(0, 10)}`,
  });
  await Deno.mkdir(out, { recursive: true });
  await Deno.writeTextFile(`${out}/bench.json`, `${JSON.stringify(report, null, 1)}\n`);
  if (chart !== null) await Deno.writeTextFile(`${out}/bench.svg`, `${chart}\n`);
  console.error(`Written to ${out}: bench.json${chart === null ? "" : ", bench.svg"}`);
  return 0;
}

if (import.meta.main) {
  try {
    Deno.exit(await main(Deno.args));
  } catch (error) {
    console.error(`error: ${error instanceof Error ? error.message : error}`);
    Deno.exit(1);
  }
}
