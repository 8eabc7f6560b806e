/**
 * A vCPU on a thread of its own: KVM_RUN blocks whoever calls it.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { kickThread, prepareKickSignal } from "./kick_signal.ts";
import { kvm_run } from "./kvm_structures.ts";
import { Structure } from "./structure.ts";
import type { Vcpu } from "./vcpu.ts";
import { type Beat, VcpuControl } from "./vcpu_control.ts";
import type { VcpuExit } from "./vcpu_exit.ts";
import type { VcpuWorkerMessage, VcpuWorkerStart } from "./vcpu_worker.ts";

/** A signal that comes between two instructions of a thread that is about to sleep is repeated. */
const KICK_INTERVAL_MS = 50;

/**
 * Runs a vCPU elsewhere, and stops it from here.
 *
 * `immediate_exit` in the mapped `struct kvm_run` together with a signal brings the thread out of the guest, wherever it is; ending
 * a worker alone does not.
 */
export class VcpuThread implements Disposable {
  readonly #vcpu: Vcpu;
  readonly #worker: Worker;
  readonly #control: VcpuControl;
  readonly #run: Structure<typeof kvm_run>;
  /** Runs whose end was not heard of yet: after `stop` there may be two. */
  readonly #runs = new Map<number, PromiseWithResolvers<VcpuExit>>();
  #threadId = 0;
  #lastRun = 0;
  #disposed = false;

  private constructor(vcpu: Vcpu, worker: Worker, control: VcpuControl) {
    this.#vcpu = vcpu;
    this.#worker = worker;
    this.#control = control;
    this.#run = new Structure(kvm_run, vcpu.unsafeWindow.bytes);
  }

  /**
   * Makes the thread; the vCPU does not run yet.
   *
   * @param options.beatPort an I/O port: what the guest writes there is a heartbeat, and does not end the run
   * @param options.paceMs least milliseconds between heartbeats, 0 by default
   * @throws {KvmError} `unsupported` when it cannot be started
   */
  static async start(
    vcpu: Vcpu,
    options: { beatPort: number; paceMs?: number },
  ): Promise<VcpuThread> {
    prepareKickSignal();
    const control = new VcpuControl();
    control.paceMs = options.paceMs ?? 0;
    const worker = new Worker(new URL("./vcpu_worker.ts", import.meta.url), { type: "module" });
    const thread = new VcpuThread(vcpu, worker, control);
    const ready = Promise.withResolvers<number>();
    worker.onerror = (event) => {
      event.preventDefault();
      const error = new KvmError("unsupported", `Cannot run a vCPU's thread: ${event.message}`);
      ready.reject(error);
      for (const { reject } of thread.#runs.values()) reject(error);
    };
    worker.onmessage = ({ data }: MessageEvent<VcpuWorkerMessage>) => {
      if (data.type === "ready") return ready.resolve(data.threadId);
      const out = thread.#runs.get(data.run);
      thread.#runs.delete(data.run);
      if (data.type === "out") out?.resolve(data.exit);
      else out?.reject(new KvmError("failed", data.text));
    };
    worker.postMessage(
      {
        fd: vcpu.unsafeFd,
        windowAddress: vcpu.unsafeWindow.unsafeAddress,
        windowBytes: vcpu.unsafeWindow.bytes.length,
        control: control.buffer,
        beatPort: options.beatPort,
      } satisfies VcpuWorkerStart,
    );
    try {
      thread.#threadId = await ready.promise;
    } catch (error) {
      worker.terminate();
      throw error;
    }
    return thread;
  }

  /** Whether the vCPU may be in the guest just now. */
  get running(): boolean {
    return this.#control.running;
  }

  /** Whether the last run ended by itself: known at once, before the promise of `run` says how. */
  get endedUnasked(): boolean {
    return this.#control.endedUnasked;
  }

  /** Heartbeats so far. */
  get beatCount(): number {
    return this.#control.beatCount;
  }

  /** Least milliseconds between heartbeats. */
  get paceMs(): number {
    return this.#control.paceMs;
  }

  set paceMs(value: number) {
    this.#control.paceMs = value;
  }

  /** The heartbeats from number `from` on, as far as they are kept (the last 4096). */
  beats(from = 0): Beat[] {
    return this.#control.beats(from);
  }

  /**
   * Lets the guest run.
   *
   * @returns resolves when it is out again: `interrupted` after {@linkcode VcpuThread.stop}, else what the guest needs.
   * Rejects with `failed` when KVM_RUN fails
   * @throws {KvmError} `state` when it runs already, or was disposed
   */
  run(): Promise<VcpuExit> {
    if (this.#disposed || this.#control.running) {
      throw new KvmError(
        "state",
        `Cannot run a vCPU: it ${this.#disposed ? "was closed" : "runs already"}`,
      );
    }
    const out = Promise.withResolvers<VcpuExit>();
    this.#runs.set(++this.#lastRun, out);
    this.#run.set("immediate_exit", 0);
    this.#control.stopping = this.#control.endedUnasked = false;
    this.#control.running = true;
    this.#worker.postMessage(this.#lastRun);
    return out.promise;
  }

  /** Brings the vCPU out of the guest and waits for that on this thread: microseconds, for a guest in whatever loop. */
  stop(): void {
    if (!this.#control.running) return;
    this.#run.set("immediate_exit", 1);
    this.#control.stopping = true;
    do kickThread(this.#threadId); while (!this.#control.waitStopped(KICK_INTERVAL_MS));
  }

  /** Stops the vCPU and ends the thread. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.stop();
    this.#disposed = true;
    this.#worker.terminate();
    // Whoever waits for the run is told what `stop` would have told.
    for (const { resolve } of this.#runs.values()) resolve({ kind: "interrupted" });
  }
}
