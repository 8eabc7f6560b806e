/**
 * The operator of the campaign: runs `recover` where an exit code asks for it, and gives his word only where it is true.
 *
 * @module
 */

import type { AgentProcess } from "../../cli/demo/agent_process.ts";
import { delay } from "../../tests/support/qemu.ts";
import type { FaultCase } from "./cases.ts";
import type { CaseResult, World } from "./run_case.ts";

/** Several tries are rare: what one finds out, the next one acts on. */
const MAX_ATTEMPTS = 4;
const HANG_MS = 90_000;

/** One try: who ran, and with what. */
export interface Recovered {
  /** `source`, `destination` or `both`. */
  where: string;
  declared: boolean;
  codes: (number | null)[];
}

interface Run {
  side: "source" | "destination";
  agent: AgentProcess;
}

/** Recovers until every `recover` ends with 0, or nothing more can be sworn. */
export async function recoverBoth(
  fault: FaultCase,
  { world, codes }: { world: World; codes: CaseResult["codes"] },
): Promise<Recovered[]> {
  const { hosts, killed } = world;
  const needs = codes.send === null || codes.send === 5 || killed.receive || codes.receive === 5;
  const id = hosts.lastId("source") ?? hosts.lastId("destination");
  const tries: Recovered[] = [];
  if (!needs || id === null) return tries;
  let declare: Run["side"] | null = null;
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const runs = await start(fault, { world, id, declare });
    const ends = await Promise.all(runs.map((run) => end(world, run)));
    tries.push({
      where: runs.length === 2 ? "both" : runs[0]!.side,
      declared: declare !== null,
      codes: ends.map((one) => one?.code ?? null),
    });
    if (ends.every((one) => one?.code === 0)) {
      // A `receive` that was to answer may have given up just before.
      if (runs.length === 2 || !await gaveUp(world)) return tries;
      continue;
    }
    const asked = runs.find((_, i) => ends[i]?.stderr.includes("--declare-dead"));
    declare = null;
    for (const side of ["source", "destination"] as const) {
      if (asked !== undefined && mayDeclare(world, side)) declare = side;
    }
    // Nothing has changed, nothing will.
    if (declare === null && attempt > 0) break;
  }
  return tries;
}

/** One `recover` where the other side's `receive` still answers, or where nobody is; else two that meet. */
async function start(
  fault: FaultCase,
  { world, id, declare }: { world: World; id: string; declare: Run["side"] | null },
): Promise<Run[]> {
  const { hosts } = world;
  const recover = (side: Run["side"], args: string[]): Run => ({
    side,
    agent: hosts.recover(side, { args: ["--id", id, ...args] }),
  });
  const receiveTo = `127.0.0.1:${world.receivePort}`;
  if (declare !== null) {
    const side = declare === "source" ? "destination" : "source";
    // While `receive` is there nobody else may touch its QEMU.
    if (side === "destination") await receiveEnd(world);
    // A `send` that lives dials; a `receive` that lives listens.
    const meet = side === "destination" ? "--listen" : "--to";
    return [recover(side, [meet, receiveTo, "--declare-dead", declare])];
  }
  const sides = (["source", "destination"] as const)
    .filter((side) => hosts.journal(side, id).length > 0);
  if (!world.receive.hasEnded || sides.length === 1) {
    return [recover(sides[0]!, ["--to", receiveTo])];
  }
  const [first, second] = fault.sourceListens ? sides : sides.toReversed();
  const listening = recover(first!, ["--listen", "127.0.0.1:0"]);
  const line = await Promise.race([
    listening.agent.line("listening"),
    delay(HANG_MS).then(() => null),
  ]);
  // It may have nothing to ask the other side.
  const address = line === null ? receiveTo : String(line["address"]);
  return [listening, recover(second!, ["--to", address])];
}

/** How `receive` ended; null when it does not. */
function receiveEnd({ receive }: World): Promise<{ code: number } | null> {
  return Promise.race([receive.ended, delay(HANG_MS).then(() => null)]);
}

/** Whether `receive` knew nothing, and left a copy to be settled. */
async function gaveUp(world: World): Promise<boolean> {
  return (await receiveEnd(world))?.code === 5;
}

async function end(world: World, { side, agent }: Run) {
  const timeout = Promise.withResolvers<null>();
  const timer = setTimeout(() => timeout.resolve(null), HANG_MS);
  const ended = await Promise.race([agent.ended, timeout.promise]);
  clearTimeout(timer);
  if (ended === null) {
    agent.signal("SIGKILL");
    world.faults.push(`recover at the ${side} hangs`);
  }
  const { code, stderr } = ended ?? await agent.ended;
  world.said.push(`recover at the ${side} ended with ${code}: ${stderr.trim()}`);
  return ended;
}

/** Whether it is true that this side's QEMU is dead for good, and that its copy has not run since. */
function mayDeclare({ vms }: World, side: Run["side"]): boolean {
  if (vms.killedAtMs[side] === null) return false;
  return side === "destination" ? !vms.destination.hasRun : vms.source.isStopped;
}
