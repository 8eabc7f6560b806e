/**
 * The thread of one vCPU: runs the guest, keeps its heartbeats, and says why it stopped. Started by `VcpuThread`.
 *
 * @module
 */

/// <reference lib="deno.worker" />

import { libc } from "./libc.ts";
import { runOnce } from "./vcpu.ts";
import { VcpuControl } from "./vcpu_control.ts";
import type { VcpuExit } from "./vcpu_exit.ts";

/** What a worker gets first. */
export interface VcpuWorkerStart {
  /** The vCPU's descriptor. */
  fd: number;
  /** Address and length of its window in this process. */
  windowAddress: bigint;
  /** Its length. */
  windowBytes: number;
  /** The shared words. */
  control: SharedArrayBuffer;
  /** The I/O port whose writes are heartbeats. */
  beatPort: number;
}

/** What a worker says. */
export type VcpuWorkerMessage =
  /** Ready to run; the number of its thread. */
  | { type: "ready"; threadId: number }
  /** Out of the guest, after that run. */
  | { type: "out"; run: number; exit: VcpuExit }
  /** KVM_RUN failed. */
  | { type: "failed"; run: number; text: string };

/** Late by more than this, the guest is not hurried to catch up. */
const MAX_LAG_MS = 100;

let start: VcpuWorkerStart | null = null;

self.onmessage = ({ data }: MessageEvent<VcpuWorkerStart | number>) => {
  if (typeof data !== "number") {
    start = data;
    // SAFETY: takes nothing.
    return say({ type: "ready", threadId: libc().gettid() });
  }
  if (start !== null) runGuest(data, start);
};

function runGuest(run: number, start: VcpuWorkerStart): void {
  const { fd, windowAddress, windowBytes, control: shared, beatPort } = start;
  const control = new VcpuControl(shared);
  let message: VcpuWorkerMessage;
  try {
    // SAFETY: the owner keeps the window mapped while `running` is set; the view does not leave this function.
    const window = new Uint8Array(
      Deno.UnsafePointerView.getArrayBuffer(
        Deno.UnsafePointer.create(windowAddress)!,
        windowBytes,
      ),
    );
    message = { type: "out", run, exit: runUntilExit({ fd, window, control, beatPort }) };
    window.buffer.transfer(0);
  } catch (error) {
    message = { type: "failed", run, text: error instanceof Error ? error.message : String(error) };
  }
  control.endedUnasked = message.type !== "out" || message.exit.kind !== "interrupted";
  // Nothing of the vCPU is touched after this.
  control.running = false;
  say(message);
}

function runUntilExit(
  options: {
    fd: number;
    window: Uint8Array<ArrayBuffer>;
    control: VcpuControl;
    beatPort: number;
  },
): VcpuExit {
  const { fd, window, control, beatPort } = options;
  let dueMs = performance.now();
  for (;;) {
    const exit = runOnce(fd, window);
    if (exit.kind === "interrupted") {
      if (control.stopping) return exit;
      continue;
    }
    if (exit.kind !== "io" || exit.port !== beatPort || exit.direction !== "out") return exit;
    control.beat(exit.data.reduceRight((value, byte) => (value << 8 | byte) >>> 0, 0));
    // An `out` is over only once the guest is entered again: stopping here goes through KVM_RUN too.
    const nowMs = performance.now();
    dueMs = Math.max(dueMs + control.paceMs, nowMs - MAX_LAG_MS);
    if (dueMs > nowMs) control.sleep(dueMs - nowMs);
  }
}

function say(message: VcpuWorkerMessage): void {
  self.postMessage(message);
}
