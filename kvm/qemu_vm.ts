/**
 * A QEMU under our hands, whichever side of a migration it is: its monitor, its process, the lock on it.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { asNumber, asObject, isObject, type JsonObject } from "./json_values.ts";
import { peerCredentials } from "./peer_credentials.ts";
import { cpuSeconds, isGone, type ProcessFacts, readProcess } from "./process.ts";
import { type QemuFacts, readFacts, readRunState, refuseCapabilities } from "./qemu_facts.ts";
import { QemuLock } from "./qemu_lock.ts";
import { QmpClient } from "./qmp.ts";
import { QmpError } from "./qmp_error.ts";

/** How often `/proc` is asked once QMP has closed: nothing tells when a process ends. */
const GONE_POLL_MS = 50;
/** A monitor that has closed says no more; this long its process may take to end. */
const LOST_TIMEOUT_MS = 5_000;
/** For questions that are asked again: a hung QEMU is to be noticed, not waited for. */
const LOOK_TIMEOUT_MS = 1_000;

/** Settings that both sides of a migration are attached with. */
export interface AttachOptions {
  /** Where locks and sockets go, instead of `/run/sealift` or `$XDG_RUNTIME_DIR/sealift`. */
  runtimeDirectory?: string;
}

/** What QEMU says of its current or last migration. */
export interface MigrationInfo {
  /** `setup`, `active`, `completed`, ...; null when there was none. */
  status: string | null;
  /** Why it failed, in QEMU's words. */
  errorText: string | null;
  /** QEMU's estimate; null before the first sync. */
  expectedDowntimeMs: number | null;
  /** QEMU's counters of RAM, verbatim. */
  ram: JsonObject;
}

/** Run state and migration of a VM, asked in this order: the run state decides. */
export interface VmLook {
  /** For instance `running`. */
  runState: string;
  /** The current or last migration. */
  migration: MigrationInfo;
}

/** A locked QEMU. The lock and the connection end with `await using`. */
export class QemuVm implements AsyncDisposable {
  /** Its monitor. */
  readonly qmp: QmpClient;
  /** The process behind the monitor. */
  readonly process: ProcessFacts;
  /** What the VM is, as of `attach`. */
  readonly facts: QemuFacts;
  /** Resolves when the process is gone, with whether all that it said was read; never, once disposed. */
  readonly gone: Promise<boolean>;
  readonly #lock: QemuLock;
  readonly #watching: Promise<void>;
  #disposed = false;

  private constructor(
    parts: { qmp: QmpClient; process: ProcessFacts; facts: QemuFacts; lock: QemuLock },
  ) {
    this.qmp = parts.qmp;
    this.process = parts.process;
    this.facts = parts.facts;
    this.#lock = parts.lock;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.gone = promise;
    this.#watching = this.#watch(resolve);
  }

  /**
   * Connects to the monitor at `qmpPath`, finds the process behind it, locks it and asks what it is.
   *
   * @param options.check called with the run state and the migration before anything else is asked: throws to refuse
   * @throws {QmpError} as QmpClient.connect
   * @throws {KvmError} `locked`, `peer`, `capability`, `denied`, and what `check` throws
   */
  static async attach(
    qmpPath: string,
    options: AttachOptions & { check(look: VmLook): void },
  ): Promise<QemuVm> {
    await using stack = new AsyncDisposableStack();
    const qmp = stack.use(await QmpClient.connect(qmpPath));
    const process = readProcess(peerCredentials(qmp.unsafeConn).pid);
    const { runtimeDirectory: directory } = options;
    const lock = stack.use(QemuLock.take(process, directory === undefined ? {} : { directory }));
    const runState = await readRunState(qmp);
    options.check({ runState, migration: await readMigration(qmp) });
    const facts = await readFacts(qmp, process);
    refuseCapabilities(facts.capabilities);
    stack.move();
    return new QemuVm({ qmp, process, facts, lock });
  }

  /** Whether the process is gone and everything that it said was read. */
  get hasGone(): boolean {
    return this.qmp.readToEnd && isGone(this.process);
  }

  /** Run state and migration now; null when QEMU does not answer just now or QMP has closed. */
  async look(): Promise<VmLook | null> {
    try {
      const runState = await readRunState(this.qmp, { timeoutMs: LOOK_TIMEOUT_MS });
      return { runState, migration: await readMigration(this.qmp, { timeoutMs: LOOK_TIMEOUT_MS }) };
    } catch (error) {
      // However its monitor has ended: it is asked nothing any more.
      if (isSilence(error) || this.qmp.hasEnded) return null;
      throw error;
    }
  }

  /** The run state now, or `gone`. @throws {QmpError} when QEMU does not answer and is not gone */
  async status(): Promise<string> {
    try {
      return await readRunState(this.qmp);
    } catch (error) {
      // A monitor that has closed is mostly one of a process that is ending.
      const patienceMs = this.qmp.hasEnded ? LOST_TIMEOUT_MS : 0;
      if (isSilence(error) && await this.goneWithin(patienceMs)) return "gone";
      throw error;
    }
  }

  /** Resolves at QEMU's next event, and after `ms` at the latest. */
  changed(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const off = this.qmp.on(() => resolve());
    const timer = setTimeout(resolve, ms);
    return promise.finally(() => {
      clearTimeout(timer);
      off();
    });
  }

  /**
   * Calls `decide` with what QEMU says until it returns something else than null: at each event, and every 50 ms.
   * `decide` gets null while QEMU does not answer; `hasGone` tells more then.
   *
   * @returns what `decide` decided, or null when `timeoutMs` have passed
   * @throws {QmpError} `closed` when the monitor was lost and the process lives on, or is gone and what it said last was
   * not understood: nobody can tell what it does, or did
   */
  async until<T>(
    decide: (look: VmLook | null) => T | null,
    options: { timeoutMs?: number } = {},
  ): Promise<T | null> {
    const deadlineMs = performance.now() + (options.timeoutMs ?? Infinity);
    let lostAtMs: number | null = null;
    for (let waitMs = 1;; waitMs = Math.min(2 * waitMs, GONE_POLL_MS)) {
      const look = await this.look();
      const decided = decide(look);
      if (decided !== null) return decided;
      const nowMs = performance.now();
      if (nowMs >= deadlineMs) return null;
      if (this.qmp.hasEnded) {
        lostAtMs ??= nowMs;
        if (!this.qmp.readToEnd && isGone(this.process)) {
          throw new QmpError(
            "closed",
            `Cannot tell how QEMU ${this.process.pid} stood: it is gone, and what it said last was not understood`,
          );
        }
      }
      if (lostAtMs !== null && nowMs - lostAtMs > LOST_TIMEOUT_MS) {
        throw new QmpError(
          "closed",
          `Cannot tell how QEMU ${this.process.pid} stands: it lives, but its monitor has closed`,
        );
      }
      await this.changed(waitMs);
    }
  }

  /** Whether the process is gone within `timeoutMs`. */
  async goneWithin(timeoutMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + timeoutMs;
    // What it said last does not matter to who ends it.
    while (!this.qmp.hasEnded || !isGone(this.process)) {
      if (performance.now() >= deadlineMs) return false;
      await delay(GONE_POLL_MS / 5);
    }
    return true;
  }

  /** Asks QEMU to end; whether its process is gone within `timeoutMs`. */
  async quit(timeoutMs: number): Promise<boolean> {
    try {
      await this.qmp.execute("quit", undefined, { timeoutMs });
    } catch (error) {
      // It may be gone before its answer is.
      if (!isSilence(error)) throw error;
    }
    return await this.goneWithin(timeoutMs);
  }

  /** Refuses anybody but this QEMU at the other end. @throws {KvmError} `peer` */
  checkPeer(conn: Deno.UnixConn): void {
    const { pid } = peerCredentials(conn);
    if (pid === this.process.pid) return;
    throw new KvmError(
      "peer",
      `Cannot use the migration socket: process ${pid} is there, not QEMU ${this.process.pid}`,
    );
  }

  /** CPU seconds that the process has used; null when it is gone. */
  cpuSeconds(): number | null {
    return isGone(this.process) ? null : cpuSeconds(this.process.pid);
  }

  /** Ends the connection and the lock. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.qmp[Symbol.asyncDispose]();
    await this.#watching;
    this.#lock[Symbol.dispose]();
  }

  async #watch(resolve: (allRead: boolean) => void): Promise<void> {
    await this.qmp.closed;
    while (!this.#disposed) {
      // A line that was not understood may have hidden a RESUME.
      if (isGone(this.process)) return resolve(this.qmp.readToEnd);
      await delay(GONE_POLL_MS);
    }
  }
}

/** What QEMU says of its current or last migration. @throws {QmpError} */
export async function readMigration(
  qmp: QmpClient,
  options: { timeoutMs?: number } = {},
): Promise<MigrationInfo> {
  const answer = asObject(await qmp.execute("query-migrate", undefined, options), "query-migrate");
  const expected = answer["expected-downtime"];
  const text = answer["error-desc"];
  return {
    status: typeof answer.status === "string" ? answer.status : null,
    errorText: typeof text === "string" ? text : null,
    expectedDowntimeMs: expected === undefined ? null : asNumber(expected, "expected-downtime"),
    ram: isObject(answer.ram) ? answer.ram : {},
  };
}

/** Whether an error only says that QEMU does not answer, or not any more. */
export function isSilence(error: unknown): boolean {
  return error instanceof QmpError && (error.code === "timeout" || error.code === "closed");
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
