/**
 * The demo with a micro-VM: it boots in the process of `send`, is moved live and sealed into that of `receive`, and proves
 * that it arrived. Looks at both from outside, through `/proc/PID/mem`.
 *
 * @module
 */

import { hashBlocks } from "../../kvm/guest_memory.ts";
import { GuestError } from "../guest/guest_error.ts";
import { microSecret, requireKvm } from "../micro_host.ts";
import type { MigrationReport } from "../report.ts";
import type { Terminal } from "../terminal.ts";
import { protectionFlags, type ProtectionOptions } from "../protection_options.ts";
import { AgentProcess } from "./agent_process.ts";
import { CaptureRelay } from "./capture_relay.ts";
import { hostNames, makeHosts } from "./hosts.ts";
import { type Proof, ramEqual } from "./proof.ts";

/** Writes fast enough for several rounds at the downtime that is aimed at, slowly enough to converge. */
const DEFAULT_DIRTY_RATE = "64MiB/s";
const DOWNTIME_LIMIT = "2ms";
/** Beats of each vCPU that must come after the move before it is looked at. */
const BEATS_AFTER = 50;
const BEATS_TIMEOUT_MS = 60_000;
const READ_BYTES = 256 * 1024;

/** What can be chosen. */
export interface MicroDemoOptions extends ProtectionOptions {
  memoryMiB: number;
  /** The suite; undefined leaves it to policy or profile. */
  cipher: string | undefined;
  /** Bytes per second; the demo's own default when undefined. */
  dirtyRate: number | undefined;
}

/** RAM of a micro-VM in its agent's process. */
interface Ram {
  pid: number;
  base: number;
  bytes: number;
}

/** Runs it; what it starts goes onto the stack, which ends it. @throws {CliError} `missing` without /dev/kvm */
export async function runMicroMigration(
  options: MicroDemoOptions,
  world: { stack: AsyncDisposableStack; terminal: Terminal },
): Promise<{ report: MigrationReport; proof: Proof }> {
  const { stack, terminal } = world;
  requireKvm();
  const hosts = await makeHosts(stack);
  const vmId = crypto.randomUUID();
  const needles = [microSecret(vmId)];
  const memory = ["--micro", "--memory", String(options.memoryMiB), "--vm-id", vmId];
  terminal.line(`Booting a micro-VM of ${options.memoryMiB} MiB, and moving it live`);
  const receive = stack.use(
    new AgentProcess([
      ...["receive", ...memory, "--listen", "127.0.0.1:0"],
      ...["--allow", hostNames.a, "--state-dir", hosts.b.stateDir],
      ...protectionFlags(options),
    ]),
  );
  const listening = await receive.line("listening");
  if (listening === null) throw agentError("receive", (await receive.ended).stderr);
  const port = Number(String(listening["address"]).split(":").at(-1));
  using relay = new CaptureRelay(() => Deno.connect({ hostname: "127.0.0.1", port }), { needles });
  const rate = options.dirtyRate === undefined ? DEFAULT_DIRTY_RATE : `${options.dirtyRate}B`;
  const send = stack.use(
    new AgentProcess([
      ...["send", ...memory, "--dirty-rate", rate, "--downtime-limit", DOWNTIME_LIMIT],
      ...["--to", `127.0.0.1:${relay.port}`, "--peer", hostNames.b],
      ...["--state-dir", hosts.a.stateDir, ...protectionFlags(options)],
      ...(options.cipher === undefined ? [] : ["--cipher", options.cipher]),
    ], { hold: ["releasing"] }),
  );
  // Both stand still now: the source has stopped, the destination has loaded and waits for RELEASE.
  const held = await send.line("held");
  let equal = false;
  let control = 0;
  if (held !== null) {
    const rams = [await ramOf(send), await ramOf(receive)] as const;
    const [there, here] = await Promise.all(rams.map(hashRam));
    equal = ramEqual(there!, here!);
    terminal.line("Control: its memory goes in clear through the same kind of wire");
    control = await sendInClear(rams[0], needles);
    await send.go();
  }
  const { report, stderr } = await send.ended;
  if (report === null) throw agentError("send", stderr);
  if (report.outcome === "completed") await untilBeats(receive, BEATS_AFTER);
  receive.signal("SIGINT");
  await receive.ended;
  return {
    report,
    proof: {
      ...beatProof(send, receive, report.holdMs),
      ramEqual: equal,
      ramBlocks: ["micro.ram"],
      holdMs: report.holdMs,
      secretsOnWire: relay.found,
      secretsInPlaintextControl: control,
      control: "its memory, read from outside and sent in clear",
      workloadSound: workloadSound(receive),
      sourceState: report.sourceState,
      destinationState: report.destinationState,
    },
  };
}

function agentError(name: string, stderr: string): GuestError {
  return new GuestError("qemu", `Cannot run ${name}: ${stderr.trim()}`);
}

async function ramOf(agent: AgentProcess): Promise<Ram> {
  const line = await agent.line("memory");
  if (line === null) throw agentError("the micro-VM", (await agent.ended).stderr);
  return { pid: agent.pid, base: Number(line["base"]), bytes: Number(line["bytes"]) };
}

function hashRam({ pid, base, bytes }: Ram): Promise<Map<string, string>> {
  return hashBlocks({ pid, blocks: [{ name: "micro.ram", base, bytes }] });
}

/** Sends RAM through a wire that is searched. @returns how often a needle passed */
async function sendInClear(ram: Ram, needles: string[]): Promise<number> {
  using sink = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  using relay = new CaptureRelay(
    () => Deno.connect({ hostname: "127.0.0.1", port: sink.addr.port }),
    { needles },
  );
  const arriving = sink.accept().then(async (conn) => {
    using end = conn;
    const buffer = new Uint8Array(READ_BYTES);
    while (await end.read(buffer) !== null);
  });
  using memory = await Deno.open(`/proc/${ram.pid}/mem`);
  await memory.seek(ram.base, Deno.SeekMode.Start);
  using conn = await Deno.connect({ hostname: "127.0.0.1", port: relay.port });
  const buffer = new Uint8Array(READ_BYTES);
  for (let left = ram.bytes; left > 0;) {
    const count = await memory.read(buffer.subarray(0, Math.min(left, buffer.length)));
    if (count === null) break;
    for (let at = 0; at < count;) at += await conn.write(buffer.subarray(at, count));
    left -= count;
  }
  await conn.closeWrite();
  await arriving;
  return relay.found;
}

/** Values and times of a vCPU's heartbeats in an agent's process, as it told them. */
function beatsOf(agent: AgentProcess, vcpu = 0): { value: number; atMs: number }[] {
  return agent.lines.filter((line) => line.type === "beats" && line["vcpu"] === vcpu).flatMap(
    (line) => {
      const { values, atMs } = line as unknown as { values: number[]; atMs: number[] };
      return values.map((value, i) => ({ value, atMs: atMs[i]! }));
    },
  );
}

async function untilBeats(agent: AgentProcess, count: number): Promise<void> {
  const deadlineMs = performance.now() + BEATS_TIMEOUT_MS;
  while (beatsOf(agent).length < count) {
    if (performance.now() > deadlineMs) {
      throw new GuestError("timeout", "Cannot go on: the micro-VM does not beat");
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** No counter value lost or repeated from the first beat at the source to the last at the destination. */
function beatProof(
  source: AgentProcess,
  destination: AgentProcess,
  holdMs: number,
): Pick<Proof, "heartbeatContinues" | "heartbeatGapMs"> {
  const before = beatsOf(source), after = beatsOf(destination);
  const last = before.at(-1), [first] = after;
  if (last === undefined || first === undefined) {
    return { heartbeatContinues: false, heartbeatGapMs: null };
  }
  const all = [...before, ...after];
  return {
    heartbeatContinues: all.every(({ value }, i) => value === all[0]!.value + i),
    heartbeatGapMs: first.atMs - last.atMs - holdMs,
  };
}

/** What the destination found when it checked the memory by what the guest's program must have left there. */
function workloadSound(agent: AgentProcess): boolean {
  const line = agent.lines.find(({ type }) => type === "workload");
  const { vcpus = [] } = (line ?? {}) as unknown as {
    vcpus?: { filled: boolean; wrongPages: number; checksumFits: boolean }[];
  };
  return vcpus.length > 0 &&
    vcpus.every((it) => it.filled && it.wrongPages === 0 && it.checksumFits);
}
