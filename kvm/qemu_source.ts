/**
 * The QEMU that a VM leaves.
 *
 * QEMU's return path ends in this agent: it cannot finish before it is told to (`release`), and until then it resumes by
 * itself when its stream is closed. See PROTOCOL.md section 7.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { asNumber } from "./json_values.ts";
import { configure, type LiveParameters, parametersOf } from "./live_parameters.ts";
import { MigrationSettings } from "./migration_settings.ts";
import { connectOutgoing } from "./outgoing_stream.ts";
import type { QemuFacts } from "./qemu_facts.ts";
import type { GuestPaging } from "./page_tables.ts";
import { QemuPageSource } from "./qemu_page_source.ts";
import { type AttachOptions, isSilence, QemuVm, readMigration, type VmLook } from "./qemu_vm.ts";
import type { QmpEvent } from "./qmp.ts";
import { wordsOf } from "./qmp_error.ts";
import {
  type AfterCancel,
  afterCancel,
  isOver,
  type RunStateBefore,
  stateBefore,
} from "./vm_states.ts";

const QUIT_TIMEOUT_MS = 10_000;
const RESUME_TIMEOUT_MS = 10_000;
/** How long a dispose waits for the VM to be as before. */
const DISPOSE_TIMEOUT_MS = 5_000;
const PROGRESS_TIMEOUT_MS = 1_000;
/** Questions about progress that may be open at once: a hung QEMU is not to be buried in them. */
const MAX_OPEN_QUESTIONS = 3;

/** Why a VM left the migration by itself. */
export type SourceEnd =
  /** Its process is gone. */
  | { kind: "gone" }
  /** It runs again, or stands as it did before; or did, and its process is gone since (`gone`). */
  | { kind: "resumed"; text: string; gone?: true }
  /** QEMU reported failure; it may still be on its way back. */
  | { kind: "failed"; text: string };

/** What QEMU says of a migration under way. */
export interface SourceProgress {
  /** Bytes of RAM still to be sent, as of the last sync. */
  remainingBytes: number;
  /** QEMU's own estimate; null before the first sync. */
  expectedDowntimeMs: number | null;
  /** As of the last sync. */
  dirtyPagesPerSecond: number;
  /** Syncs of the dirty bitmap so far. */
  dirtySyncCount: number;
}

/** Counters that tell this migration from another. */
export interface SourceCounters {
  /** Syncs of the dirty bitmap. */
  dirtySyncCount: number;
  /** Pages sent with their bytes. */
  normal: number;
  /** Pages sent as zeros. */
  duplicate: number;
}

/**
 * A source VM: one outgoing migration of it.
 *
 * @example
 * ```ts
 * import { QemuSource } from "./qemu_source.ts";
 *
 * export async function describe(qmpPath: string): Promise<string> {
 *   await using vm = await QemuSource.attach(qmpPath);
 *   return `${vm.facts.name} (${vm.before}), ${vm.facts.memoryBytes} bytes`;
 * }
 * ```
 * @see https://www.qemu.org/docs/master/devel/migration/main.html
 */
export class QemuSource implements AsyncDisposable {
  /** The run state when it was attached. */
  readonly before: RunStateBefore;
  /**
   * Called when the VM leaves the migration unasked: once, once more when it becomes {@linkcode hasRun}, and once more when
   * its process is gone behind {@linkcode release}.
   */
  onEnd: ((end: SourceEnd) => void) | null = null;

  readonly #vm: QemuVm;
  readonly #runtimeDirectory: { parent?: string };
  #settings: MigrationSettings | null = null;
  #stream: QemuPageSource | null = null;
  #stoppedAtMs: number | null = null;
  /** RESUME came after the last STOP: if the process is gone now, it may have run meanwhile. */
  #resumed = false;
  /** RESUMEs so far. */
  #resumes = 0;
  /** Its migration failed or was cancelled: whatever STOP comes after that, it may have run. */
  #left = false;
  /** Until it is asked to leave, leaving is news. */
  #leavingIsNews = false;
  #released = false;
  /** Its end is ours. */
  #quitting = false;
  /** `cont` is ours. */
  #resuming = false;
  #hasRun = false;
  /** A migration of ours may be under way: before that, whatever is under way is somebody else's. */
  #begun = false;

  private constructor(vm: QemuVm, options: { before: RunStateBefore; runtimeDirectory?: string }) {
    this.#vm = vm;
    this.before = options.before;
    const { runtimeDirectory: parent } = options;
    this.#runtimeDirectory = parent === undefined ? {} : { parent };
    vm.qmp.on((event) => this.#take(event));
    vm.gone.then((allRead) => this.#gone(allRead));
  }

  /**
   * Takes hold of the QEMU whose monitor is at `qmpPath`; changes nothing in it.
   *
   * @throws {QmpError} as QmpClient.connect
   * @throws {KvmError} `state` when the VM cannot leave in its state; `capability`, `locked`, `peer`, `denied`
   */
  static async attach(qmpPath: string, options: AttachOptions = {}): Promise<QemuSource> {
    let before: RunStateBefore = "running";
    const check = (look: VmLook) => void (before = stateBefore(look));
    const vm = await QemuVm.attach(qmpPath, { ...options, check });
    return new QemuSource(vm, { ...options, before });
  }

  /** Whether it was seen to run after {@linkcode release}, but by {@linkcode resume}; however it stands now. */
  get hasRun(): boolean {
    return this.#hasRun;
  }

  /** What the VM is, as of `attach`. */
  get facts(): QemuFacts {
    return this.#vm.facts;
  }

  /** Monotonic ms (`performance.now()`) of the last STOP received; null while the VM runs, or when it did not run. */
  get stoppedAtMs(): number | null {
    return this.#stoppedAtMs;
  }

  /** Reads the guest's page tables: what tells its pages apart. The caller's to dispose of. @throws {QmpError} */
  async openPaging(): Promise<GuestPaging> {
    // Most migrations seal all pages alike and never look.
    const { GuestPaging } = await import("./page_tables.ts");
    return await GuestPaging.attach(this.#vm);
  }

  /**
   * Starts the outgoing migration; resolves when QEMU's stream is connected. Without `maxBandwidth` there is no limit
   * (QEMU's own is 128 MiB/s). The capability `auto-converge` cannot be switched on later, so it is on from here,
   * throttling by 1 % at most unless it is asked for.
   *
   * @throws {KvmError} `state` or `failed` with QEMU's words, `peer`, `denied`; the VM is then as before
   * @throws {QmpError} when QEMU refuses a setting
   */
  async start(settings: LiveParameters): Promise<QemuPageSource> {
    if (this.#settings !== null) {
      throw new KvmError("state", "Cannot migrate this VM: it was started once");
    }
    this.#settings = await MigrationSettings.read(this.#vm.qmp);
    try {
      await configure(this.#settings, settings);
      this.#resumed = false;
      this.#begun = true;
      const conn = await connectOutgoing(this.#vm, this.#runtimeDirectory);
      this.#leavingIsNews = true;
      return this.#stream = new QemuPageSource(conn, { blocks: this.facts.blocks });
    } catch (error) {
      // What QEMU refused is not under way; what is then is somebody else's.
      const ours = error instanceof KvmError && (error.code === "failed" || error.code === "peer");
      if (ours) await this.cancel();
      else this.#begun = false;
      await this.restore();
      throw error;
    }
  }

  /** Changes settings of the live phase. @throws {QmpError} */
  async tune(settings: LiveParameters): Promise<void> {
    if (this.#settings === null) {
      throw new KvmError("state", "Cannot tune a migration: none was started");
    }
    await this.#settings.setParameters(parametersOf(settings, this.#settings));
  }

  /** How far the migration is; null when QEMU does not answer just now. @throws {QmpError} */
  async progress(): Promise<SourceProgress | null> {
    const { qmp } = this.#vm;
    if (qmp.unanswered >= MAX_OPEN_QUESTIONS) return null;
    try {
      const { ram, expectedDowntimeMs } = await readMigration(qmp, {
        timeoutMs: PROGRESS_TIMEOUT_MS,
      });
      return {
        remainingBytes: asNumber(ram.remaining ?? 0, "remaining"),
        expectedDowntimeMs,
        dirtyPagesPerSecond: asNumber(ram["dirty-pages-rate"] ?? 0, "dirty-pages-rate"),
        dirtySyncCount: asNumber(ram["dirty-sync-count"] ?? 0, "dirty-sync-count"),
      };
    } catch (error) {
      if (isSilence(error)) return null;
      throw error;
    }
  }

  /** Counters of the current or last migration. @throws {QmpError} */
  async counters(): Promise<SourceCounters> {
    const { ram } = await readMigration(this.#vm.qmp);
    return {
      dirtySyncCount: asNumber(ram["dirty-sync-count"] ?? 0, "dirty-sync-count"),
      normal: asNumber(ram.normal ?? 0, "normal"),
      duplicate: asNumber(ram.duplicate ?? 0, "duplicate"),
    };
  }

  /** Its run state now, or `gone`. @throws {QmpError} when it does not answer and is not gone */
  async status(): Promise<string> {
    return await this.#vm.status();
  }

  /**
   * Says SHUT(0) to QEMU: from here on it may finish, and then never resumes by itself.
   *
   * @returns `stopped` when it is seen completed and in `postmigrate`; `gone` when its process is gone without having
   * resumed; `resumed` when it runs, or ran since, or stands as before, after all
   * @throws {QmpError} `closed` when QMP was lost, so that nobody can tell
   * @throws {KvmError} `state` when it was reset: nobody can tell either
   */
  async release(): Promise<"stopped" | "gone" | "resumed"> {
    const stream = this.#stream;
    if (stream === null) {
      throw new KvmError("state", "Cannot release the VM: its migration was not started");
    }
    this.#leavingIsNews = false;
    this.#released = true;
    const resumes = this.#resumes;
    try {
      await stream.shut();
    } catch {
      // It has closed the stream; what became of it is asked below.
    }
    const outcome = await this.#vm.until((look) => {
      // However it stands by now: it may have left once more since.
      if (this.#resumes !== resumes) return "resumed";
      if (this.#vm.hasGone) return this.#mayHaveRun ? "resumed" : "gone";
      if (look === null) return null;
      const { runState, migration } = look;
      if (runState === "finish-migrate" || !isOver(migration)) return null;
      if (migration.status !== "completed") return "resumed";
      if (runState === "prelaunch") {
        throw new KvmError("state", "Cannot release the VM: it was reset after it had stopped");
      }
      return runState === "postmigrate" ? "stopped" : "resumed";
    });
    stream.close();
    return outcome ?? "resumed";
  }

  /**
   * Ends the migration: closes QEMU's stream first (a stopped QEMU may hang on it), then cancels.
   *
   * @returns how the VM is seen to stand then. A VM that ran is back in `running`, unless somebody paused it or it had
   * completed (`postmigrate`). One that did not run may be left in `postmigrate`, as QEMU 7.2 does
   */
  async cancel(): Promise<AfterCancel> {
    return await this.#backOut({}) ?? "postmigrate";
  }

  /** Lets a VM in `postmigrate` run again. @throws {KvmError} `failed` with QEMU's words */
  async resume(): Promise<void> {
    this.#resuming = true;
    try {
      await this.#vm.qmp.execute("cont");
    } catch (cause) {
      throw new KvmError("failed", `Cannot run the VM again: ${wordsOf(cause)}`, { cause });
    }
    const runs = await this.#vm.until(
      (look) => look?.runState === "running" || (this.#vm.hasGone ? false : null),
      { timeoutMs: RESUME_TIMEOUT_MS },
    );
    if (runs !== true) {
      throw new KvmError(
        "failed",
        "Cannot run the VM again: QEMU took the command, and it does not run",
      );
    }
  }

  /** Ends QEMU; resolves when its process is gone. @throws {KvmError} `failed` when it stays */
  async quit(): Promise<void> {
    this.#quitting = true;
    this.#leavingIsNews = false;
    this.#stream?.close();
    if (await this.#vm.quit(QUIT_TIMEOUT_MS)) return;
    throw new KvmError("failed", `Cannot end QEMU ${this.#vm.process.pid}: it is still there`);
  }

  /** Puts parameters and capabilities back as they were before `start`. @throws {QmpError} unless the VM is gone */
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

  /** Ends a migration that was not released, puts QEMU's settings back, gives QEMU free. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stream !== null && !this.#released) {
      try {
        await this.#backOut({ timeoutMs: DISPOSE_TIMEOUT_MS });
      } catch {
        // Nobody can tell how it stands: nothing more can be done from here.
      }
    }
    this.#leavingIsNews = false;
    this.#stream?.close();
    try {
      await this.restore();
    } catch {
      // It hangs, or the migration is not over: nothing more can be done from here.
    }
    await this.#vm[Symbol.asyncDispose]();
  }

  async #backOut(options: { timeoutMs?: number }): Promise<AfterCancel | null> {
    this.#leavingIsNews = false;
    this.#stream?.close();
    if (this.#begun) {
      try {
        await this.#vm.qmp.execute("migrate_cancel");
      } catch {
        // What became of the VM is asked next, whatever it answered.
      }
    }
    return await this.#vm.until((look) => {
      if (this.#vm.hasGone) return this.#mayHaveRun ? "goneAfterResume" : "gone";
      if (look === null || (this.#begun && !isOver(look.migration))) return null;
      return afterCancel(look.runState);
    }, options);
  }

  #take(event: QmpEvent): void {
    if (event.name === "STOP") {
      // Once all was read no later stop is the one that was read of.
      if (this.#stream?.ended !== true) this.#resumed = false;
      this.#stoppedAtMs = this.before === "running" ? event.receivedMs : null;
    } else if (event.name === "RESUME") {
      this.#resumed = true;
      this.#resumes++;
      this.#stoppedAtMs = null;
      if (this.#released && !this.#resuming) this.#ranUnasked();
    } else if (event.name === "MIGRATION") {
      const { status } = event.data;
      if (status !== "failed" && status !== "cancelled") return;
      this.#left = true;
      if (this.#leavingIsNews) void this.#explainEnd(status);
    }
  }

  /** If the process is gone now: whether it left memory behind that nobody has, so that the copy over there is stale. */
  get #mayHaveRun(): boolean {
    return this.#resumed || this.#left;
  }

  /** Behind SHUT(0) as well: without this QEMU the copy over there may be the only one. */
  #gone(allRead: boolean): void {
    const end = this.#whyGone(allRead);
    if (this.#released && !this.#quitting) this.onEnd?.(end);
    else this.#end(end);
  }

  #whyGone(allRead: boolean): SourceEnd {
    if (!allRead) {
      const text = "its process is gone, and what it said last was not understood";
      return { kind: "failed", text };
    }
    if (this.#mayHaveRun) {
      return { kind: "resumed", text: "it ran again, and is gone since", gone: true };
    }
    return { kind: "gone" };
  }

  /** Tells why QEMU left, and whether the VM already stands as before. */
  async #explainEnd(status: string): Promise<void> {
    const look = await this.#vm.look().catch(() => null);
    const text = look?.migration.errorText ?? `QEMU reports the migration as ${status}`;
    this.#end({ kind: look?.runState === this.before ? "resumed" : "failed", text });
  }

  #ranUnasked(): void {
    if (this.#hasRun) return;
    this.#hasRun = true;
    this.onEnd?.({ kind: "resumed", text: "somebody else made the VM run" });
  }

  #end(end: SourceEnd): void {
    if (!this.#leavingIsNews) return;
    this.#leavingIsNews = false;
    this.onEnd?.(end);
  }
}
