/**
 * The QEMU that a VM arrives in.
 *
 * It is held: `stop` disarms the autostart of a QEMU that waits, so that it loads and does not run before `run`
 * (PROTOCOL.md section 7).
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { findLanding, type Landing, type LandingMode } from "./landing.ts";
import { MigrationSettings } from "./migration_settings.ts";
import { isGone } from "./process.ts";
import { type QemuFacts, readCapabilities } from "./qemu_facts.ts";
import { QemuSink } from "./qemu_sink.ts";
import type { SourceEnd } from "./qemu_source.ts";
import { type AttachOptions, isSilence, QemuVm } from "./qemu_vm.ts";
import type { QmpEvent } from "./qmp.ts";
import { wordsOf } from "./qmp_error.ts";
import { giveTo, SocketDirectory } from "./runtime_directory.ts";
import { checkWaiting } from "./vm_states.ts";

const QUIT_TIMEOUT_MS = 5_000;
const RUN_TIMEOUT_MS = 10_000;
/** Five announcements over a second and a half; QEMU wants all four. */
const ANNOUNCEMENT = { initial: 50, max: 550, rounds: 5, step: 100 };

/** Settings that a destination is attached with. */
export interface DestinationOptions extends AttachOptions {
  /** How pages get into the VM's memory; `auto` takes the best that works. */
  land?: LandingMode;
}

/** Why a VM left unasked. */
export type DestinationEnd = SourceEnd;

/**
 * A destination VM: one incoming migration of it.
 *
 * @example
 * ```ts
 * import { QemuDestination } from "./qemu_destination.ts";
 *
 * export async function landingOf(qmpPath: string): Promise<string> {
 *   await using vm = await QemuDestination.attach(qmpPath, { land: "auto" });
 *   return (await vm.probe()).landing;
 * }
 * ```
 */
export class QemuDestination implements AsyncDisposable {
  /** Called when the VM leaves unasked: once, and once more when its process is gone later. */
  onEnd: ((end: DestinationEnd) => void) | null = null;

  readonly #vm: QemuVm;
  readonly #options: DestinationOptions;
  #landing: Landing | null = null;
  #settings: MigrationSettings | null = null;
  #sink: QemuSink | null = null;
  #resumedAtMs: number | null = null;
  /** Until it is asked to run or to end, either is news. */
  #runningIsNews = true;
  #endIsNews = true;
  #goneIsNews = true;

  private constructor(vm: QemuVm, options: DestinationOptions) {
    this.#vm = vm;
    this.#options = options;
    vm.qmp.on((event) => this.#take(event));
    vm.gone.then((allRead) => this.#gone(allRead));
  }

  /**
   * Takes hold of the QEMU whose monitor is at `qmpPath`; changes nothing in it.
   *
   * @throws {QmpError} as QmpClient.connect
   * @throws {KvmError} `state` when it does not wait for a migration; `capability`, `locked`, `peer`, `denied`
   */
  static async attach(qmpPath: string, options: DestinationOptions = {}): Promise<QemuDestination> {
    return new QemuDestination(
      await QemuVm.attach(qmpPath, { ...options, check: checkWaiting }),
      options,
    );
  }

  /** Whether it was seen to run, however it stands now. */
  get hasRun(): boolean {
    return this.#resumedAtMs !== null;
  }

  /** What the VM is, as of `attach`. */
  get facts(): QemuFacts {
    return this.#vm.facts;
  }

  /** Finds how pages can get into the VM's memory, and tries it by reading. @throws {KvmError} `landing` */
  async probe(): Promise<{ landing: string; notes: string[] }> {
    const { name, notes } = await this.#findLanding();
    return { landing: name, notes };
  }

  /**
   * Prepares QEMU and its incoming side. The first byte goes there with `QemuSink.setup`.
   *
   * @throws {KvmError} `failed` with QEMU's words, `unsupported`, `landing`, `denied`; QEMU waits on as before
   */
  async open(): Promise<QemuSink> {
    if (this.#settings !== null) {
      throw new KvmError("state", "Cannot take a VM in: one was begun already");
    }
    const landing = await this.#findLanding();
    const { runtimeDirectory: parent } = this.#options;
    const place = parent === undefined ? {} : { parent };
    const directory = SocketDirectory.make(place);
    try {
      giveTo(directory.path, this.#vm.process.uid);
      await this.#prepare(directory.socketPath);
    } catch (error) {
      directory[Symbol.dispose]();
      throw error;
    }
    this.#landing = null; // the sink's from here
    return this.#sink = new QemuSink({ vm: this.#vm, landing, directory });
  }

  /**
   * Runs the loaded VM.
   *
   * @returns monotonic ms (`performance.now()`) of its RESUME
   * @throws {KvmError} `failed` with QEMU's words; it may be tried again
   */
  async run(): Promise<number> {
    this.#runningIsNews = false;
    try {
      await this.#vm.qmp.execute("cont");
    } catch (cause) {
      // QEMU says RESUME before it answers: without the answer it has run all the same. Of one that is gone, or that
      // refuses, nobody may say that it runs, whether it ran earlier or not.
      const ended = this.#vm.qmp.hasEnded && await this.#vm.goneWithin(RUN_TIMEOUT_MS);
      if (isSilence(cause) && this.#resumedAtMs !== null && !ended) return this.#resumedAtMs;
      throw new KvmError("failed", `Cannot run the VM: ${wordsOf(cause)}`, { cause });
    }
    const ranAtMs = await this.#vm.until((look) => {
      if (this.#resumedAtMs !== null) return this.#resumedAtMs;
      return look?.runState === "running" ? performance.now() : this.#vm.hasGone ? -1 : null;
    }, { timeoutMs: RUN_TIMEOUT_MS });
    if (ranAtMs !== null && ranAtMs >= 0) return ranAtMs;
    throw new KvmError("failed", "Cannot run the VM: QEMU took the command, and it does not run");
  }

  /** Tells the network where the VM is now. Never throws: the VM runs already. */
  async announce(): Promise<void> {
    try {
      await this.#vm.qmp.execute("announce-self", ANNOUNCEMENT);
    } catch {
      // Its own traffic will tell the network, later.
    }
  }

  /** Its run state now, or `gone`. @throws {QmpError} when it does not answer and is not gone */
  async status(): Promise<string> {
    return await this.#vm.status();
  }

  /**
   * Ends QEMU, in the end by SIGKILL: the VM has not run here. Resolves when its process is gone.
   *
   * @throws {KvmError} `failed` when it stays even then
   */
  async quit(): Promise<void> {
    this.#endIsNews = this.#goneIsNews = false;
    this.#sink?.close();
    const { pid } = this.#vm.process;
    if (await this.#vm.quit(QUIT_TIMEOUT_MS)) return;
    try {
      // Its number may be another process's by now.
      if (!isGone(this.#vm.process)) Deno.kill(pid, "SIGKILL");
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    if (await this.#vm.goneWithin(QUIT_TIMEOUT_MS)) return;
    throw new KvmError("failed", `Cannot end QEMU ${pid}: it is still there`);
  }

  /** Puts parameters and capabilities back as they were before `open`. @throws {QmpError} unless the VM is gone */
  async restore(): Promise<void> {
    try {
      await this.#settings?.restore();
    } catch (error) {
      if (!this.#vm.qmp.hasEnded) throw error;
    }
  }

  /** CPU seconds that QEMU has used; null when it is gone. */
  cpuSeconds(): number | null {
    return this.#vm.cpuSeconds();
  }

  /** Closes the stream and the landing, puts QEMU's settings back, gives QEMU free. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#endIsNews = this.#goneIsNews = false;
    this.#landing?.close();
    this.#sink?.close();
    try {
      await this.restore();
    } catch {
      // It is loading, or failing to: nothing more can be done from here.
    }
    await this.#vm[Symbol.asyncDispose]();
  }

  async #findLanding(): Promise<Landing> {
    const { qmp, process, facts } = this.#vm;
    return this.#landing ??= await findLanding({
      qmp,
      process,
      facts,
      mode: this.#options.land ?? "auto",
    });
  }

  async #prepare(socketPath: string): Promise<void> {
    const { qmp } = this.#vm;
    // In `inmigrate` this only disarms the autostart.
    await qmp.execute("stop");
    const settings = this.#settings = await MigrationSettings.read(qmp);
    try {
      await settings.setCapabilities({ events: true, "late-block-activate": true });
      if (!(await readCapabilities(qmp)).includes("late-block-activate")) {
        throw new KvmError(
          "unsupported",
          "Cannot hold the VM's drives: late-block-activate does not stay on",
        );
      }
      // The VM is announced when it runs, not when it is loaded.
      await settings.setParameters({ "announce-rounds": 0 });
      await qmp.execute("migrate-incoming", incoming(socketPath, this.facts.qemuVersion));
    } catch (cause) {
      await this.restore();
      this.#settings = null;
      if (cause instanceof KvmError) throw cause;
      throw new KvmError("failed", `Cannot take a VM in: ${wordsOf(cause)}`, { cause });
    }
  }

  #take(event: QmpEvent): void {
    if (event.name === "RESUME") {
      this.#resumedAtMs = event.receivedMs;
      if (this.#runningIsNews) {
        this.#end({ kind: "resumed", text: "somebody else made the VM run" });
      }
    } else if (event.name === "MIGRATION" && event.data.status === "failed") {
      this.#end({ kind: "failed", text: "QEMU cannot load the VM" });
    }
  }

  #end(end: DestinationEnd): void {
    if (!this.#endIsNews) return;
    this.#endIsNews = false;
    this.onEnd?.(end);
  }

  /** Also of one whose end was told: what it came to is known only now. */
  #gone(allRead: boolean): void {
    if (!allRead) {
      const text = "its process is gone, and what it said last was not understood";
      return this.#end({ kind: "failed", text });
    }
    if (!this.#goneIsNews) return;
    this.#goneIsNews = this.#endIsNews = false;
    this.onEnd?.({ kind: "gone" });
  }
}

function incoming(socketPath: string, qemuVersion: string): Record<string, unknown> {
  const [major = 0, minor = 0] = qemuVersion.split(".").map(Number);
  // From 9.1 on QEMU can stay after a failure, to say why it failed.
  const stays = major > 9 || (major === 9 && minor >= 1);
  return { uri: `unix:${socketPath}`, ...(stays ? { "exit-on-error": false } : {}) };
}
