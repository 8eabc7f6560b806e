/**
 * One virtual CPU: its registers, and running it on the calling thread.
 *
 * @see https://docs.kernel.org/virt/kvm/api.html
 * @module
 */

import { KvmError } from "./errors.ts";
import { ioctlBuffer, ioctlError, type IoctlName, ioctlNumber } from "./ioctls.ts";
import {
  kvm_msr_entry,
  kvm_msrs,
  kvm_regs,
  kvm_run,
  kvm_sregs,
  type StructureLayout,
} from "./kvm_structures.ts";
import { errnos, lastErrno, libc } from "./libc.ts";
import { Mapping } from "./mapping.ts";
import { Structure } from "./structure.ts";
import { decodeExit, type VcpuExit } from "./vcpu_exit.ts";

const KVM_RUN = ioctlNumber("KVM_RUN");

/** Made by `Vm.createVcpu`; ends with the VM. */
export class Vcpu implements Disposable {
  /** Its number in the VM. */
  readonly id: number;
  readonly #window: Mapping;
  #fd: number;

  /** Takes the descriptor over. @throws {KvmError} `system` when it cannot be mapped */
  constructor(fd: number, options: { id: number; mmapBytes: number }) {
    this.#fd = fd;
    this.id = options.id;
    try {
      this.#window = Mapping.ofFile(fd, options.mmapBytes);
    } catch (error) {
      // SAFETY: a descriptor that only this object owns, closed once.
      libc().close(fd);
      throw error;
    }
  }

  /** The raw descriptor. @throws {KvmError} `state` once disposed */
  get unsafeFd(): number {
    if (this.#fd < 0) throw new KvmError("state", "Cannot use a vCPU: it was closed");
    return this.#fd;
  }

  /** The window that `struct kvm_run` is the start of. */
  get unsafeWindow(): Mapping {
    return this.#window;
  }

  /**
   * Runs the guest, and blocks this thread until the guest needs something. A guest may never do so: run one that is not
   * trusted to come back in a `VcpuThread`.
   *
   * @throws {KvmError} `system` when KVM_RUN fails
   */
  run(): VcpuExit {
    return runOnce(this.unsafeFd, this.#window.bytes);
  }

  /** The answer to an `in`, or to a read of `mmio`, that the last exit asked for. */
  answer(data: Uint8Array): void {
    const window = this.#window.bytes;
    const run = new Structure(kvm_run, window);
    const exit = decodeExit(window);
    if (exit.kind === "io" && exit.direction === "in" && exit.data.length === data.length) {
      window.set(data, Number(run.get("io.data_offset")));
    } else if (exit.kind === "mmio" && !exit.isWrite && exit.data.length === data.length) {
      run.get("mmio.data").set(data);
    } else {
      throw new KvmError(
        "state",
        `Cannot answer the guest: it did not ask for ${data.length} bytes`,
      );
    }
  }

  /** General registers, a copy. */
  getRegs(): Structure<typeof kvm_regs> {
    return this.read("KVM_GET_REGS", kvm_regs);
  }

  /** Sets all general registers. */
  setRegs(regs: Structure<typeof kvm_regs>): void {
    ioctlBuffer(this.unsafeFd, "KVM_SET_REGS", regs.bytes);
  }

  /** Segments, tables and control registers, a copy. */
  getSregs(): Structure<typeof kvm_sregs> {
    return this.read("KVM_GET_SREGS", kvm_sregs);
  }

  /** Sets all of them. @throws {KvmError} `system` (EINVAL) when no CPU can be in such a state */
  setSregs(sregs: Structure<typeof kvm_sregs>): void {
    ioctlBuffer(this.unsafeFd, "KVM_SET_SREGS", sregs.bytes);
  }

  /** What `cpuid` says in the guest. Before its first run. @param cpuid `struct kvm_cpuid2` with its entries */
  setCpuid(cpuid: Uint8Array<ArrayBuffer>): void {
    ioctlBuffer(this.unsafeFd, "KVM_SET_CPUID2", cpuid);
  }

  /** A model-specific register; null when this vCPU has none of that number. */
  getMsr(index: number): bigint | null {
    const bytes = oneMsr(index, 0n);
    if (ioctlBuffer(this.unsafeFd, "KVM_GET_MSRS", bytes) !== 1) return null;
    return new Structure(kvm_msr_entry, bytes.subarray(kvm_msrs.bytes)).get("data");
  }

  /** Sets it; false when this vCPU does not take that. */
  setMsr(index: number, value: bigint): boolean {
    return ioctlBuffer(this.unsafeFd, "KVM_SET_MSRS", oneMsr(index, value)) === 1;
  }

  /** Any structure that the kernel fills. */
  read<const L extends StructureLayout>(name: IoctlName, layout: L): Structure<L> {
    const structure = new Structure(layout);
    ioctlBuffer(this.unsafeFd, name, structure.bytes);
    return structure;
  }

  /** Any structure that the kernel reads, as bytes. */
  write(name: IoctlName, bytes: Uint8Array<ArrayBuffer>): void {
    ioctlBuffer(this.unsafeFd, name, bytes);
  }

  /** Not while another thread runs it. */
  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    this.#window[Symbol.dispose]();
    // SAFETY: a descriptor that only this object owns, closed once.
    libc().close(this.#fd);
    this.#fd = -1;
  }
}

/** One `KVM_RUN` on the calling thread. @throws {KvmError} `system` */
export function runOnce(fd: number, window: Uint8Array<ArrayBuffer>): VcpuExit {
  // SAFETY: no argument; the kernel writes to the window, which is mapped as long as the vCPU is open.
  if (libc().ioctlValue(fd, KVM_RUN, 0n) >= 0) return decodeExit(window);
  const errno = lastErrno();
  if (errno === errnos.EINTR) return { kind: "interrupted" };
  throw ioctlError("KVM_RUN", errno);
}

function oneMsr(index: number, data: bigint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(kvm_msrs.bytes + kvm_msr_entry.bytes);
  new Structure(kvm_msrs, bytes).set("nmsrs", 1);
  new Structure(kvm_msr_entry, bytes.subarray(kvm_msrs.bytes)).assign({ index, data });
  return bytes;
}
