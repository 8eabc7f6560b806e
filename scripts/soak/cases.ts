/**
 * What the soak tries: micro-VMs of all sizes and paces, and what goes wrong on their way. A case is a function of the seed
 * and its number alone; the threads' timing is not.
 *
 * @module
 */

import { type SealedSuiteId, sealedSuiteIds } from "../../ciphers/sealed.ts";
import { Random } from "../../tests/support/random.ts";

/** What goes wrong: on the wire, by the operator, on a disk, or several of them. */
export const soakFaults = [
  "none",
  "damage",
  "damage to everything",
  "cuts",
  "damage and cuts",
  "Ctrl-C at the source",
  "Ctrl-C at the destination",
  "full disk at the source",
  "full disk at the destination",
] as const;
/** One of {@linkcode soakFaults}. */
export type SoakFault = typeof soakFaults[number];

/** When somebody presses Ctrl-C: at a state of either machine, or so long after pages began to flow. */
export const interruptStates = [
  "offering",
  "starting",
  "setup",
  "copying",
  "stopping",
  "finishing",
  "releasing",
  "released",
  "receiving",
  "loading",
  "loaded",
  "taking",
] as const;

/** One case. */
export interface SoakCase {
  index: number;
  memoryMiB: number;
  vcpus: number;
  /** Undefined: as many as it can, to a small working set. */
  dirtyPagesPerSecond: number | undefined;
  workingSetBytes: number;
  beatMs: number;
  /** Whether it runs when its migration starts. */
  running: boolean;
  suite: SealedSuiteId;
  downtimeLimitMs: number;
  fault: SoakFault;
  /** One frame in so many is damaged, or cut. */
  everyFrames: number;
  /** At most so many cuts. */
  cuts: number;
  interruptAt: { state: typeof interruptStates[number] } | { afterMs: number };
  /** Journal lines that are written before the disk is full. */
  diskLines: number;
  /** The disk is full for one line only. */
  diskHeals: boolean;
  /** Of what the wire does. */
  wireSeed: number;
}

const MIB = 2 ** 20;

/** Case `index` of the soak with that seed. */
export function makeCase(seed: number, index: number): SoakCase {
  const random = new Random(Math.imul(seed, 0x9e3779b1) + Math.imul(index + 1, 0x85ebca6b));
  random.below(2);
  const memoryMiB = 2 * (2 + random.below(random.oneIn(8) ? 47 : 15));
  const vcpus = random.oneIn(3) ? 2 : 1;
  const available = (memoryMiB - 2) * MIB;
  const limited = !random.oneIn(4);
  return {
    index,
    memoryMiB,
    vcpus,
    dirtyPagesPerSecond: limited ? Math.round(100 * 2 ** (random.below(700) / 100)) : undefined,
    workingSetBytes: limited
      ? available
      : Math.min(available, 4096 * vcpus * (8 + random.below(128))),
    beatMs: 1 + random.below(8),
    running: !random.oneIn(12),
    suite: sealedSuiteIds[random.below(sealedSuiteIds.length)]!,
    downtimeLimitMs: 2 + random.below(50),
    // Every fault as often as any other, whatever the seed.
    fault: soakFaults[index % soakFaults.length]!,
    everyFrames: 8 + random.below(60),
    cuts: 1 + random.below(4),
    interruptAt: random.oneIn(3)
      ? { afterMs: random.below(120) }
      : { state: interruptStates[random.below(interruptStates.length)]! },
    diskLines: random.below(4),
    diskHeals: random.oneIn(2),
    wireSeed: random.below(2 ** 31),
  };
}
