/**
 * What the fault campaign tries: every fault at every step of both state machines, then random moments. A
 * case is a function of the seed and its number alone.
 *
 * @module
 */

import { Random } from "../../tests/support/random.ts";

/** What happens: to one of the four processes, to both of a host, or to the wire. */
export const faults = [
  "kill send",
  "kill receive",
  "kill source",
  "kill destination",
  "crash source",
  "crash destination",
  "stop send",
  "stop receive",
  "stop source",
  "stop destination",
  "cut",
  "down",
  "stall",
  "sever",
  "flip",
] as const;
/**
 * One of {@linkcode faults}. `kill` and `crash` are SIGKILL: of one process, where `source` and `destination` are the
 * QEMUs, or of a host's agent and QEMU; `stop` is SIGSTOP, and SIGCONT 3 s later.
 */
export type Fault = typeof faults[number];

/** How long a stopped process stands, in milliseconds. */
export const STOP_MS = 3_000;

/** How a migration is brought to a step that a good one does not come to. */
export type Lead =
  /** `--max-time` runs out while the VM is copied. */
  | "timeout"
  /** The destination's QEMU dies once it is loaded. */
  | "refuse"
  /** The destination's QEMU does not take `cont` for a while. */
  | "stuck";

/** A state of one of the machines: an agent stands there while the fault happens. */
export interface Step {
  side: "send" | "receive";
  state: string;
  lead?: Lead;
}

const sourceStates = [
  "offering",
  "starting",
  "setup",
  "copying",
  "stopping",
  "finishing",
  "releasing",
  "released",
  "done",
] as const;
const destinationStates = ["receiving", "loading", "loaded", "taking", "running"] as const;

/** Every step, those on the way out last. */
export const steps: readonly Step[] = [
  ...sourceStates.map((state) => ({ side: "send", state } as const)),
  ...destinationStates.map((state) => ({ side: "receive", state } as const)),
  { side: "send", state: "aborting", lead: "timeout" },
  { side: "receive", state: "discarding", lead: "timeout" },
  { side: "receive", state: "refusing", lead: "refuse" },
  { side: "receive", state: "stuck", lead: "stuck" },
  { side: "send", state: "discarding", lead: "stuck" },
  { side: "send", state: "returning", lead: "stuck" },
];

/** One case. */
export interface FaultCase {
  index: number;
  fault: Fault;
  /** Null: at a random moment. */
  step: Step | null;
  /** That moment, in milliseconds after `send` was started; 0 at a step. */
  atMs: number;
  /** How long after the fault an agent that is held goes on, in milliseconds. */
  goAfterMs: number;
  /** `recover` comes while `receive` still waits, and not when it has given up. */
  early: boolean;
  /** When two `recover` meet: the source's listens. */
  sourceListens: boolean;
  /** Further arguments of `send`. */
  args: string[];
}

/** A case's number in the results, readable. */
export function stepName(step: Step | null): string {
  return step === null ? "random moment" : `${step.side} ${step.state}`;
}

/** The faults that can hit at a step: a process that is gone already cannot die. */
function suits(fault: Fault, step: Step): boolean {
  return step.lead !== "refuse" || !fault.endsWith("destination");
}

/** Case `index` of the campaign with that seed. */
export function makeCase(seed: number, index: number): FaultCase {
  const grid = steps.flatMap((step) =>
    faults.filter((fault) => suits(fault, step)).map((fault) => ({ fault, step }))
  );
  const order = shuffled(grid, new Random(seed));
  const random = new Random(Math.imul(seed, 0x9e3779b1) + Math.imul(index + 1, 0x85ebca6b));
  random.below(2);
  // The first cases go through the grid, half of the rest once more.
  const atStep = index < order.length || random.oneIn(3);
  const cell = order[index < order.length ? index : random.below(order.length)]!;
  const fault = atStep ? cell.fault : faults[random.below(faults.length)]!;
  const step = atStep ? cell.step : null;
  const patient = fault.startsWith("stop") || (fault === "down" || fault === "stall");
  const short = !patient || random.oneIn(4);
  const args = [
    ...["--reconnect", short ? "1500ms" : "15s"],
    ...["--max-stop", short ? "5s" : "15s"],
    // Some 60 MiB pass.
    ...(step?.lead === "timeout"
      ? ["--max-time", "2s", "--max-bandwidth", "16MiB/s"]
      : random.oneIn(2)
      ? ["--max-bandwidth", "48MiB/s"]
      : []),
    ...(random.oneIn(5) ? ["--keep-source"] : []),
  ];
  return {
    index,
    fault,
    step,
    // The agent's start takes half a second, the migration one or two.
    atMs: step === null ? random.below(3_000) : 0,
    goAfterMs: [0, 0, 50, 500, 2_500][random.below(5)]!,
    early: random.oneIn(2),
    sourceListens: random.oneIn(2),
    args,
  };
}

/** How many cases go once through every fault at every step. */
export function gridSize(): number {
  return steps.flatMap((step) => faults.filter((fault) => suits(fault, step))).length;
}

function shuffled<T>(list: readonly T[], random: Random): T[] {
  const copy = [...list];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [copy[i], copy[j]] = [copy[j]!, copy[i]!];
  }
  return copy;
}
