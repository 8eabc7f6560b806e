/**
 * The stages of the data path, each alone; those of the source also added up one after the other.
 *
 * @module
 */

import { BenchVm, type VmSizes, writeIdleGuest } from "./bench_vm.ts";
import type { StageRun } from "./profile_clock.ts";
import { landRecords, openRecords, readTcp } from "./profile_destination.ts";
import { readStream, sealStream, sendStream } from "./profile_source.ts";
import { waitForQuiet } from "./quiet.ts";
import { median, summarize, type Summary } from "./statistics.ts";

const KIB = 1024;
const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** One stage over all runs. */
export interface StageFigures {
  stage: string;
  mibPerSecond: Summary;
  /** Of the measuring process: user and kernel. */
  cpuSecondsPerGiB: Summary;
  /** Mean size of what one call moved: a read, a record, or for TCP at the source a write. */
  callKiB: number | null;
}

const landings = [
  ["mapped", "fresh"],
  ["mapped", "prealloc"],
  ["process", "fresh"],
  ["process", "prealloc"],
  ["process", "private-fresh"],
  ["process", "private-prealloc"],
] as const;

/** Measures every stage `runs` times, interleaved; `directory` is for sockets and files. */
export async function measureProfile(
  options: VmSizes & { runs: number },
  directory: string,
): Promise<StageFigures[]> {
  const guest = await writeIdleGuest(directory);
  await using source = await BenchVm.start(options, { guest, directory });
  await source.process.waitForLine(0, "HB 1", 60_000);
  source.fillRandom(options);
  const bytes = options.randomMiB * MIB;
  const stages: Record<string, () => Promise<StageRun>> = {
    "source: read QEMU's socket, 256 KiB buffer": () =>
      readStream(source, { bytes, bufferBytes: 256 * KIB, directory }),
    "source: read QEMU's socket, 1 MiB buffer": () =>
      readStream(source, { bytes, bufferBytes: MIB, directory }),
    "source: read, parse": () =>
      readStream(source, { bytes, bufferBytes: MIB, directory, parse: true }),
    "source: read, parse, seal": () => sealStream(source, { bytes, directory }),
    "source: read, parse, seal, TCP": () => sendStream(source, { bytes, directory }),
    "destination: read TCP, peer writes 256 KiB": () => readTcp({ bytes, chunkBytes: 256 * KIB }),
    "destination: read TCP, peer writes 1 MiB": () => readTcp({ bytes, chunkBytes: MIB }),
    "destination: open": () => openRecords({ bytes }),
  };
  for (const [land, memory] of landings) {
    stages[`destination: land by ${land}, ${memory}`] = async () => {
      await using vm = await BenchVm.start(options, { guest, directory, destination: memory });
      return await landRecords(vm, { land, bytes });
    };
  }
  const runs = new Map<string, StageRun[]>(Object.keys(stages).map((stage) => [stage, []]));
  // Round 0 compiles and is not counted.
  for (let round = 0; round <= options.runs; round++) {
    for (const [stage, run] of Object.entries(stages)) {
      await waitForQuiet();
      const one = await run();
      console.error(
        `round ${round}  ${stage}: ${(one.bytes / MIB / one.seconds).toFixed(0)} MiB/s`,
      );
      if (round > 0) runs.get(stage)!.push(one);
    }
  }
  return Array.from(runs, ([stage, all]) => figures(stage, all));
}

function figures(stage: string, runs: readonly StageRun[]): StageFigures {
  const sizes = runs.flatMap(({ bytes, calls }) => calls === null ? [] : [bytes / calls / KIB]);
  return {
    stage,
    mibPerSecond: summarize(runs.map(({ bytes, seconds }) => bytes / MIB / seconds)),
    cpuSecondsPerGiB: summarize(runs.map(({ bytes, cpuSeconds }) => cpuSeconds / (bytes / GIB))),
    callKiB: sizes.length === 0 ? null : median(sizes),
  };
}

/** A table in Markdown. */
export function formatProfile(stages: readonly StageFigures[]): string[] {
  return [
    "| stage | MiB/s | (min to max) | CPU s per GiB | KiB per call |",
    "| --- | ---: | ---: | ---: | ---: |",
    ...stages.map(({ stage, mibPerSecond, cpuSecondsPerGiB, callKiB }) =>
      `| ${stage} | ${mibPerSecond.median.toFixed(0)} | ` +
      `${mibPerSecond.min.toFixed(0)} to ${mibPerSecond.max.toFixed(0)} | ` +
      `${cpuSecondsPerGiB.median.toFixed(2)} | ${callKiB?.toFixed(0) ?? ""} |`
    ),
  ];
}
