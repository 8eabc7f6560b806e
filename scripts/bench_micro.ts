/**
 * How fast a micro-VM moves: `deno task bench:micro`.
 *
 * Whole migrations of a running VM whose every page has to be sent, by suite, against a plain memcpy of the same pages; and the
 * parts that they are made of. There is no migration in clear to compare with: every suite that there is seals. Runs are interleaved;
 * best and median are told, since others may use the machine.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { sealedSuiteIds } from "../ciphers/sealed.ts";
import { Kvm } from "../kvm/kvm.ts";
import { MicroVm } from "../kvm/micro/micro_vm.ts";
import { describeMachine } from "./bench/machine.ts";
import { MicroPair, type MigrationRun } from "./bench/micro_migrations.ts";
import {
  copyPlain,
  handOut,
  handOutAndSeal,
  landRecords,
  scanDirtyLog,
} from "./bench/micro_stages.ts";
import type { StageRun } from "./bench/profile_clock.ts";
import { openRecords, readTcp } from "./bench/profile_destination.ts";
import { waitForQuiet } from "./bench/quiet.ts";
import { summarize } from "./bench/statistics.ts";

const USAGE = `deno task bench:micro [options]
  --runs N        runs that count, after one that does not (5)
  --memory-mib N  size of the VM (1024)
  --out FILE      also write all figures there, as JSON
  --json          print JSON instead of the table`;

const MIB = 2 ** 20;
/** Enough to be live, too little for the guest to take a core from the two ends. */
const DIRTY_PAGES_PER_SECOND = 1_000;

interface Options {
  runs: number;
  memoryMiB: number;
  out: string | undefined;
  json: boolean;
}

function readOptions(args: string[]): Options | null {
  const { values } = parseArgs({
    args,
    options: {
      runs: { type: "string", default: "5" },
      "memory-mib": { type: "string", default: "1024" },
      out: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return null;
  const number = (text: string) => {
    const value = Number(text);
    if (Number.isSafeInteger(value) && value > 0) return value;
    throw new RangeError(`Cannot use ${text}: not a number from 1 on`);
  };
  return {
    runs: number(values.runs),
    memoryMiB: number(values["memory-mib"]),
    out: values.out,
    json: values.json,
  };
}

type Run = Pick<StageRun, "bytes" | "seconds"> & Partial<Pick<StageRun, "cpuSeconds">>;

/** What the parts work with. */
interface Bench {
  /** Runs, and writes a little. */
  vm: MicroVm;
  pair: MicroPair;
  /** Touched memory that nobody runs in. */
  idle: MicroVm;
  /** Stands, and writes to all of its memory as fast as it can when it runs. */
  busy: MicroVm;
}

/** Everything once, in order. */
function parts({ vm, pair, idle, busy }: Bench): Record<string, () => Promise<Run>> {
  const stopped = (stage: () => Promise<Run>) => async () => {
    vm.stop();
    const run = await stage();
    vm.stopDirtyLog();
    vm.start();
    return run;
  };
  const migrations = Object.fromEntries(
    sealedSuiteIds.map((suite) => [`migration, ${suite}`, () => pair.migrate(suite)]),
  );
  return {
    "memcpy of the same pages": stopped(() => copyPlain(vm, idle.memory)),
    ...migrations,
    "dirty log: read and count, few dirty": () => scanDirtyLog(vm, { clear: false }),
    "dirty log: read, count and clear, all dirty": async () => {
      await dirtyAll(busy);
      return await scanDirtyLog(busy, { clear: true });
    },
    "source: hand out": stopped(() => handOut(vm)),
    "source: hand out and seal, aes-256-gcm": stopped(() => handOutAndSeal(vm)),
    "destination: read TCP, peer writes 1 MiB": () =>
      readTcp({ bytes: vm.memory.length, chunkBytes: MIB }),
    "destination: open, aes-256-gcm": () => openRecords({ bytes: vm.memory.length }),
    "destination: land": () => landRecords(idle),
  };
}

/** Lets the guest run until nearly all of its pages are in the dirty log. */
async function dirtyAll(vm: MicroVm): Promise<void> {
  const logs = vm.startDirtyLog();
  for (let dirty = 0; dirty < 0.9 * vm.memory.length / 4096;) {
    vm.start();
    await new Promise((resolve) => setTimeout(resolve, 100));
    vm.stop();
    dirty = 0;
    for (const { log } of logs) {
      log.read();
      dirty += log.count();
    }
  }
}

/** Best and median of a part, in bytes a second. */
interface Figures {
  part: string;
  gigabytesPerSecond: { best: number; median: number };
  /** The median against that of memcpy in the same rounds. */
  ofMemcpy: number;
  /** Of this process, all its threads; null for what also has a process beside it. */
  cpuSecondsPerGigabyte: number | null;
  downtimeMs: { best: number; median: number } | null;
}

function figures(runs: Map<string, (Run & Partial<MigrationRun>)[]>): Figures[] {
  const rate = ({ bytes, seconds }: Run) => bytes / 1e9 / seconds;
  const copy = runs.get("memcpy of the same pages")!.map(rate);
  return Array.from(runs, ([part, all]) => {
    const rates = summarize(all.map(rate));
    const downtimes = all.flatMap(({ downtimeMs }) => downtimeMs == null ? [] : [downtimeMs]);
    const downtime = downtimes.length === 0 ? null : summarize(downtimes);
    return {
      part,
      gigabytesPerSecond: { best: rates.max, median: rates.median },
      cpuSecondsPerGigabyte: all.some(({ cpuSeconds }) => cpuSeconds === undefined)
        ? null
        : summarize(all.map(({ bytes, cpuSeconds }) => cpuSeconds! / (bytes / 1e9))).median,
      ofMemcpy: summarize(all.map((run, i) => rate(run) / copy[i]!)).median,
      downtimeMs: downtime === null ? null : { best: downtime.min, median: downtime.median },
    };
  });
}

function format(all: readonly Figures[]): string[] {
  return [
    "| part | GB/s, median | best | of memcpy | CPU s per GB | downtime ms, median | best |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ...all.map(({ part, gigabytesPerSecond, ofMemcpy, cpuSecondsPerGigabyte: cpu, downtimeMs }) =>
      `| ${part} | ${gigabytesPerSecond.median.toFixed(2)} | ${
        gigabytesPerSecond.best.toFixed(2)
      } | ${ofMemcpy.toFixed(2)} | ${cpu?.toFixed(2) ?? ""} | ${
        downtimeMs?.median.toFixed(0) ?? ""
      } | ${downtimeMs?.best.toFixed(0) ?? ""} |`
    ),
  ];
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
  const memoryBytes = options.memoryMiB * MIB;
  using vm = await MicroVm.create({ memoryBytes });
  using idle = await MicroVm.create({ memoryBytes });
  using busy = await MicroVm.create({ memoryBytes });
  vm.boot({ dirtyPagesPerSecond: DIRTY_PAGES_PER_SECOND });
  vm.start();
  busy.boot();
  idle.memory.fill(1);
  await vm.untilBeats(2);
  using pair = await MicroPair.start(vm);
  const all = parts({ vm, pair, idle, busy });
  const runs = new Map<string, Run[]>(Object.keys(all).map((part) => [part, []]));
  // Round 0 compiles and is not counted.
  for (let round = 0; round <= options.runs; round++) {
    for (const [part, run] of Object.entries(all)) {
      await waitForQuiet();
      const one = await run();
      console.error(`round ${round}  ${part}: ${(one.bytes / 1e9 / one.seconds).toFixed(2)} GB/s`);
      if (round > 0) runs.get(part)!.push(one);
    }
  }
  const report = {
    command: ["deno task bench:micro", ...Deno.args].join(" "),
    date: new Date().toISOString(),
    machine: await describeMachine(),
    memoryMiB: options.memoryMiB,
    runs: options.runs,
    figures: figures(runs),
  };
  if (options.out !== undefined) {
    await Deno.writeTextFile(options.out, `${JSON.stringify(report, null, 1)}\n`);
  }
  console.log(options.json ? JSON.stringify(report) : format(report.figures).join("\n"));
  return 0;
}

if (import.meta.main) Deno.exit(await main());
