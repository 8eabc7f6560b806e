/**
 * The fast fault campaign: `deno task faults:simulated`.
 *
 * Both agents, as they are, move a simulated VM; agents and QEMUs are killed, the network damages, cuts and delays, disks
 * are full and people press Ctrl-C, all of it drawn from a seed. Then `recover` is run where an exit code asks for it, and
 * exactly one copy of the VM has to be left. The seed of a case makes it happen again: `--seed SEED --count 1`.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { makeCase, runCase } from "../tests/support/simulated_case.ts";
import { describeMachine } from "./bench/machine.ts";

const USAGE = `deno task faults:simulated [options]
  --count N   how many cases (20000)
  --seed S    seed of the first; each next one is one more (1)
  --jobs N    processes (one a processor)
  --out FILE  writes the result there as well, with command, date and machine`;

const TELL_EVERY_MS = 10_000;

/** In one process: waiting for one leaves time for the others. */
const CASES_AT_ONCE = 8;

/** What all cases came to. */
interface Campaign {
  seed: number;
  cases: number;
  /** How many ended how: both agents, then where the VM was. */
  ends: Record<string, number>;
  /** Cases after which `recover` was run. */
  recovered: number;
  /** Connections after the first, and damaged records, over all cases. */
  reconnects: number;
  mistakes: number;
  failures: { seed: number; why: string }[];
}

/** Runs the cases in this process. */
async function runHere({ seed, count }: { seed: number; count: number }): Promise<Campaign> {
  const campaign: Campaign = {
    seed,
    cases: 0,
    ends: {},
    recovered: 0,
    reconnects: 0,
    mistakes: 0,
    failures: [],
  };
  let next = seed;
  let toldAtMs = performance.now();
  const work = async () => {
    while (next < seed + count) {
      await runOne(campaign, next++);
      if (performance.now() - toldAtMs < TELL_EVERY_MS) continue;
      toldAtMs = performance.now();
      console.error(`${campaign.cases} cases, ${campaign.failures.length} failed`);
    }
  };
  await Promise.all(Array.from({ length: CASES_AT_ONCE }, work));
  return campaign;
}

/** Runs an equal part in each of `jobs` processes. */
async function runCampaign(
  { seed, count, jobs }: { seed: number; count: number; jobs: number },
): Promise<Campaign> {
  const bounds = Array.from({ length: jobs + 1 }, (_, i) => seed + Math.floor(i * count / jobs));
  const parts = await Promise.all(
    bounds.slice(1).map((end, i) => runElsewhere({ seed: bounds[i]!, count: end - bounds[i]! })),
  );
  return parts.reduce((sum, part) => ({
    seed,
    cases: sum.cases + part.cases,
    ends: addCounts(sum.ends, part.ends),
    recovered: sum.recovered + part.recovered,
    reconnects: sum.reconnects + part.reconnects,
    mistakes: sum.mistakes + part.mistakes,
    failures: [...sum.failures, ...part.failures],
  }));
}

/** Runs the cases in a process of their own, which says what came of them as JSON. */
async function runElsewhere({ seed, count }: { seed: number; count: number }): Promise<Campaign> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--no-prompt", import.meta.filename!],
      ...["--seed", String(seed), "--count", String(count), "--part"],
    ],
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`Cannot run the cases from ${seed} on: their process failed`);
  return JSON.parse(new TextDecoder().decode(stdout)) as Campaign;
}

function addCounts(a: Record<string, number>, b: Record<string, number>): Record<string, number> {
  const sum = { ...a };
  for (const [key, count] of Object.entries(b)) sum[key] = (sum[key] ?? 0) + count;
  return sum;
}

async function runOne(campaign: Campaign, seed: number): Promise<void> {
  try {
    const { source, destination, vm, ...counts } = await runCase(makeCase(seed));
    const end = `send ${source}, receive ${destination}: ${vm}`;
    campaign.ends[end] = (campaign.ends[end] ?? 0) + 1;
    if (counts.recovered) campaign.recovered++;
    campaign.reconnects += counts.reconnects;
    campaign.mistakes += counts.mistakes;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    console.error(`FAIL seed ${seed}: ${why}\nagain: --seed ${seed} --count 1`);
    campaign.failures.push({ seed, why: why.split("\n")[0]! });
  }
  campaign.cases++;
}

interface Options {
  seed: number;
  count: number;
  jobs: number;
  out: string;
  /** This process is one of several. */
  part: boolean;
}

function readOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      seed: { type: "string", default: "1" },
      count: { type: "string", default: "20000" },
      jobs: { type: "string", default: String(navigator.hardwareConcurrency) },
      out: { type: "string", default: "" },
      part: { type: "boolean", default: false },
    },
  });
  const number = (name: "seed" | "count" | "jobs") => {
    const value = Number(values[name]);
    if (Number.isSafeInteger(value) && value >= 1) return value;
    throw new RangeError(`Cannot use --${name} ${values[name]}: not a number above 0\n${USAGE}`);
  };
  const [seed, count] = [number("seed"), number("count")];
  const { out, part } = values;
  return { seed, count, jobs: Math.min(number("jobs"), count), out, part };
}

async function main(): Promise<number> {
  const options = readOptions(Deno.args);
  if (options.part) {
    console.log(JSON.stringify(await runHere(options)));
    return 0;
  }
  const startedAtMs = performance.now();
  const campaign = await runCampaign(options);
  const seconds = (performance.now() - startedAtMs) / 1000;
  const byCount = Object.entries(campaign.ends).sort(([, a], [, b]) => b - a);
  const result = {
    command: `deno task faults:simulated --count ${options.count} --seed ${options.seed}`,
    date: new Date().toISOString(),
    machine: await describeMachine(),
    seconds: Math.round(seconds * 10) / 10,
    casesPerSecond: Math.round(campaign.cases / seconds * 10) / 10,
    ...campaign,
    ends: Object.fromEntries(byCount),
  };
  const text = `${JSON.stringify(result, null, 2)}\n`;
  console.log(text);
  if (options.out !== "") await Deno.writeTextFile(options.out, text);
  return campaign.failures.length === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
