/**
 * One case of the campaign: a migration, a fault, `recover` where an exit code asks for it, and a look at what there is
 * afterwards.
 *
 * @module
 */

import { join } from "node:path";
import type { AgentEnd, AgentProcess } from "../../cli/demo/agent_process.ts";
import type { SavedGuest } from "../../cli/guest/saved_guest.ts";
import { runtimeDirectory } from "../../kvm/runtime_directory.ts";
import { MigrationHosts } from "../../tests/support/migration_hosts.ts";
import { delay } from "../../tests/support/qemu.ts";
import type { WatchedVm } from "../../tests/support/watched_vm.ts";
import { type FaultCase, stepName, STOP_MS } from "./cases.ts";
import { recoverBoth, type Recovered } from "./recovery.ts";
import { VmPair } from "./vms.ts";
import { Wire } from "./wire.ts";

/** Whatever hangs here is a fault of its own. */
const HANG_MS = 60_000;
const LEAVE_MS = 5_000;
/** An agent looks every 50 ms whether its QEMU is gone. */
const NOTICED_MS = 300;

/** What came of a case, as a line of the results. */
export interface CaseResult {
  index: number;
  fault: string;
  step: string;
  atMs: number;
  passed: boolean;
  /** Whether the migration came to the step: a slow machine may run into a limit before it. */
  reached: boolean;
  /** What must not be; empty when it passed. */
  faults: string[];
  /** Where the VM is: `lost` with the QEMU that was killed, if that held the only copy. */
  end: "source" | "destination" | "lost" | "nowhere";
  /** Exit codes of the agents; null for one that was killed. */
  codes: { send: number | null; receive: number | null };
  /** Exit codes of each `recover` that was run, `declared` where the operator gave his word. */
  recovered: Recovered[];
  durationMs: number;
  /** What the agents said. */
  said: string[];
}

/** Everything of one case while it runs. */
export interface World {
  hosts: MigrationHosts;
  vms: VmPair;
  wire: Wire;
  send: AgentProcess;
  receive: AgentProcess;
  /** Where `receive` listens. */
  receivePort: number;
  killed: { send: boolean; receive: boolean };
  reached: boolean;
  /** What must not be. */
  faults: string[];
  said: string[];
}

/** Runs a case; never throws for what it finds. */
export async function runCase(fault: FaultCase, guest: SavedGuest): Promise<CaseResult> {
  const startedMs = performance.now();
  const result: CaseResult = {
    index: fault.index,
    fault: fault.fault,
    step: stepName(fault.step),
    atMs: fault.atMs,
    passed: false,
    reached: true,
    faults: [],
    end: "nowhere",
    codes: { send: null, receive: null },
    recovered: [],
    durationMs: 0,
    said: [],
  };
  try {
    await using hosts = await MigrationHosts.make();
    await using vms = await VmPair.start(guest);
    Object.assign(result, await move(fault, { hosts, vms }));
  } catch (error) {
    result.faults.push(`the case broke: ${error instanceof Error ? error.stack : error}`);
  }
  result.passed = result.faults.length === 0;
  result.durationMs = Math.round(performance.now() - startedMs);
  return result;
}

async function move(
  fault: FaultCase,
  { hosts, vms }: Pick<World, "hosts" | "vms">,
): Promise<Partial<CaseResult>> {
  const { agent: receive, port: receivePort } = await hosts.receive(vms.destination, {
    hold: holds(fault, "receive"),
  });
  await using wire = new Wire(receivePort);
  const send = hosts.send(vms.source, wire.port, { hold: holds(fault, "send"), args: fault.args });
  const world: World = {
    hosts,
    vms,
    wire,
    send,
    receive,
    receivePort,
    killed: { send: false, receive: false },
    reached: true,
    faults: [],
    said: [],
  };
  await strike(fault, world);
  const codes = await ends(fault, world);
  const recovered = await recoverBoth(fault, { world, codes });
  codes.receive ??= world.killed.receive
    ? null
    : (await hung(world, "receive", receive))?.code ?? null;
  const end = await judge(world, { codes, recovered });
  await leftBehind(world);
  return { codes, recovered, end, reached: world.reached, faults: world.faults, said: world.said };
}

function holds({ step }: FaultCase, side: "send" | "receive"): string[] {
  const states = step?.side === side ? [step.state] : [];
  if (side === "receive" && step?.lead === "refuse") states.push("loaded");
  if (side === "receive" && step?.lead === "stuck") states.push("taking");
  return states;
}

// ---- the fault ----

/** Brings the migration to the step, and lets the fault happen there. */
async function strike(fault: FaultCase, world: World): Promise<void> {
  const { step } = fault;
  const { receive, vms } = world;
  if (step === null) {
    await delay(fault.atMs);
    return await happen(fault, world);
  }
  let release: (() => void) | null = null;
  if (step.lead === "refuse" && await held(receive, "loaded", world)) {
    await vms.kill("destination");
    // It is to be noticed before the source is told that the copy is loaded.
    await delay(NOTICED_MS);
    await receive.go();
  }
  if (step.lead === "stuck" && await held(receive, "taking", world)) {
    release = await blockCont(world);
    await receive.go();
  }
  const agent = world[step.side];
  if (await held(agent, step.state, world)) {
    const happening = happen(fault, world);
    await delay(fault.goAfterMs);
    if (!world.killed[step.side]) await agent.go().catch(() => {});
    await happening;
  }
  release?.();
}

/** Whether the agent stands at that state; false when either has ended. */
async function held(agent: AgentProcess, state: string, world: World): Promise<boolean> {
  const other = agent === world.send ? world.receive : world.send;
  const line = await Promise.race([
    agent.line("held", state),
    // What the end of the other means to this one it finds out soon.
    other.ended.then(() => delay(NOTICED_MS)).then(() => null),
    delay(HANG_MS).then(() => null),
  ]);
  world.reached &&= line !== null;
  return line !== null;
}

async function happen({ fault }: FaultCase, world: World): Promise<void> {
  const { wire, vms } = world;
  const [act, whom] = fault.split(" ");
  switch (act) {
    case "kill":
      if (whom === "source" || whom === "destination") return await vms.kill(whom);
      return killAgent(whom as "send" | "receive", world);
    case "crash": {
      const side = whom as "source" | "destination";
      killAgent(side === "source" ? "send" : "receive", world);
      return await vms.kill(side);
    }
    case "stop": {
      const pid = whom === "source" || whom === "destination"
        ? vms[whom].process.pid
        : world[whom as "send" | "receive"].pid;
      if (!trySignal(pid, "SIGSTOP")) return;
      await delay(STOP_MS);
      trySignal(pid, "SIGCONT");
      return;
    }
    case "cut":
      return wire.cut();
    case "down":
      return wire.down(STOP_MS);
    case "stall":
      return wire.stall(STOP_MS);
    case "sever":
      return wire.down();
    case "flip":
      return wire.flipNext("to destination");
  }
}

function killAgent(which: "send" | "receive", world: World): void {
  world.killed[which] = true;
  world[which].signal("SIGKILL");
}

/** Whether there was somebody to signal. */
function trySignal(pid: number, signal: Deno.Signal): boolean {
  try {
    Deno.kill(pid, signal);
    return true;
  } catch {
    return false;
  }
}

/**
 * QEMU refuses `cont` while it dumps the guest's memory, and a dump into a pipe that nobody reads does not end.
 *
 * @returns ends it
 */
async function blockCont({ hosts, vms }: World): Promise<() => void> {
  const path = join(hosts.directory, "dump");
  await new Deno.Command("mkfifo", { args: [path] }).output();
  // For reading and writing: neither end waits for the other.
  const pipe = await Deno.open(path, { read: true, write: true });
  await vms.destination.qmp.execute("dump-guest-memory", {
    paging: false,
    protocol: `file:${path}`,
    detach: true,
  });
  return () => pipe.close();
}

// ---- the ends of the agents ----

/** Waits for whoever ends by himself. `receive` may be left waiting for `recover`. */
async function ends(fault: FaultCase, world: World): Promise<CaseResult["codes"]> {
  const { send, receive, killed } = world;
  const sent = await hung(world, "send", send);
  const code = killed.send ? null : sent?.code ?? null;
  const boundNow = receive.lines.some(({ type }) => type === "state");
  const asksForRecover = code === null || code === 5;
  if (killed.receive) {
    await hung(world, "receive", receive);
    return { send: code, receive: null };
  }
  if (boundNow && asksForRecover && fault.early) return { send: code, receive: null };
  // What was never bound listens on.
  if (!boundNow) receive.signal("SIGINT");
  const received = await hung(world, "receive", receive);
  return { send: code, receive: received?.code ?? null };
}

/** How an agent ended; one that does not is a fault, and is killed. */
async function hung(world: World, name: string, agent: AgentProcess): Promise<AgentEnd | null> {
  const timeout = Promise.withResolvers<null>();
  const timer = setTimeout(() => timeout.resolve(null), HANG_MS);
  const end = await Promise.race([agent.ended, timeout.promise]);
  clearTimeout(timer);
  if (end !== null) {
    world.said.push(`${name} ended with ${end.code}: ${end.stderr.trim()}`);
    return end;
  }
  world.faults.push(`${name} hangs`);
  agent.signal("SIGKILL");
  world.said.push(`${name} hangs: ${(await agent.ended).stderr.trim()}`);
  return null;
}

// ---- what there is afterwards ----

/** Whether the destination held a whole copy when the source's QEMU was killed: it could have taken its place. */
function hadCopy({ hosts, vms }: World): boolean {
  const entries = hosts.journalEntries("destination", hosts.lastId("destination"));
  const discarded = entries.find(({ state }) => state === "discarded");
  if (!entries.some(({ state }) => state === "loaded")) return false;
  return discarded === undefined || Date.parse(discarded.time) > (vms.killedAtMs.source ?? 0);
}

async function judge(
  world: World,
  { codes, recovered }: Pick<CaseResult, "codes" | "recovered">,
): Promise<CaseResult["end"]> {
  const { vms, faults } = world;
  const { source, destination } = vms;
  const states = { source: await source.status(), destination: await destination.status() };
  world.said.push(`source ${states.source}, destination ${states.destination}`);
  const wrong = vms.doubleRun();
  if (wrong !== null) faults.push(wrong);
  const running = (["source", "destination"] as const).filter((side) => states[side] === "running");
  if (running.length > 1) faults.push("both copies run");
  const [side] = running;
  if (side === undefined) {
    if (isLost(world)) return "lost";
    faults.push(`no copy runs: source ${states.source}, destination ${states.destination}`);
    return "nowhere";
  }
  // What an agent said with its exit code, before anybody recovered anything.
  if (codes.send === 0 && !destination.hasRun) {
    faults.push("send ended with 0, the VM did not move");
  }
  if (codes.send !== null && codes.send in { 1: 1, 3: 1, 4: 1 } && side !== "source") {
    faults.push(`send ended with ${codes.send}, the VM runs at the destination`);
  }
  if (recovered.length > 0 && recovered.at(-1)!.codes.some((code) => code !== 0)) {
    faults.push("the last recover did not end with 0");
  }
  // A copy that may never run any more does not lie about, but for --keep-source.
  if (side === "source" && !(states.destination in { gone: 1, inmigrate: 1 })) {
    faults.push(`the destination's copy was left ${states.destination}`);
  }
  const survival = await vms.survivalFault(side);
  if (survival !== null) faults.push(survival);
  // It must still be so after all that time.
  if (await otherOf(vms, side).status() === "running") faults.push("both copies run");
  return side;
}

function otherOf(vms: VmPair, side: "source" | "destination"): WatchedVm {
  return side === "source" ? vms.destination : vms.source;
}

/** Whether the VM died with the QEMU that was killed: it was the only one that held it. */
function isLost(world: World): boolean {
  const { killedAtMs, destination } = world.vms;
  if (destination.hasRun) return killedAtMs.destination !== null;
  if (killedAtMs.source === null) return false;
  return killedAtMs.destination !== null || !hadCopy(world);
}

/** Processes, sockets, temporary files, and locks but for that of an agent that was killed: it has no holder. */
async function leftBehind(world: World): Promise<void> {
  const { killed, vms } = world;
  const pids = [
    ...(killed.send ? [] : [vms.source.process.pid]),
    ...(killed.receive ? [] : [vms.destination.process.pid]),
  ];
  const deadlineMs = performance.now() + LEAVE_MS;
  const left = () => [
    ...world.hosts.leftovers(),
    ...[...Deno.readDirSync(runtimeDirectory())].map(({ name }) => name)
      .filter((name) => world.hosts.isNew(name) && pids.some((pid) => name.startsWith(`${pid}-`))),
  ];
  while (left().length > 0 && performance.now() < deadlineMs) await delay(50);
  for (const name of left()) world.faults.push(`left behind: ${name}`);
}
