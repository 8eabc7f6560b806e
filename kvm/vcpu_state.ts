/**
 * The state of vCPUs as bytes, and back.
 *
 * Little-endian: magic u32, version u32, count of vCPUs u32, then for each: count of parts u32, and each part as its number u32,
 * length u32, bytes. Parts are the kernel's structures; MSRs are index u32, 0 u32, value u64 each.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import type { IoctlName, KvmCapability } from "./ioctls.ts";
import { kvmStructures } from "./kvm_structures.ts";
import type { Vcpu } from "./vcpu.ts";

/** "SVCP". */
const MAGIC = 0x50435653;
const VERSION = 1;
/** Of one vCPU: XSAVE is the largest part. */
const MAX_STATE_BYTES = 64 * 1024;
const MAX_VCPUS = 255;
const MSR_BYTES = 16;
const MSRS = 100;

interface Part {
  readonly number: number;
  readonly structure: keyof typeof kvmStructures;
  readonly get: IoctlName;
  readonly set: IoctlName;
  /** Left out where KVM lacks it. */
  readonly capability?: KvmCapability;
}

/**
 * In the order in which they are restored: what the CPU is, before what it holds; registers last. MSRs follow the first.
 * A local APIC exists only with an in-kernel interrupt controller.
 */
const parts = [
  { number: 1, structure: "kvm_sregs", get: "KVM_GET_SREGS", set: "KVM_SET_SREGS" },
  {
    number: 2,
    structure: "kvm_xcrs",
    get: "KVM_GET_XCRS",
    set: "KVM_SET_XCRS",
    capability: "KVM_CAP_XCRS",
  },
  {
    number: 3,
    structure: "kvm_xsave",
    get: "KVM_GET_XSAVE",
    set: "KVM_SET_XSAVE",
    capability: "KVM_CAP_XSAVE",
  },
  { number: 4, structure: "kvm_fpu", get: "KVM_GET_FPU", set: "KVM_SET_FPU" },
  {
    number: 5,
    structure: "kvm_vcpu_events",
    get: "KVM_GET_VCPU_EVENTS",
    set: "KVM_SET_VCPU_EVENTS",
    capability: "KVM_CAP_VCPU_EVENTS",
  },
  {
    number: 6,
    structure: "kvm_debugregs",
    get: "KVM_GET_DEBUGREGS",
    set: "KVM_SET_DEBUGREGS",
    capability: "KVM_CAP_DEBUGREGS",
  },
  { number: 7, structure: "kvm_lapic_state", get: "KVM_GET_LAPIC", set: "KVM_SET_LAPIC" },
  {
    number: 8,
    structure: "kvm_mp_state",
    get: "KVM_GET_MP_STATE",
    set: "KVM_SET_MP_STATE",
    capability: "KVM_CAP_MP_STATE",
  },
  { number: 9, structure: "kvm_regs", get: "KVM_GET_REGS", set: "KVM_SET_REGS" },
] as const satisfies readonly Part[];

/** What saving and loading need to know of the VM. */
export interface VcpuStateOptions {
  /** Asks KVM, as `Vm.check` does. */
  check: (capability: KvmCapability) => number;
  /** Model-specific registers to keep, from `Kvm.msrIndices`. */
  msrIndices: Uint32Array;
  /** Whether the VM has an in-kernel interrupt controller, and with it local APICs. */
  hasLocalApic: boolean;
}

/**
 * The state of stopped vCPUs. None may be inside KVM_RUN, nor have an exit that was not gone back into the guest for.
 *
 * @throws {KvmError} `system`
 */
export function saveVcpus(
  vcpus: readonly Vcpu[],
  options: VcpuStateOptions,
): Uint8Array<ArrayBuffer> {
  const writer = new Writer(12 + vcpus.length * MAX_STATE_BYTES);
  writer.u32(MAGIC);
  writer.u32(VERSION);
  writer.u32(vcpus.length);
  for (const vcpu of vcpus) {
    const present = parts.filter((part) => isPresent(part, options));
    writer.u32(present.length + 1);
    for (const part of present) {
      const { bytes } = vcpu.read(part.get, kvmStructures[part.structure]);
      writer.part(part.number, bytes);
    }
    writer.part(MSRS, readMsrs(vcpu, options.msrIndices));
  }
  return writer.bytes();
}

/**
 * Puts stopped vCPUs into a saved state.
 *
 * @param state from {@linkcode saveVcpus}, possibly of another host
 * @throws {KvmError} `stream` when it is malformed or of another number of vCPUs, `unsupported` when this KVM lacks a part of it,
 * `system` when KVM refuses it
 */
export function loadVcpus(
  vcpus: readonly Vcpu[],
  state: Uint8Array,
  options: VcpuStateOptions,
): void {
  for (const [i, saved] of parseVcpus(state, vcpus.length).entries()) {
    const vcpu = vcpus[i]!;
    for (const part of parts) {
      const bytes = saved.get(part.number);
      if (bytes === undefined) continue;
      if (!isPresent(part, options)) {
        throw new KvmError("unsupported", `Cannot load a vCPU: this KVM has no ${part.structure}`);
      }
      vcpu.write(part.set, bytes);
      if (part.structure === "kvm_sregs") writeMsrs(vcpu, saved.get(MSRS)!);
    }
  }
}

/** A map of parts for each vCPU, with every length checked. @throws {KvmError} `stream` */
function parseVcpus(state: Uint8Array, vcpuCount: number): Map<number, Uint8Array<ArrayBuffer>>[] {
  const view = new DataView(state.buffer, state.byteOffset, state.length);
  let at = 0;
  const u32 = () => {
    if (at + 4 > state.length) refuse("it ends early");
    at += 4;
    return view.getUint32(at - 4, true);
  };
  if (u32() !== MAGIC || u32() !== VERSION) refuse("it is of another kind or version");
  const count = u32();
  if (count !== vcpuCount || count > MAX_VCPUS) {
    refuse(`it has ${count} vCPUs, this VM ${vcpuCount}`);
  }
  const result = [];
  for (let i = 0; i < count; i++) {
    const saved = new Map<number, Uint8Array<ArrayBuffer>>();
    const partCount = u32();
    if (partCount > parts.length + 1) refuse(`it has ${partCount} parts for a vCPU`);
    for (let j = 0; j < partCount; j++) {
      const number = u32(), length = u32();
      const due = parts.find((part) => part.number === number);
      const fits = due !== undefined
        ? length === kvmStructures[due.structure].bytes
        : number === MSRS && length % MSR_BYTES === 0;
      if (!fits || saved.has(number) || at + length > state.length || length > MAX_STATE_BYTES) {
        refuse(`part ${number} of ${length} bytes`);
      }
      saved.set(number, state.slice(at, at + length));
      at += length;
    }
    for (const needed of [1, 9, MSRS]) {
      if (!saved.has(needed)) refuse(`part ${needed} is missing`);
    }
    result.push(saved);
  }
  if (at !== state.length) refuse("there is more in it");
  return result;
}

function isPresent(part: Part, options: VcpuStateOptions): boolean {
  if (part.structure === "kvm_lapic_state") return options.hasLocalApic;
  // XSAVE holds all of what kvm_fpu does.
  if (part.structure === "kvm_fpu") return options.check("KVM_CAP_XSAVE") === 0;
  return part.capability === undefined || options.check(part.capability) > 0;
}

function readMsrs(vcpu: Vcpu, indices: Uint32Array): Uint8Array<ArrayBuffer> {
  const found: [number, bigint][] = [];
  for (const index of indices) {
    const value = vcpu.getMsr(index);
    // Some are listed and not there: they depend on what CPUID says.
    if (value !== null) found.push([index, value]);
  }
  const bytes = new Uint8Array(found.length * MSR_BYTES);
  const view = new DataView(bytes.buffer);
  found.forEach(([index, value], i) => {
    view.setUint32(i * MSR_BYTES, index, true);
    view.setBigUint64(i * MSR_BYTES + 8, value, true);
  });
  return bytes;
}

/** Read-only registers are fine as long as they say the same here. */
function writeMsrs(vcpu: Vcpu, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length; at += MSR_BYTES) {
    const index = view.getUint32(at, true), value = view.getBigUint64(at + 8, true);
    if (vcpu.getMsr(index) === value || vcpu.setMsr(index, value)) continue;
    throw new KvmError(
      "unsupported",
      `Cannot load a vCPU: MSR 0x${index.toString(16)} cannot be 0x${value.toString(16)} here`,
    );
  }
}

function refuse(what: string): never {
  throw new KvmError("stream", `Cannot load vCPUs: ${what}`);
}

class Writer {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  #at = 0;

  constructor(capacityBytes: number) {
    this.#bytes = new Uint8Array(capacityBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  u32(value: number): void {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
  }

  part(number: number, bytes: Uint8Array): void {
    this.u32(number);
    this.u32(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#at);
  }
}
