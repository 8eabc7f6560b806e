/**
 * The soak: `deno task soak`.
 *
 * Each case boots a micro-VM, moves it to another one in this process, and lets one thing go wrong. Afterwards exactly one
 * copy has to be there, with every heartbeat given once, and its memory as the program in it left it; before a copy runs it is
 * compared whole with the one that stands at the source. The seed and its number make a case: `--seed 7 --from 41 --count 1` is
 * case 41 once more.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { Kvm } from "../kvm/kvm.ts";
import { describeMachine } from "./bench/machine.ts";
import { summarize } from "./bench/statistics.ts";
import { makeCase, type SoakCase, type SoakFault, soakFaults } from "./soak/cases.ts";
import { runCase, type SoakResult } from "./soak/run_case.ts";

const USAGE = `deno task soak [options]
  --count N   how many migrations (200)
  --seed S    which soak (a random one, printed)
  --from N    number of the first case (0)
  --out FILE  also write the result there, as JSON
  --json      print JSON instead of lines`;

interface Options {
  count: number;
  seed: number;
  from: number;
  out: string | undefined;
  json: boolean;
}

/** A case that broke a rule. */
interface Failure {
  case: SoakCase;
  message: string;
  again: string;
}

function readOptions(args: string[]): Options | null {
  const { values } = parseArgs({
    args,
    options: {
      count: { type: "string", default: "200" },
      seed: { type: "string", default: String(crypto.getRandomValues(new Uint32Array(1))[0]) },
      from: { type: "string", default: "0" },
      out: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  const number = (name: "count" | "seed" | "from") => {
    const value = Number(values[name]);
    if (Number.isSafeInteger(value) && value >= 0) return value;
    throw new RangeError(`Cannot use --${name} ${values[name]}: not a number`);
  };
  return {
    count: number("count"),
    seed: number("seed"),
    from: number("from"),
    out: values.out,
    json: values.json,
  };
}

async function runAll(options: Options): Promise<{ results: SoakResult[]; failures: Failure[] }> {
  const { seed, from, count } = options;
  const results: SoakResult[] = [];
  const failures: Failure[] = [];
  for (let index = from; index < from + count; index++) {
    const one = makeCase(seed, index);
    try {
      const result = await runCase(one);
      results.push(result);
      if (!options.json) console.log(resultLine(one, result));
    } catch (error) {
      const again = `deno task soak --seed ${seed} --from ${index} --count 1`;
      const message = error instanceof Error ? error.message : String(error);
      failures.push({ case: one, message, again });
      console.error(`FAILED ${index} ${one.fault}: ${message}\n  again: ${again}`);
    }
  }
  return { results, failures };
}

function resultLine(one: SoakCase, result: SoakResult): string {
  const { outcomes, recovered, holder, rounds, reconnects, mistakes, durationMs } = result;
  return `${String(one.index).padStart(4)}  ${one.fault.padEnd(30)}${one.memoryMiB} MiB, ` +
    `${outcomes.join("/")}${recovered ? ", recovered" : ""}: at the ${holder}, ${rounds} rounds, ` +
    `${reconnects} reconnects, ${mistakes.detected} damaged, ${durationMs.toFixed(0)} ms`;
}

/** What came of each fault. */
function table(results: readonly SoakResult[]) {
  const row = (fault: SoakFault) => {
    const cases = results.filter((result) => result.fault === fault);
    const count = (test: (result: SoakResult) => boolean) => cases.filter(test).length;
    const sum = (value: (result: SoakResult) => number) =>
      cases.reduce((total, result) => total + value(result), 0);
    return {
      fault,
      cases: cases.length,
      atDestination: count(({ holder }) => holder === "destination"),
      atSource: count(({ holder }) => holder === "source"),
      completed: count(({ outcomes }) => outcomes[0] === "completed"),
      tampered: count(({ outcomes }) => outcomes[0] === "tampered"),
      settledByRecover: count(({ recovered }) => recovered),
      reconnects: sum(({ reconnects }) => reconnects),
      damagedRecords: sum(({ mistakes }) => mistakes.detected),
      pagesSentAgain: sum(({ mistakes }) => mistakes.repaired),
    };
  };
  return soakFaults.map(row).filter(({ cases }) => cases > 0);
}

async function main(): Promise<number> {
  const options = readOptions(Deno.args);
  if (options === null) {
    console.error(USAGE);
    return 0;
  }
  const why = Kvm.whyUnavailable();
  if (why !== null) {
    console.error(`error: ${why}`);
    return 1;
  }
  const startedAtMs = performance.now();
  console.error(`seed ${options.seed}`);
  const { results, failures } = await runAll(options);
  const moved = results.filter(({ holder }) => holder === "destination");
  const downtimes = moved.flatMap(({ downtimeMs }) => downtimeMs === null ? [] : [downtimeMs]);
  const report = {
    command:
      `deno task soak --count ${options.count} --seed ${options.seed} --from ${options.from}`,
    date: new Date().toISOString(),
    machine: await describeMachine(),
    seconds: Math.round((performance.now() - startedAtMs) / 1000),
    migrations: results.length + failures.length,
    /** Whole memories found equal before the copy ran. */
    memoriesEqual: results.reduce((sum, { compared }) => sum + compared, 0),
    guestMiB: Math.round(results.reduce((sum, { guestBytes }) => sum + guestBytes, 0) / 2 ** 20),
    downtimeMs: downtimes.length === 0 ? null : summarize(downtimes),
    faults: table(results),
    failures,
  };
  if (options.out !== undefined) {
    await Deno.writeTextFile(options.out, `${JSON.stringify(report, null, 1)}\n`);
  }
  if (options.json) console.log(JSON.stringify(report));
  else {
    console.log(
      `${results.length} of ${report.migrations} migrations hold: none lost, none twice, ${report.memoriesEqual} memories equal`,
    );
  }
  return failures.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
