/**
 * A QEMU whose agent died in the middle of a migration.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { asNumber } from "./json_values.ts";
import { isGone, type ProcessIdentity } from "./process.ts";
import { QemuLock } from "./qemu_lock.ts";
import { type AttachOptions, QemuVm } from "./qemu_vm.ts";
import { wordsOf } from "./qmp_error.ts";

const ACT_TIMEOUT_MS = 10_000;

/** How a QEMU stands. */
export interface RecoveryStatus {
  /** Run state, or `gone`. */
  runState: string;
  /** Status in query-migrate; null for none. */
  migration: string | null;
  /** Counters of its last outgoing migration; null when there are none. */
  counters: { dirtySyncCount: number; normal: number; duplicate: number } | null;
}

/**
 * The one QEMU process that a journal names, under the same lock as any other command's; it may be gone.
 *
 * @see PROTOCOL.md section 7
 */
export class QemuRecovery implements AsyncDisposable {
  readonly #process: ProcessIdentity;
  readonly #vm: QemuVm | null;
  readonly #lock: QemuLock | null;
  /** Called when it becomes {@linkcode hasRun}. */
  onRun: (() => void) | null = null;
  #hasRun = false;

  private constructor(
    parts: { process: ProcessIdentity; vm: QemuVm | null; lock: QemuLock | null },
  ) {
    this.#process = parts.process;
    this.#vm = parts.vm;
    this.#lock = parts.lock;
    parts.vm?.qmp.on(({ name }) => {
      if (name !== "RESUME" || this.#hasRun) return;
      this.#hasRun = true;
      this.onRun?.();
    });
  }

  /** Whether it was seen to run since `attach`, however it stands now. */
  get hasRun(): boolean {
    return this.#hasRun;
  }

  /**
   * Takes hold of it; changes nothing in it.
   *
   * @throws {KvmError} `locked` when another command works with it; `peer` when another QEMU is at `qmpPath`
   * @throws {QmpError} as QmpClient.connect, when the process is there
   */
  static async attach(
    qmpPath: string,
    options: AttachOptions & { process: ProcessIdentity },
  ): Promise<QemuRecovery> {
    const { process, runtimeDirectory: directory } = options;
    const lock = QemuLock.take(process, directory === undefined ? {} : { directory });
    if (isGone(process)) return new QemuRecovery({ process, vm: null, lock });
    // Held by who works with it: that says more than a monitor that is busy. The VM takes it for itself.
    lock[Symbol.dispose]();
    const vm = await QemuVm.attach(qmpPath, { ...options, check: () => {} });
    if (vm.process.pid !== process.pid || vm.process.startTime !== process.startTime) {
      await vm[Symbol.asyncDispose]();
      throw new KvmError(
        "peer",
        `Cannot use ${qmpPath}: QEMU ${vm.process.pid} is there, the journal names QEMU ${process.pid}`,
      );
    }
    return new QemuRecovery({ process, vm, lock: null });
  }

  /** How it stands now. @throws {QmpError} when it is there and does not answer */
  async status(): Promise<RecoveryStatus> {
    const vm = this.#vm;
    if (vm === null) return { runState: "gone", migration: null, counters: null };
    // Gone is one of which all was read: what it said last may have been RESUME.
    const look = await vm.until((seen) => seen ?? (vm.hasGone ? "gone" : null), {
      timeoutMs: ACT_TIMEOUT_MS,
    });
    if (look === "gone") return { runState: "gone", migration: null, counters: null };
    if (look === null) {
      throw new KvmError("failed", `Cannot ask QEMU ${this.#process.pid}: it does not answer`);
    }
    const { ram, status } = look.migration;
    const counters = ram["dirty-sync-count"] === undefined ? null : {
      dirtySyncCount: asNumber(ram["dirty-sync-count"], "dirty-sync-count"),
      normal: asNumber(ram.normal ?? 0, "normal"),
      duplicate: asNumber(ram.duplicate ?? 0, "duplicate"),
    };
    return { runState: look.runState, migration: status, counters };
  }

  /** `cont`; resolves when it runs. @throws {KvmError} `failed` with QEMU's words */
  async resume(): Promise<void> {
    const vm = this.#there();
    try {
      await vm.qmp.execute("cont");
    } catch (cause) {
      throw new KvmError("failed", wordsOf(cause), { cause });
    }
    const runs = await vm.until(
      (look) => look?.runState === "running" || (vm.hasGone ? false : null),
      {
        timeoutMs: ACT_TIMEOUT_MS,
      },
    );
    if (runs !== true) throw new KvmError("failed", "QEMU took the command, and it does not run");
  }

  /** Tells the network where the VM is now; never throws. */
  async announce(): Promise<void> {
    try {
      await this.#vm?.qmp.execute("announce-self", { initial: 50, max: 550, rounds: 5, step: 100 });
    } catch {
      // Its own traffic will, later.
    }
  }

  /** Ends it; at once when it is gone already. @throws {KvmError} `failed` when it stays */
  async quit(): Promise<void> {
    if (this.#vm === null || isGone(this.#process)) return;
    if (await this.#vm.quit(ACT_TIMEOUT_MS)) return;
    throw new KvmError("failed", `Cannot end QEMU ${this.#process.pid}: it is still there`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#vm?.[Symbol.asyncDispose]();
    this.#lock?.[Symbol.dispose]();
  }

  #there(): QemuVm {
    if (this.#vm === null) {
      throw new KvmError("gone", `Cannot run the VM: QEMU ${this.#process.pid} is gone`);
    }
    return this.#vm;
  }
}
