/**
 * /dev/kvm: what this host's KVM can do, and new VMs.
 *
 * @see https://docs.kernel.org/virt/kvm/api.html
 * @module
 */

import { KvmError } from "./errors.ts";
import {
  ioctlBuffer,
  ioctlValue,
  KVM_API_VERSION,
  kvmCapabilities,
  type KvmCapability,
} from "./ioctls.ts";
import { kvm_cpuid2, kvm_cpuid_entry2 } from "./kvm_structures.ts";
import { FileDescriptor, openFlags } from "./libc.ts";
import { Vm } from "./vm.ts";

/** Far above what any kernel lists (about 60 and 500). */
const MAX_CPUID_ENTRIES = 1024, MAX_MSRS = 4096;

/**
 * The host's KVM.
 *
 * @example A guest of three instructions adds, says the sum, and halts
 * ```ts
 * import { Kvm } from "./kvm.ts";
 * import { deepEqual, equal } from "node:assert/strict";
 *
 * if (Kvm.whyUnavailable() === null) {
 *   using kvm = Kvm.open();
 *   using vm = kvm.createVm();
 *   const memory = vm.addMemory({ guestAddress: 0x1000, bytes: 0x1000 });
 *   memory.bytes.set([
 *     0x00, 0xd8, // add al, bl
 *     0xe6, 0x42, // out 0x42, al
 *     0xf4, // hlt
 *   ]);
 *   const vcpu = vm.createVcpu();
 *   const sregs = vcpu.getSregs(); // after reset: real mode
 *   sregs.get("cs").fill(0, 0, 8); // base 0
 *   sregs.get("cs").fill(0, 12, 14); // selector 0
 *   vcpu.setSregs(sregs);
 *   const regs = vcpu.getRegs();
 *   regs.assign({ rax: 2n, rbx: 3n, rip: 0x1000n, rflags: 2n });
 *   vcpu.setRegs(regs);
 *
 *   const exit = vcpu.run();
 *   equal(exit.kind, "io");
 *   if (exit.kind === "io") deepEqual([exit.port, exit.data[0]], [0x42, 5]);
 *   equal(vcpu.run().kind, "hlt");
 * }
 * ```
 */
export class Kvm implements Disposable {
  readonly #device: FileDescriptor;
  /** Length of the window into a vCPU, in bytes. */
  readonly vcpuMmapBytes: number;

  private constructor(device: FileDescriptor) {
    this.#device = device;
    const version = ioctlValue(device.unsafeFd, "KVM_GET_API_VERSION");
    if (version !== KVM_API_VERSION) {
      throw new KvmError(
        "unsupported",
        `Cannot use /dev/kvm: it has API version ${version}, not ${KVM_API_VERSION}`,
      );
    }
    this.vcpuMmapBytes = ioctlValue(device.unsafeFd, "KVM_GET_VCPU_MMAP_SIZE");
    for (const capability of ["KVM_CAP_USER_MEMORY", "KVM_CAP_IMMEDIATE_EXIT"] as const) {
      this.require(capability);
    }
  }

  /**
   * Opens it.
   *
   * @param path another device
   * @throws {KvmError} `missing`, `denied`, `unsupported` with the next step in the message
   */
  static open(path = "/dev/kvm"): Kvm {
    let device: FileDescriptor;
    try {
      device = FileDescriptor.open(path, { flags: openFlags.O_RDWR });
    } catch (cause) {
      if (!(cause instanceof KvmError)) throw cause;
      const advice: Partial<Record<string, string>> = {
        denied: "permission denied; add yourself to the group kvm",
        missing:
          "there is none; load the module kvm_intel or kvm_amd, and switch virtualization on in the firmware",
      };
      const text = advice[cause.code];
      if (text === undefined) throw cause;
      throw new KvmError(cause.code, `Cannot open ${path}: ${text}`, { cause });
    }
    try {
      return new Kvm(device);
    } catch (error) {
      device[Symbol.dispose]();
      if (error instanceof KvmError && error.message.includes("ENOTTY")) {
        throw new KvmError("unsupported", `Cannot use ${path}: it is not KVM`, { cause: error });
      }
      throw error;
    }
  }

  /** Null where {@linkcode Kvm.open} works; else its message. */
  static whyUnavailable(path = "/dev/kvm"): string | null {
    try {
      Kvm.open(path)[Symbol.dispose]();
      return null;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** 0 when this KVM does not have it, else 1 or what the capability's document says. API document, section 4.4 */
  check(capability: KvmCapability): number {
    return ioctlValue(
      this.#device.unsafeFd,
      "KVM_CHECK_EXTENSION",
      kvmCapabilities[capability],
    );
  }

  /** Insists on a capability. @throws {KvmError} `unsupported` without it */
  require(capability: KvmCapability): void {
    if (this.check(capability) > 0) return;
    throw new KvmError("unsupported", `Cannot use /dev/kvm: it lacks ${capability}`);
  }

  /** A VM without memory and vCPUs. @throws {KvmError} `locked` when another hypervisor has the CPU, `system` */
  createVm(): Vm {
    return new Vm(this, ioctlValue(this.#device.unsafeFd, "KVM_CREATE_VM"));
  }

  /** `struct kvm_cpuid2` with everything that host and KVM support: what a vCPU may be given. */
  supportedCpuid(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(kvm_cpuid2.bytes + MAX_CPUID_ENTRIES * kvm_cpuid_entry2.bytes);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, MAX_CPUID_ENTRIES, true);
    ioctlBuffer(this.#device.unsafeFd, "KVM_GET_SUPPORTED_CPUID", bytes);
    const count = Math.min(view.getUint32(0, true), MAX_CPUID_ENTRIES);
    return bytes.slice(0, kvm_cpuid2.bytes + count * kvm_cpuid_entry2.bytes);
  }

  /** Model-specific registers that a vCPU has and that have to be saved with it. */
  msrIndices(): Uint32Array<ArrayBuffer> {
    const words = new Uint32Array(1 + MAX_MSRS);
    words[0] = MAX_MSRS;
    const bytes = new Uint8Array(words.buffer);
    ioctlBuffer(this.#device.unsafeFd, "KVM_GET_MSR_INDEX_LIST", bytes);
    return words.slice(1, 1 + Math.min(words[0], MAX_MSRS));
  }

  /** VMs that were created live on. */
  [Symbol.dispose](): void {
    this.#device[Symbol.dispose]();
  }
}
