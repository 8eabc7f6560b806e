/**
 * The ioctls of /dev/kvm that this project uses: one table, and the numbers by the kernel's rule.
 *
 * @see https://docs.kernel.org/virt/kvm/api.html
 * @module
 */

import { KvmError } from "./errors.ts";
import { kvmStructures } from "./kvm_structures.ts";
import { errnoError, errnos, lastErrno, libc } from "./libc.ts";

/** The only version there ever was since Linux 2.6.22. API document, section 4.1. */
export const KVM_API_VERSION = 12;

/** `KVMIO`, the type byte of every request. */
const KVMIO = 0xae;

/** Capabilities by name. @see linux/kvm.h */
export const kvmCapabilities = {
  KVM_CAP_IRQCHIP: 0,
  KVM_CAP_USER_MEMORY: 3,
  KVM_CAP_SET_TSS_ADDR: 4,
  KVM_CAP_EXT_CPUID: 7,
  KVM_CAP_NR_VCPUS: 9,
  KVM_CAP_NR_MEMSLOTS: 10,
  KVM_CAP_MP_STATE: 14,
  KVM_CAP_SYNC_MMU: 16,
  KVM_CAP_SET_IDENTITY_MAP_ADDR: 37,
  KVM_CAP_ADJUST_CLOCK: 39,
  KVM_CAP_VCPU_EVENTS: 41,
  KVM_CAP_DEBUGREGS: 50,
  KVM_CAP_XSAVE: 55,
  KVM_CAP_XCRS: 56,
  KVM_CAP_TSC_CONTROL: 60,
  KVM_CAP_GET_TSC_KHZ: 61,
  KVM_CAP_MAX_VCPUS: 66,
  KVM_CAP_ENABLE_CAP_VM: 98,
  KVM_CAP_IMMEDIATE_EXIT: 136,
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: 168,
} as const;

/** Names in {@linkcode kvmCapabilities}. */
export type KvmCapability = keyof typeof kvmCapabilities;

/** What the argument of an ioctl is: a structure by name, or its length in bytes; and who reads it. */
interface Ioctl {
  /** Low byte of the request. */
  readonly nr: number;
  /** `_IO` carries no data; `_IOW`: the kernel reads, `_IOR`: it writes. */
  readonly direction: "none" | "write" | "read" | "readWrite";
  /** The structure, or a length; absent without data. */
  readonly data?: keyof typeof kvmStructures | number;
  /** Absent: "basic", there since API version 12. */
  readonly capability?: KvmCapability;
  /** Of the API document. */
  readonly section: string;
}

/** The table. */
export const kvmIoctls = {
  // System, on /dev/kvm.
  KVM_GET_API_VERSION: { nr: 0x00, direction: "none", section: "4.1" },
  KVM_CREATE_VM: { nr: 0x01, direction: "none", section: "4.2" },
  KVM_GET_MSR_INDEX_LIST: {
    nr: 0x02,
    direction: "readWrite",
    data: "kvm_msr_list",
    section: "4.3",
  },
  KVM_CHECK_EXTENSION: { nr: 0x03, direction: "none", section: "4.4" },
  KVM_GET_VCPU_MMAP_SIZE: { nr: 0x04, direction: "none", section: "4.5" },
  KVM_GET_SUPPORTED_CPUID: {
    nr: 0x05,
    direction: "readWrite",
    data: "kvm_cpuid2",
    capability: "KVM_CAP_EXT_CPUID",
    section: "4.46",
  },
  // VM.
  KVM_CREATE_VCPU: { nr: 0x41, direction: "none", section: "4.7" },
  KVM_GET_DIRTY_LOG: { nr: 0x42, direction: "write", data: "kvm_dirty_log", section: "4.8" },
  KVM_SET_USER_MEMORY_REGION: {
    nr: 0x46,
    direction: "write",
    data: "kvm_userspace_memory_region",
    capability: "KVM_CAP_USER_MEMORY",
    section: "4.35",
  },
  KVM_SET_TSS_ADDR: {
    nr: 0x47,
    direction: "none",
    capability: "KVM_CAP_SET_TSS_ADDR",
    section: "4.36",
  },
  KVM_SET_IDENTITY_MAP_ADDR: {
    nr: 0x48,
    direction: "write",
    data: 8,
    capability: "KVM_CAP_SET_IDENTITY_MAP_ADDR",
    section: "4.40",
  },
  KVM_CREATE_IRQCHIP: {
    nr: 0x60,
    direction: "none",
    capability: "KVM_CAP_IRQCHIP",
    section: "4.24",
  },
  KVM_SET_CLOCK: {
    nr: 0x7b,
    direction: "write",
    data: "kvm_clock_data",
    capability: "KVM_CAP_ADJUST_CLOCK",
    section: "4.30",
  },
  KVM_GET_CLOCK: {
    nr: 0x7c,
    direction: "read",
    data: "kvm_clock_data",
    capability: "KVM_CAP_ADJUST_CLOCK",
    section: "4.29",
  },
  KVM_ENABLE_CAP: {
    nr: 0xa3,
    direction: "write",
    data: "kvm_enable_cap",
    capability: "KVM_CAP_ENABLE_CAP_VM",
    section: "4.37",
  },
  KVM_CLEAR_DIRTY_LOG: {
    nr: 0xc0,
    direction: "readWrite",
    data: "kvm_clear_dirty_log",
    capability: "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
    section: "4.117",
  },
  // vCPU.
  KVM_RUN: { nr: 0x80, direction: "none", section: "4.10" },
  KVM_GET_REGS: { nr: 0x81, direction: "read", data: "kvm_regs", section: "4.11" },
  KVM_SET_REGS: { nr: 0x82, direction: "write", data: "kvm_regs", section: "4.12" },
  KVM_GET_SREGS: { nr: 0x83, direction: "read", data: "kvm_sregs", section: "4.13" },
  KVM_SET_SREGS: { nr: 0x84, direction: "write", data: "kvm_sregs", section: "4.14" },
  KVM_GET_MSRS: { nr: 0x88, direction: "readWrite", data: "kvm_msrs", section: "4.18" },
  KVM_SET_MSRS: { nr: 0x89, direction: "write", data: "kvm_msrs", section: "4.19" },
  KVM_GET_FPU: { nr: 0x8c, direction: "read", data: "kvm_fpu", section: "4.22" },
  KVM_SET_FPU: { nr: 0x8d, direction: "write", data: "kvm_fpu", section: "4.23" },
  KVM_GET_LAPIC: {
    nr: 0x8e,
    direction: "read",
    data: "kvm_lapic_state",
    capability: "KVM_CAP_IRQCHIP",
    section: "4.57",
  },
  KVM_SET_LAPIC: {
    nr: 0x8f,
    direction: "write",
    data: "kvm_lapic_state",
    capability: "KVM_CAP_IRQCHIP",
    section: "4.58",
  },
  KVM_SET_CPUID2: {
    nr: 0x90,
    direction: "write",
    data: "kvm_cpuid2",
    capability: "KVM_CAP_EXT_CPUID",
    section: "4.20",
  },
  KVM_GET_MP_STATE: {
    nr: 0x98,
    direction: "read",
    data: "kvm_mp_state",
    capability: "KVM_CAP_MP_STATE",
    section: "4.38",
  },
  KVM_SET_MP_STATE: {
    nr: 0x99,
    direction: "write",
    data: "kvm_mp_state",
    capability: "KVM_CAP_MP_STATE",
    section: "4.39",
  },
  KVM_GET_VCPU_EVENTS: {
    nr: 0x9f,
    direction: "read",
    data: "kvm_vcpu_events",
    capability: "KVM_CAP_VCPU_EVENTS",
    section: "4.31",
  },
  KVM_SET_VCPU_EVENTS: {
    nr: 0xa0,
    direction: "write",
    data: "kvm_vcpu_events",
    capability: "KVM_CAP_VCPU_EVENTS",
    section: "4.32",
  },
  KVM_GET_DEBUGREGS: {
    nr: 0xa1,
    direction: "read",
    data: "kvm_debugregs",
    capability: "KVM_CAP_DEBUGREGS",
    section: "4.33",
  },
  KVM_SET_DEBUGREGS: {
    nr: 0xa2,
    direction: "write",
    data: "kvm_debugregs",
    capability: "KVM_CAP_DEBUGREGS",
    section: "4.34",
  },
  KVM_GET_TSC_KHZ: {
    nr: 0xa3,
    direction: "none",
    capability: "KVM_CAP_GET_TSC_KHZ",
    section: "4.56",
  },
  KVM_GET_XSAVE: {
    nr: 0xa4,
    direction: "read",
    data: "kvm_xsave",
    capability: "KVM_CAP_XSAVE",
    section: "4.42",
  },
  KVM_SET_XSAVE: {
    nr: 0xa5,
    direction: "write",
    data: "kvm_xsave",
    capability: "KVM_CAP_XSAVE",
    section: "4.43",
  },
  KVM_GET_XCRS: {
    nr: 0xa6,
    direction: "read",
    data: "kvm_xcrs",
    capability: "KVM_CAP_XCRS",
    section: "4.44",
  },
  KVM_SET_XCRS: {
    nr: 0xa7,
    direction: "write",
    data: "kvm_xcrs",
    capability: "KVM_CAP_XCRS",
    section: "4.45",
  },
} as const satisfies Record<string, Ioctl>;

/** Names in {@linkcode kvmIoctls}. */
export type IoctlName = keyof typeof kvmIoctls;

/** `_IOC_WRITE` and `_IOC_READ`, as seen from user space. @see asm-generic/ioctl.h */
const directionBits = { none: 0, write: 1, read: 2, readWrite: 3 } as const;

/**
 * The number of a request: direction in bits 30 and 31, size of the argument in 16 to 29, type in 8 to 15, number below.
 *
 * @example
 * ```ts
 * import { ioctlNumber } from "./ioctls.ts";
 * import { equal } from "node:assert/strict";
 *
 * equal(ioctlNumber("KVM_RUN"), 0xae80);
 * equal(ioctlNumber("KVM_GET_REGS"), 0x8090ae81);
 * ```
 * @see https://docs.kernel.org/driver-api/ioctl.html
 */
export function ioctlNumber(name: IoctlName): number {
  const { nr, direction, data }: Ioctl = kvmIoctls[name];
  const bytes = data === undefined
    ? 0
    : typeof data === "number"
    ? data
    : kvmStructures[data].bytes;
  return (directionBits[direction] << 30 | bytes << 16 | KVMIO << 8 | nr) >>> 0;
}

const numbers = new Map<IoctlName, number>();

function numberOf(name: IoctlName): number {
  let number = numbers.get(name);
  if (number === undefined) numbers.set(name, number = ioctlNumber(name));
  return number;
}

/**
 * An ioctl whose argument is memory, at least as long as the table says.
 *
 * @returns what the kernel returned, never negative
 * @throws {KvmError} as {@linkcode ioctlError}
 */
export function ioctlBuffer(
  fd: number,
  name: IoctlName,
  argument: Uint8Array<ArrayBuffer>,
): number {
  const { data }: Ioctl = kvmIoctls[name];
  const least = data === undefined || typeof data === "number" ? data : kvmStructures[data].bytes;
  if (least === undefined || argument.length < least) {
    throw new RangeError(`Cannot call ${name}: ${argument.length} bytes of argument, not ${least}`);
  }
  // SAFETY: the argument is as long as its structure, whose flexible part is counted inside it by the caller, and is
  // referenced until the call has returned.
  const result = libc().ioctlBuffer(fd, numberOf(name), argument);
  if (result < 0) throw ioctlError(name, lastErrno());
  return result;
}

/**
 * An ioctl whose argument is a number, or nothing.
 *
 * @returns what the kernel returned, never negative
 * @throws {KvmError} as {@linkcode ioctlError}
 */
export function ioctlValue(fd: number, name: IoctlName, argument = 0): number {
  // SAFETY: numbers only.
  const result = libc().ioctlValue(fd, numberOf(name), BigInt(argument));
  if (result < 0) throw ioctlError(name, lastErrno());
  return result;
}

/**
 * The error of a failed ioctl: `unsupported` when this KVM does not know it, `locked` when another hypervisor has the CPU, else
 * as errnoError.
 */
export function ioctlError(name: IoctlName, errno: number): KvmError {
  const what = `Cannot call ${name}`;
  if (errno === errnos.ENOTTY) {
    const { capability }: Ioctl = kvmIoctls[name];
    const lacks = capability === undefined ? "" : `; it lacks ${capability}`;
    return new KvmError("unsupported", `${what}: this KVM does not know it${lacks} (ENOTTY)`);
  }
  if (errno === errnos.EBUSY) {
    return new KvmError(
      "locked",
      `${what}: another hypervisor or an earlier user has the resource (EBUSY)`,
    );
  }
  return errnoError(what, errno);
}
