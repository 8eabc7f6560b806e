/**
 * The competitors: QEMU by itself in plaintext and in TLS, and Sealift with each landing.
 *
 * @module
 */

import { AgentProcess } from "../../cli/demo/agent_process.ts";
import { ownCpuSeconds } from "../../cli/clock.ts";
import { generateIdentityFile } from "../../cli/state_directory.ts";
import { type BenchVm, endedChildrenCpuSeconds, type MemoryState } from "./bench_vm.ts";
import { busySeconds } from "./quiet.ts";
import { TLS_HOSTNAME, TLS_PRIORITY } from "./tls_credentials.ts";

/** All competitors, in the order of a round. */
export const competitors = ["plaintext", "tls", "mapped", "process", "stream"] as const;
/** One of {@linkcode competitors}. */
export type Competitor = typeof competitors[number];

/** What one migration took. */
export interface Sample {
  round: number;
  memory: MemoryState;
  competitor: Competitor;
  /** QEMU: from `migrate` to RESUME at the destination. Sealift: from the start of `send` to the end of its process. */
  seconds: number;
  /** The same beginning, to RESUME at the destination for all. */
  runningSeconds: number;
  /** Start of `receive` to the moment it listens; 0 for QEMU. It is not in `seconds`. */
  receiveStartSeconds: number;
  /** STOP at the source to RESUME at the destination, by QEMU's own time stamps. */
  downtimeMs: number;
  /** User and kernel; an agent's is that of its whole process, start and end included. */
  cpuSeconds: { sourceQemu: number; destinationQemu: number; agents: number; total: number };
  /** CPU seconds of everything else on the machine meanwhile: how far the sample was disturbed. */
  othersCpuSeconds: number;
  /** What `send` reports of itself; null for QEMU. `seconds` less `totalMs` is its process's start and end. */
  phases: { totalMs: number; setupMs: number; roundsMs: number } | null;
}

/** What a run works with. */
export interface RunContext {
  source: BenchVm;
  destination: BenchVm;
  /** Of the certificates. */
  tlsDirectory: string;
  /** An empty directory for agents' state. */
  stateDirectory: string;
}

/** What a competitor measures itself; the rest is the same for all. */
interface Timing {
  startedMs: number;
  endedMs: number;
  receiveStartSeconds: number;
  phases: Sample["phases"];
}

/** Whether a competitor can land in such memory: a file is what `mapped` needs. */
export function suits(competitor: Competitor, memory: MemoryState): boolean {
  return competitor !== "mapped" || !memory.startsWith("private");
}

/** Migrates once, source to destination; the source stands in `postmigrate` afterwards. */
export async function migrateOnce(
  competitor: Competitor,
  context: RunContext,
): Promise<Omit<Sample, "round" | "memory" | "competitor">> {
  const { source, destination } = context;
  const sourceEvents = source.events.length;
  const cpuBefore = { source: source.cpuSeconds, destination: destination.cpuSeconds };
  const agentsBefore = endedChildrenCpuSeconds();
  const [busyBefore, ownBefore] = [await busySeconds(), ownCpuSeconds()];
  const timing = competitor === "plaintext" || competitor === "tls"
    ? await migrateByQemu(context, { tls: competitor === "tls" })
    : await migrateBySealift(context, { land: competitor });
  await source.reaches("postmigrate");
  const resumed = await destination.event("RESUME", 0);
  const stopped = await source.event("STOP", sourceEvents);
  const sourceQemu = source.cpuSeconds - cpuBefore.source;
  const destinationQemu = destination.cpuSeconds - cpuBefore.destination;
  const agents = endedChildrenCpuSeconds() - agentsBefore;
  const total = sourceQemu + destinationQemu + agents;
  const busy = await busySeconds() - busyBefore;
  return {
    seconds: (timing.endedMs - timing.startedMs) / 1000,
    runningSeconds: (resumed.receivedMs - timing.startedMs) / 1000,
    receiveStartSeconds: timing.receiveStartSeconds,
    downtimeMs: (resumed.hostTimeMs ?? NaN) - (stopped.hostTimeMs ?? NaN),
    cpuSeconds: { sourceQemu, destinationQemu, agents, total },
    othersCpuSeconds: Math.max(0, busy - total - (ownCpuSeconds() - ownBefore)),
    phases: timing.phases,
  };
}

async function migrateByQemu(context: RunContext, options: { tls: boolean }): Promise<Timing> {
  const { source, destination, tlsDirectory } = context;
  if (options.tls) {
    await useTls(destination, { endpoint: "server", directory: tlsDirectory });
    await useTls(source, { endpoint: "client", directory: tlsDirectory });
  }
  await source.qmp.execute("migrate-set-parameters", { "max-bandwidth": 0 });
  await destination.qmp.execute("migrate-incoming", { uri: "tcp:127.0.0.1:0" });
  const port = await incomingPort(destination);
  const startedMs = performance.now();
  await source.qmp.execute("migrate", { uri: `tcp:127.0.0.1:${port}` });
  const resumed = await destination.event("RESUME", 0);
  await source.reaches("postmigrate");
  if (options.tls) {
    await source.qmp.execute("migrate-set-parameters", { "tls-creds": "", "tls-hostname": "" });
    await source.qmp.execute("object-del", { id: "tls0" });
  }
  return { startedMs, endedMs: resumed.receivedMs, receiveStartSeconds: 0, phases: null };
}

async function useTls(
  vm: BenchVm,
  options: { endpoint: "server" | "client"; directory: string },
): Promise<void> {
  await vm.qmp.execute("object-add", {
    "qom-type": "tls-creds-x509",
    id: "tls0",
    dir: options.directory,
    endpoint: options.endpoint,
    priority: TLS_PRIORITY,
    "verify-peer": true,
  });
  const hostname = options.endpoint === "client" ? { "tls-hostname": TLS_HOSTNAME } : {};
  await vm.qmp.execute("migrate-set-parameters", { "tls-creds": "tls0", ...hostname });
}

async function incomingPort(vm: BenchVm): Promise<number> {
  const answer = await vm.qmp.execute("query-migrate") as {
    "socket-address"?: { port?: string }[];
  };
  const port = Number(answer["socket-address"]?.[0]?.port);
  if (!Number.isInteger(port)) throw new Error("Cannot find the port of the incoming migration");
  return port;
}

async function migrateBySealift(
  context: RunContext,
  options: { land: "mapped" | "process" | "stream" },
): Promise<Timing> {
  const { source, destination, stateDirectory } = context;
  const [a, b] = [`${stateDirectory}/a`, `${stateDirectory}/b`];
  for (const path of [a, b]) await Deno.mkdir(path, { mode: 0o700 });
  const sendKey = await generateIdentityFile(`${a}/identity`);
  const receiveKey = await generateIdentityFile(`${b}/identity`);
  const receiveStartedMs = performance.now();
  await using receive = new AgentProcess([
    ...["receive", "--qmp", destination.qmpPath, "--listen", "127.0.0.1:0", "--allow", sendKey],
    ...["--land", options.land, "--state-dir", b],
  ]);
  const listening = await receive.line("listening");
  if (listening === null) throw new Error((await receive.ended).stderr);
  const startedMs = performance.now();
  await using send = new AgentProcess([
    ...["send", "--qmp", source.qmpPath, "--to", String(listening["address"])],
    ...["--peer", receiveKey, "--keep-source", "--state-dir", a],
  ]);
  const { report, stderr } = await send.ended;
  const endedMs = performance.now();
  const received = await receive.ended;
  if (report?.outcome !== "completed" || report.landing !== options.land || received.code !== 0) {
    throw new Error(`Cannot count this migration: ${stderr.trim()} ${received.stderr.trim()}`);
  }
  return {
    startedMs,
    endedMs,
    receiveStartSeconds: (startedMs - receiveStartedMs) / 1000,
    phases: {
      totalMs: report.totalMs,
      setupMs: report.setupMs ?? 0,
      roundsMs: (report.rounds ?? []).reduce((sum, round) => sum + round.durationMs, 0),
    },
  };
}
