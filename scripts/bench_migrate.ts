/**
 * Whole migrations against QEMU's own plaintext and TLS: `deno task bench:migrate`.
 *
 * One VM with random memory is migrated over loopback by every competitor in turn, round after round, each time into a
 * new destination; ratios are taken within a round. `--profile` measures the stages of Sealift's data path instead.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { BenchVm, type MemoryState, memoryStates, writeIdleGuest } from "./bench/bench_vm.ts";
import { compare, disturbance, formatComparison, formatNoise, judge } from "./bench/comparison.ts";
import {
  type Competitor,
  competitors,
  migrateOnce,
  type Sample,
  suits,
} from "./bench/competitors.ts";
import { describeMachine } from "./bench/machine.ts";
import { formatProfile, measureProfile } from "./bench/profile.ts";
import { waitForQuiet } from "./bench/quiet.ts";
import { summarize } from "./bench/statistics.ts";
import { makeTlsCredentials } from "./bench/tls_credentials.ts";

const USAGE = `deno task bench:migrate [options]
  --runs N            rounds that count, after one that does not (5)
  --memory LIST       ${Object.keys(memoryStates).join(",")} (fresh,prealloc)
  --competitors LIST  ${competitors.join(",")} (all)
  --memory-mib N      size of the VM (768)
  --random-mib N      random memory in it (600)
  --out FILE          also write all figures there, as JSON
  --profile           measure the stages of the data path one by one instead
  --json              print JSON instead of the table`;

/** A sample during which others used more of the machine than this is taken once more; the quieter one counts. */
const MAX_DISTURBANCE = 0.25;
const MAX_ATTEMPTS = 2;

interface Options {
  runs: number;
  memory: MemoryState[];
  competitors: Competitor[];
  memoryMiB: number;
  randomMiB: number;
  out: string | undefined;
  profile: boolean;
  json: boolean;
}

function readOptions(args: string[]): Options | null {
  const { values } = parseArgs({
    args,
    options: {
      runs: { type: "string", default: "5" },
      memory: { type: "string", default: "fresh,prealloc" },
      competitors: { type: "string", default: competitors.join(",") },
      "memory-mib": { type: "string", default: "768" },
      "random-mib": { type: "string", default: "600" },
      out: { type: "string" },
      profile: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  return {
    runs: count(values.runs, "--runs"),
    memory: names(values.memory, Object.keys(memoryStates) as MemoryState[]),
    competitors: names(values.competitors, competitors),
    memoryMiB: count(values["memory-mib"], "--memory-mib"),
    randomMiB: count(values["random-mib"], "--random-mib"),
    out: values.out,
    profile: values.profile,
    json: values.json,
  };
}

function count(text: string, option: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new RangeError(`Cannot use ${option} ${text}: not a number from 1 on`);
  }
  return value;
}

function names<T extends string>(text: string, known: readonly T[]): T[] {
  return text.split(",").map((name) => {
    const found = known.find((one) => one === name);
    if (found === undefined) throw new RangeError(`Cannot measure ${name}: unknown`);
    return found;
  });
}

/** Everything that is measured, in order; `directory` is removed afterwards. */
async function measure(options: Options, directory: string): Promise<Sample[]> {
  const tlsDirectory = `${directory}/tls`;
  await Deno.mkdir(tlsDirectory, { mode: 0o700 });
  await makeTlsCredentials(tlsDirectory);
  const guest = await writeIdleGuest(directory);
  await using source = await BenchVm.start(options, { guest, directory });
  await source.process.waitForLine(0, "HB 1", 60_000);
  source.fillRandom(options);
  const shared = { options, source, guest, directory, tlsDirectory };
  const samples: Sample[] = [];
  // Round 0 fills caches and is not counted.
  for (let round = 0; round <= options.runs; round++) {
    for (const memory of options.memory) {
      for (const competitor of rotated(options.competitors, round)) {
        if (!suits(competitor, memory)) continue;
        const taken: Sample[] = [];
        const attempts = round === 0 ? 1 : MAX_ATTEMPTS;
        do {
          const sample = await sampleOnce({ round, memory, competitor }, shared);
          console.error(progressLine(sample));
          taken.push(sample);
        } while (disturbance(taken.at(-1)!) > MAX_DISTURBANCE && taken.length < attempts);
        const [sample] = taken.toSorted((a, b) => disturbance(a) - disturbance(b));
        if (round > 0) samples.push(sample!);
      }
    }
  }
  return samples;
}

/** What all samples share. */
interface Shared {
  options: Options;
  source: BenchVm;
  guest: string;
  directory: string;
  tlsDirectory: string;
}

async function sampleOnce(
  which: Pick<Sample, "round" | "memory" | "competitor">,
  { options, source, guest, directory, tlsDirectory }: Shared,
): Promise<Sample> {
  const settings = { guest, directory, destination: which.memory };
  await using destination = await BenchVm.start(options, settings);
  const stateDirectory = await Deno.makeTempDir({ dir: directory });
  await waitForQuiet();
  const context = { source, destination, tlsDirectory, stateDirectory };
  const sample = { ...which, ...await migrateOnce(which.competitor, context) };
  source.assertSameMemory(destination, options);
  await source.qmp.execute("cont");
  await source.reaches("running");
  return sample;
}

/** Nobody always comes first. */
function rotated<T>(list: readonly T[], by: number): T[] {
  const from = by % list.length;
  return [...list.slice(from), ...list.slice(0, from)];
}

function progressLine(
  { round, memory, competitor, seconds, downtimeMs, cpuSeconds, othersCpuSeconds }: Sample,
) {
  return `round ${round}  ${memory.padEnd(16)}${competitor.padEnd(10)}${seconds.toFixed(2)} s  ` +
    `down ${downtimeMs.toFixed(1)} ms  CPU ${cpuSeconds.total.toFixed(2)} s  others ${
      othersCpuSeconds.toFixed(2)
    } s`;
}

async function main(): Promise<number> {
  const options = readOptions(Deno.args);
  if (options === null) {
    console.error(USAGE);
    return 0;
  }
  const directory = await Deno.makeTempDir({ prefix: "sealift-bench-" });
  // Exiting by itself, a process takes its QEMUs with it; a signal would leave them.
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      Deno.removeSync(directory, { recursive: true });
      Deno.exit(130);
    });
  }
  try {
    const head = {
      command: ["deno task bench:migrate", ...Deno.args].join(" "),
      date: new Date().toISOString(),
      machine: await describeMachine(),
      vm: { memoryMiB: options.memoryMiB, randomMiB: options.randomMiB },
    };
    if (options.profile) {
      const stages = await measureProfile(options, directory);
      if (options.json) console.log(JSON.stringify({ ...head, stages }));
      else console.log(formatProfile(stages).join("\n"));
      return 0;
    }
    const samples = await measure(options, directory);
    const cells = compare(samples);
    const targets = judge(cells);
    const noise = summarize(samples.map(disturbance));
    const report = { ...head, runs: options.runs, noise, cells, targets, samples };
    if (options.out !== undefined) {
      await Deno.writeTextFile(options.out, `${JSON.stringify(report, null, 1)}\n`);
    }
    console.log(
      options.json
        ? JSON.stringify(report)
        : [...formatComparison(cells, targets), formatNoise(noise)].join("\n"),
    );
    return targets.every(({ passed }) => passed) ? 0 : 1;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

if (import.meta.main) Deno.exit(await main());
