/**
 * A QEMU with a second QMP client beside the agent's: it sees every event, asks for the state, and is to be answered.
 *
 * @module
 */

import type { QemuOptions } from "../../cli/guest/qemu_arguments.ts";
import { QemuProcess } from "../../cli/guest/qemu_process.ts";
import { libc } from "../../kvm/libc.ts";
import { QmpClient, type QmpEvent } from "../../kvm/qmp.ts";
import { isSilence } from "../../kvm/qemu_vm.ts";
import { patienceMs, until } from "./patience.ts";
import { delay } from "./qemu.ts";

// Stays open for the life of the process: opened here, it is no leak of the first test.
libc();

/** See the module: the agent gets the first socket. Disposing of it kills QEMU. */
export class WatchedVm implements AsyncDisposable {
  readonly process: QemuProcess;
  readonly qmp: QmpClient;
  readonly events: QmpEvent[] = [];
  #asking: Promise<number> | null = null;
  #stopAsking = false;

  private constructor(process: QemuProcess, qmp: QmpClient) {
    this.process = process;
    this.qmp = qmp;
    qmp.on((event) => this.events.push(event));
  }

  static async start(options: QemuOptions): Promise<WatchedVm> {
    return await WatchedVm.watch(await QemuProcess.start({ ...options, qmpCount: 2 }));
  }

  /** Takes a QEMU over that has two QMP sockets. */
  static async watch(process: QemuProcess): Promise<WatchedVm> {
    try {
      return new WatchedVm(process, await QmpClient.connect(process.qmpPaths[1]!));
    } catch (error) {
      await process[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Its run state; `gone` when QEMU has ended. */
  async status(): Promise<string> {
    try {
      const answer = await this.qmp.execute("query-status", undefined, { timeoutMs: patienceMs });
      return (answer as { status: string }).status;
    } catch (error) {
      if (!isSilence(error) || !this.qmp.hasEnded) throw error;
      await this.process.exited;
      return "gone";
    }
  }

  /** Whether a migration of it is under way. */
  async isMigrating(): Promise<boolean> {
    return !["none", "failed", "cancelled", "completed"].includes(await this.#migration());
  }

  /** Whether a migration comes in, or came. */
  async hasIncoming(): Promise<boolean> {
    return ["active", "completed"].includes(await this.#migration());
  }

  /** Waits for `count` more beats of its guest. */
  async moreBeats(count: number): Promise<void> {
    const wanted = this.process.heartbeats().length + count;
    await until(`beat ${wanted}`, () => this.process.heartbeats().length >= wanted);
  }

  /** Whether the last that its events said is that it stopped. */
  get isStopped(): boolean {
    return this.events.findLast(({ name }) => name === "STOP" || name === "RESUME")?.name ===
      "STOP";
  }

  /** Whether its guest ever ran since it was started. */
  get hasRun(): boolean {
    return this.events.some(({ name }) => name === "RESUME");
  }

  /** Migration parameters and capabilities, to be compared. */
  async settings(): Promise<unknown> {
    return [
      await this.qmp.execute("query-migrate-parameters"),
      await this.qmp.execute("query-migrate-capabilities"),
    ];
  }

  /** How many descriptors QEMU has, and how many mappings. */
  holdings(): { descriptors: number; mappings: number } {
    const { pid } = this.process;
    return {
      descriptors: [...Deno.readDirSync(`/proc/${pid}/fd`)].length,
      mappings: Deno.readTextFileSync(`/proc/${pid}/maps`).split("\n").length,
    };
  }

  /** Asks for the state without a break until {@linkcode WatchedVm.stopAsking}. */
  startAsking(): void {
    this.#stopAsking = false;
    this.#asking = (async () => {
      for (let answers = 0;; answers++) {
        if (this.#stopAsking || await this.status() === "gone") return answers;
        await delay(5);
      }
    })();
    this.#asking.catch(() => {});
  }

  /** @returns how many answers came; throws when one did not */
  async stopAsking(): Promise<number> {
    this.#stopAsking = true;
    return await this.#asking ?? 0;
  }

  async #migration(): Promise<string> {
    const { status } = await this.qmp.execute("query-migrate") as { status?: string };
    return status ?? "none";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopAsking().catch(() => {});
    await this.qmp[Symbol.asyncDispose]();
    await this.process[Symbol.asyncDispose]();
  }
}
