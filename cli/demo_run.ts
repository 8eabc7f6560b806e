/**
 * `demo`, put together: a Linux guest boots, is moved once by QEMU itself in plaintext (the control), then
 * live and sealed by two agents in processes of their own, and proves that it arrived. A micro-VM does the same in
 * `demo/micro_demo.ts`.
 *
 * @module
 */

import { AgentProcess } from "./demo/agent_process.ts";
import { CaptureRelay } from "./demo/capture_relay.ts";
import { hostNames, makeHosts } from "./demo/hosts.ts";
import { runMicroMigration } from "./demo/micro_demo.ts";
import {
  formatProof,
  hashRam,
  heartbeatProof,
  type Proof,
  proofFaults,
  ramEqual,
} from "./demo/proof.ts";
import type { DemoPlan } from "./demo.ts";
import { exitCodes } from "./exit_codes.ts";
import { GuestError } from "./guest/guest_error.ts";
import { buildLinuxGuest, guestSecrets, linuxCommandLine } from "./guest/linux_guest.ts";
import { ensurePrerequisites } from "./guest/prerequisites.ts";
import type { QemuOptions } from "./guest/qemu_arguments.ts";
import { QemuProcess } from "./guest/qemu_process.ts";
import { printJson } from "./json_lines.ts";
import { QmpClient } from "../kvm/qmp.ts";
import { protectionFlags } from "./protection_options.ts";
import { formatReport, type MigrationReport } from "./report.ts";
import { Interrupt } from "./signals.ts";
import { stateDirectory } from "./state_directory.ts";
import { Terminal } from "./terminal.ts";

/** What the guest dirties and the downtime that QEMU aims at: so that live iteration is needed, and converges. */
const DEFAULT_DIRTY_BYTES_PER_SECOND = 48 * 1024 * 1024;
const DOWNTIME_LIMIT = "10ms";
const BOOT_TIMEOUT_MS = 120_000;
const CONTROL_TIMEOUT_MS = 60_000;
/** Beats that must come after a move before it is looked at. */
const BEATS_AFTER = 50;

/** Runs `demo`. @returns the exit code: 0 when everything was proven */
export async function runDemo(options: DemoPlan): Promise<number> {
  using terminal = new Terminal(options);
  using interrupt = new Interrupt(terminal);
  const cancelled = Promise.withResolvers<never>();
  cancelled.promise.catch(() => {});
  interrupt.signal.addEventListener(
    "abort",
    () => cancelled.reject(new GuestError("timeout", "Cannot go on: the demo was cancelled")),
  );
  await using stack = new AsyncDisposableStack();
  const log = (line: string) => terminal.line(line);
  let moving: Promise<{ report: MigrationReport; proof: Proof }>;
  if (options.vm === "micro") moving = runMicroMigration(options, { stack, terminal });
  else {
    await ensurePrerequisites({ install: true, log });
    moving = new Demo({ options, stack, terminal }).run();
  }
  const { report, proof } = await Promise.race([moving, cancelled.promise]);
  const faults = report.outcome !== "completed" ? [] : proofFaults(proof, report);
  if (faults.length > 0) {
    report.outcome = "aborted";
    report.error = {
      code: "proof",
      message: `Cannot prove that the VM arrived: ${faults.join("; ")}`,
      hint: null,
    };
  }
  if (!options.json) {
    for (const line of [...formatReport(report), ...formatProof(proof, report)]) {
      terminal.line(line);
    }
  }
  if (report.error !== null) terminal.error(report.error.message, report.error.hint);
  if (options.json) printJson({ ...report, proof });
  return exitCodes[report.outcome];
}

/** One run of the demo. What it starts goes onto the stack, which ends it. */
class Demo {
  readonly #options: DemoPlan;
  readonly #stack: AsyncDisposableStack;
  readonly #terminal: Terminal;
  readonly #token = crypto.randomUUID().replaceAll("-", "").slice(0, 16);

  constructor(parts: { options: DemoPlan; stack: AsyncDisposableStack; terminal: Terminal }) {
    this.#options = parts.options;
    this.#stack = parts.stack;
    this.#terminal = parts.terminal;
  }

  async run(): Promise<{ report: MigrationReport; proof: Proof }> {
    const vm = await this.#vmOptions();
    const log = (line: string) => this.#terminal.line(line);
    log(`Booting a Linux guest of ${this.#options.memoryMiB} MiB`);
    const first = this.#stack.use(await QemuProcess.start(vm));
    await first.waitForLine(0, "READY", BOOT_TIMEOUT_MS);

    log(
      "Control: QEMU moves it in plaintext, through a wire that is searched for the guest's secrets",
    );
    const source = this.#stack.use(await QemuProcess.start({ ...vm, incoming: "defer" }));
    const secretsInPlaintextControl = await this.#movePlain(first, source);
    await beats(source, BEATS_AFTER);

    log(
      this.#options.profile === "paper"
        ? "Sealift moves it live as the paper has it, through the same kind of wire"
        : "Sealift moves it live and sealed, through the same kind of wire",
    );
    const destination = await QemuProcess.start({ ...vm, memory: "memfd", incoming: "defer" });
    if (!this.#options.keep) this.#stack.use(destination);
    const moved = await this.#moveSealed(source, destination);
    if (moved.report.outcome === "completed") await beats(destination, BEATS_AFTER);
    const { holdMs } = moved;
    const proof: Proof = {
      ...heartbeatProof(source.serial(1), destination.serial(1), holdMs),
      ramEqual: moved.ramEqual,
      ramBlocks: moved.ramBlocks,
      holdMs,
      secretsOnWire: moved.secretsOnWire,
      secretsInPlaintextControl,
      control: "QEMU's plaintext migration",
      workloadSound: null,
      sourceState: moved.report.sourceState,
      destinationState: moved.report.destinationState,
    };
    if (this.#options.keep) this.#leave(destination);
    return { report: moved.report, proof };
  }

  async #vmOptions(): Promise<QemuOptions> {
    const { memoryMiB, dirtyRate } = this.#options;
    const log = (line: string) => this.#terminal.line(line);
    const files = await buildLinuxGuest({
      cacheDirectory: stateDirectory(this.#options).cache,
      log,
    });
    const dirtyMiBPerSecond = Math.round((dirtyRate ?? DEFAULT_DIRTY_BYTES_PER_SECOND) / 2 ** 20);
    const append = linuxCommandLine({
      dirtyMiBPerSecond,
      workingSetMiB: Math.min(64, Math.floor((memoryMiB - 96) / 2) || 1),
      secretToken: this.#token,
    });
    return {
      guest: { ...files, append },
      memoryMiB,
      machine: "q35",
      name: "sealift-demo",
      uuid: crypto.randomUUID(),
      // One for an agent, one to look with.
      qmpCount: 2,
    };
  }

  get #needles(): string[] {
    return Object.values(guestSecrets(this.#token));
  }

  /** QEMU's own migration over TCP. @returns how often a secret passed */
  async #movePlain(from: QemuProcess, to: QemuProcess): Promise<number> {
    await using source = await QmpClient.connect(from.qmpPaths[1]!);
    await using destination = await QmpClient.connect(to.qmpPaths[1]!);
    const path = `${to.directory}/control`;
    await destination.execute("migrate-incoming", { uri: `unix:${path}` });
    using relay = new CaptureRelay(() => Deno.connect({ transport: "unix", path }), {
      needles: this.#needles,
    });
    await source.execute("migrate-set-parameters", { "max-bandwidth": 0 });
    await source.execute("migrate", { uri: `tcp:127.0.0.1:${relay.port}` });
    const deadlineMs = performance.now() + CONTROL_TIMEOUT_MS;
    for (;;) {
      const { status } = await destination.execute("query-status") as { status: string };
      if (status === "running") break;
      if (performance.now() > deadlineMs) {
        throw new GuestError(
          "timeout",
          "Cannot run the control: the plaintext migration does not end",
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await source.execute("quit").catch(() => {});
    return relay.found;
  }

  async #moveSealed(source: QemuProcess, destination: QemuProcess) {
    const hosts = await makeHosts(this.#stack);
    const receive = this.#stack.use(
      new AgentProcess([
        "receive",
        "--qmp",
        destination.qmpPaths[0]!,
        "--listen",
        "127.0.0.1:0",
        "--allow",
        hostNames.a,
        "--state-dir",
        hosts.b.stateDir,
        ...protectionFlags(this.#options),
      ]),
    );
    const listening = await receive.line("listening");
    if (listening === null) {
      throw new GuestError("qemu", `Cannot start receive: ${(await receive.ended).stderr.trim()}`);
    }
    const port = Number(String(listening["address"]).split(":").at(-1));
    using relay = new CaptureRelay(() => Deno.connect({ hostname: "127.0.0.1", port }), {
      needles: this.#needles,
    });
    const send = this.#stack.use(
      new AgentProcess(
        [
          "send",
          "--qmp",
          source.qmpPaths[0]!,
          "--to",
          `127.0.0.1:${relay.port}`,
          "--peer",
          hostNames.b,
          "--state-dir",
          hosts.a.stateDir,
          "--downtime-limit",
          DOWNTIME_LIMIT,
          ...protectionFlags(this.#options),
          ...(this.#options.cipher === undefined ? [] : ["--cipher", this.#options.cipher]),
        ],
        { hold: ["releasing"] },
      ),
    );
    // Both stand still now: the source has stopped, the destination has loaded and waits for RELEASE.
    const held = await send.line("held");
    let hashes: [Map<string, string>, Map<string, string>] | null = null;
    if (held !== null) {
      hashes = await Promise.all([
        hashRam(source.qmpPaths[1]!, source.pid),
        hashRam(destination.qmpPaths[1]!, destination.pid),
      ]);
      await send.go();
    }
    const { report, stderr } = await send.ended;
    // It listens on where nothing has come.
    if (report?.outcome !== "completed") receive.signal("SIGINT");
    const received = await receive.ended;
    if (report === null) {
      throw new GuestError(
        "qemu",
        `Cannot read what send says: ${stderr.trim()} ${received.stderr.trim()}`,
      );
    }
    return {
      report,
      holdMs: report.holdMs,
      ramEqual: hashes !== null && ramEqual(...hashes),
      ramBlocks: hashes === null ? [] : [...hashes[0].keys()],
      secretsOnWire: relay.found,
    };
  }

  #leave(vm: QemuProcess): void {
    vm.leave();
    this.#terminal.line(
      `The VM goes on as process ${vm.pid}. Its monitor: socat - UNIX-CONNECT:${vm.qmpPaths[1]}`,
    );
    this.#terminal.line(
      '  then {"execute":"qmp_capabilities"} and {"execute":"query-status"}; {"execute":"quit"} ends it',
    );
  }
}

async function beats(vm: QemuProcess, count: number): Promise<void> {
  const deadlineMs = performance.now() + BOOT_TIMEOUT_MS;
  while (vm.heartbeats().length < count) {
    if (performance.now() > deadlineMs) {
      throw new GuestError("timeout", "Cannot go on: the guest does not beat");
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
