/**
 * Why a vCPU came back from the guest.
 *
 * @see https://docs.kernel.org/virt/kvm/api.html, section 5
 * @module
 */

import { KvmError } from "./errors.ts";
import { kvm_run } from "./kvm_structures.ts";
import { Structure } from "./structure.ts";

/** `KVM_EXIT_*` by number, with what they mean. */
export const exitReasons = {
  0: ["KVM_EXIT_UNKNOWN", "the hardware gave a reason that KVM does not know"],
  1: ["KVM_EXIT_EXCEPTION", "an exception that KVM does not handle"],
  2: ["KVM_EXIT_IO", "the guest used an I/O port"],
  3: ["KVM_EXIT_HYPERCALL", "the guest made a hypercall"],
  4: ["KVM_EXIT_DEBUG", "a breakpoint or a single step"],
  5: ["KVM_EXIT_HLT", "the guest halted"],
  6: ["KVM_EXIT_MMIO", "the guest touched an address that is no memory"],
  7: ["KVM_EXIT_IRQ_WINDOW_OPEN", "the guest can take an interrupt now"],
  8: ["KVM_EXIT_SHUTDOWN", "the guest shut down: a triple fault, or a reset"],
  9: ["KVM_EXIT_FAIL_ENTRY", "the hardware refused to enter the guest"],
  10: ["KVM_EXIT_INTR", "a signal came"],
  11: ["KVM_EXIT_SET_TPR", "the guest changed its task priority"],
  12: ["KVM_EXIT_TPR_ACCESS", "the guest touched its task priority"],
  16: ["KVM_EXIT_NMI", "a non-maskable interrupt"],
  17: ["KVM_EXIT_INTERNAL_ERROR", "KVM failed"],
  19: ["KVM_EXIT_PAPR_HCALL", "the guest made a hypercall"],
  21: ["KVM_EXIT_WATCHDOG", "the guest's watchdog expired"],
  24: ["KVM_EXIT_SYSTEM_EVENT", "the guest asked for a shutdown or reset"],
  26: ["KVM_EXIT_IOAPIC_EOI", "the guest ended an interrupt"],
  27: ["KVM_EXIT_HYPERV", "a Hyper-V feature"],
  29: ["KVM_EXIT_X86_RDMSR", "the guest read a model-specific register"],
  30: ["KVM_EXIT_X86_WRMSR", "the guest wrote a model-specific register"],
  31: ["KVM_EXIT_DIRTY_RING_FULL", "the dirty ring is full"],
  33: ["KVM_EXIT_X86_BUS_LOCK", "the guest locked the bus"],
  34: ["KVM_EXIT_XEN", "a Xen feature"],
  37: ["KVM_EXIT_NOTIFY", "the guest kept the CPU too long without an event window"],
} as const satisfies Record<number, readonly [name: string, meaning: string]>;

/** `KVM_INTERNAL_ERROR_*`. */
const internalErrors: Record<number, string> = {
  1: "it cannot emulate an instruction",
  2: "an exception came while another was delivered",
  3: "an event could not be delivered",
  4: "the hardware gave an unexpected reason",
};

/** Why `KVM_RUN` returned. Data is copied. */
export type VcpuExit =
  /** An I/O port: `count` items of `size` bytes each. For `in` the answer goes to `Vcpu.answer`. */
  | {
    kind: "io";
    direction: "in" | "out";
    port: number;
    size: number;
    count: number;
    /** What the guest wrote; zeros for `in`. */
    data: Uint8Array;
  }
  /** Memory that no slot has. */
  | { kind: "mmio"; address: bigint; isWrite: boolean; data: Uint8Array }
  /** `hlt`, and nothing in the kernel that could wake it. */
  | { kind: "hlt" }
  /** A triple fault. */
  | { kind: "shutdown" }
  /** The CPU refused the guest's state. */
  | { kind: "failEntry"; hardwareReason: bigint; cpu: number }
  /** KVM gave up; `data` is for its developers. */
  | { kind: "internalError"; suberror: number; data: bigint[] }
  /** A signal, or `immediate_exit`: the guest can go on. */
  | { kind: "interrupted" }
  /** Anything else, by its number. */
  | { kind: "other"; reason: number };

/** `KVM_EXIT_IO_OUT`. */
const IO_OUT = 1;

/**
 * Reads the exit from `struct kvm_run`.
 *
 * @param window all of the window into the vCPU: data of port I/O lie behind the structure
 */
export function decodeExit(window: Uint8Array<ArrayBuffer>): VcpuExit {
  const run = new Structure(kvm_run, window);
  const reason = run.get("exit_reason");
  switch (reason) {
    case 2: {
      const size = run.get("io.size"), count = run.get("io.count");
      const offset = Number(run.get("io.data_offset"));
      return {
        kind: "io",
        direction: run.get("io.direction") === IO_OUT ? "out" : "in",
        port: run.get("io.port"),
        size,
        count,
        data: window.slice(offset, offset + size * count),
      };
    }
    case 5:
      return { kind: "hlt" };
    case 6:
      return {
        kind: "mmio",
        address: run.get("mmio.phys_addr"),
        isWrite: run.get("mmio.is_write") !== 0,
        data: run.get("mmio.data").slice(0, run.get("mmio.len")),
      };
    case 8:
      return { kind: "shutdown" };
    case 9:
      return {
        kind: "failEntry",
        hardwareReason: run.get("fail_entry.hardware_entry_failure_reason"),
        cpu: run.get("fail_entry.cpu"),
      };
    case 10:
      return { kind: "interrupted" };
    case 17: {
      const words = new BigUint64Array(run.get("internal.data").slice().buffer);
      const count = Math.min(run.get("internal.ndata"), words.length);
      return {
        kind: "internalError",
        suberror: run.get("internal.suberror"),
        data: [...words.subarray(0, count)],
      };
    }
    default:
      return { kind: "other", reason };
  }
}

/**
 * An exit in words: what happened, and the number that documents have it under.
 *
 * @example
 * ```ts
 * import { describeExit } from "./vcpu_exit.ts";
 * import { equal } from "node:assert/strict";
 *
 * equal(
 *   describeExit({ kind: "shutdown" }),
 *   "the guest shut down: a triple fault, or a reset (KVM_EXIT_SHUTDOWN, 8)",
 * );
 * ```
 */
export function describeExit(exit: VcpuExit): string {
  switch (exit.kind) {
    case "io":
      return withReason(2, `${exit.direction} at port 0x${exit.port.toString(16)}`);
    case "hlt":
      return withReason(5);
    case "mmio":
      return withReason(
        6,
        `${exit.isWrite ? "write" : "read"} at 0x${exit.address.toString(16)}`,
      );
    case "shutdown":
      return withReason(8);
    case "failEntry":
      return withReason(9, `hardware reason 0x${exit.hardwareReason.toString(16)}`);
    case "internalError":
      return withReason(17, internalErrors[exit.suberror] ?? `suberror ${exit.suberror}`);
    case "interrupted":
      return withReason(10);
    case "other":
      return withReason(exit.reason);
  }
}

/** The error for an exit that its receiver has no use for: `failed`, with the exit in words. */
export function exitError(what: string, exit: VcpuExit): KvmError {
  return new KvmError("failed", `${what}: ${describeExit(exit)}`);
}

function withReason(reason: number, detail?: string): string {
  const known: readonly [string, string] | undefined =
    exitReasons[reason as keyof typeof exitReasons];
  const [name, meaning] = known ?? ["exit reason", "no reason that is known here"];
  return `${meaning}${detail === undefined ? "" : `: ${detail}`} (${name}, ${reason})`;
}
