/**
 * The fault campaign: `deno task faults`.
 *
 * Each case moves a Linux guest between two QEMUs, lets one thing go wrong at a named step or a random moment, recovers
 * where an exit code asks for it, and then looks whether exactly one copy runs, goes on beating, and finds its memory
 * as it left it. The seed and its number make a case: `--seed 7 --from 41 --cases 1` is case 41 once more.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { gridSize, makeCase, stepName } from "./faults/cases.ts";
import { type CaseResult, runCase } from "./faults/run_case.ts";
import { summarize } from "./faults/summary.ts";
import { faultGuest } from "./faults/vms.ts";
import { ensurePrerequisites } from "../cli/guest/prerequisites.ts";
import { libc } from "../kvm/libc.ts";
import { describeMachine } from "./bench/machine.ts";

const USAGE = `deno task faults [options]
  --seed N        which campaign (a random one, printed)
  --cases N       how many cases (${gridSize()}: every fault at every step)
  --from N        number of the first one (0)
  --fault NAME    only that fault, for instance "kill send"
  --step NAME     only that step, for instance "receive loaded"
  --jobs N        cases at once (1)
  --out FILE      adds each result to it, a JSON line each; cases that are there already are not run again
  --summary FILE  writes the table there as well, with command, date and machine
  --verbose       what the agents said, also of cases that passed`;

interface Options {
  seed: number;
  cases: number;
  from: number;
  jobs: number;
  fault: string | undefined;
  step: string | undefined;
  out: string | undefined;
  summary: string | undefined;
  verbose: boolean;
}

function readOptions(args: string[]): Options | null {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: "string", default: String(crypto.getRandomValues(new Uint32Array(1))[0]) },
      cases: { type: "string", default: String(gridSize()) },
      from: { type: "string", default: "0" },
      jobs: { type: "string", default: "1" },
      fault: { type: "string" },
      step: { type: "string" },
      out: { type: "string" },
      summary: { type: "string" },
      verbose: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  const count = (name: "seed" | "cases" | "from" | "jobs") => {
    const value = Number(values[name]);
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw new RangeError(`Cannot use --${name} ${values[name]}: not a number`);
  };
  return {
    seed: count("seed"),
    cases: count("cases"),
    from: count("from"),
    jobs: Math.max(1, count("jobs")),
    fault: values.fault,
    step: values.step,
    out: values.out,
    summary: values.summary,
    verbose: values.verbose,
  };
}

/** Results of an earlier run of the same campaign. */
async function readResults({ out, seed }: Options): Promise<CaseResult[]> {
  if (out === undefined) return [];
  let text: string;
  try {
    text = await Deno.readTextFile(out);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  // A last line that was cut off is a case that was not counted.
  const lines = text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
  return lines.filter((line) => line.seed === seed);
}

function progressLine(result: CaseResult, done: string): string {
  const { index, fault, step, passed, end, codes, recovered, durationMs } = result;
  const recovers = recovered.map((one) => `${one.declared ? "!" : ""}${one.codes.join("+")}`);
  return `${passed ? "ok  " : "FAIL"} ${done}  case ${index}: ${fault} at ${step}` +
    `${step === "random moment" ? ` ${result.atMs} ms` : ""}: send ${codes.send ?? "-"}, receive ${
      codes.receive ?? "-"
    }${recovers.length > 0 ? `, recover ${recovers.join(", ")}` : ""}: ${end}, ${
      (durationMs / 1000).toFixed(1)
    } s`;
}

async function main(): Promise<number> {
  const options = readOptions(Deno.args);
  if (options === null) {
    console.error(USAGE);
    return 0;
  }
  const { seed, cases, from, jobs, out, verbose } = options;
  await ensurePrerequisites({ install: true, log: (line) => console.error(line) });
  libc();
  console.error(`seed ${seed}: cases ${from} to ${from + cases - 1}, ${jobs} at once`);
  const results = await readResults(options);
  const known = new Set(results.map(({ index }) => index));
  const wanted = Array.from({ length: cases }, (_, i) => makeCase(seed, from + i)).filter((one) =>
    (options.fault ?? one.fault) === one.fault &&
    (options.step ?? stepName(one.step)) === stepName(one.step)
  );
  const todo = wanted.filter(({ index }) => !known.has(index));
  const guest = await faultGuest();
  const queue = todo.values();
  let done = wanted.length - todo.length;
  await Promise.all(Array.from({ length: jobs }, async () => {
    for (const fault of queue) {
      const result = await runCase(fault, guest);
      results.push(result);
      done++;
      console.error(progressLine(result, `${done}/${wanted.length}`));
      for (const text of result.faults) console.error(`     ${text}`);
      if (verbose || !result.passed) {
        for (const text of result.said) console.error(indented(text));
      }
      if (out !== undefined) {
        await Deno.writeTextFile(
          out,
          `${JSON.stringify({ seed, ...result, ...(result.passed ? { said: [] } : {}) })}\n`,
          { append: true },
        );
      }
    }
  }));
  const lines = [
    `command  deno task faults ${Deno.args.join(" ")}`,
    `seed     ${seed}`,
    `date     ${new Date().toISOString()}`,
    `machine  ${JSON.stringify(await describeMachine())}`,
    "",
    ...summarize(results),
  ];
  if (options.summary !== undefined) {
    await Deno.writeTextFile(options.summary, `${lines.join("\n")}\n`);
  }
  console.log(lines.join("\n"));
  return results.every(({ passed }) => passed) ? 0 : 1;
}

function indented(text: string): string {
  return text.split("\n").map((line) => `       ${line}`).join("\n");
}

if (import.meta.main) Deno.exit(await main());
