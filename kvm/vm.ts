/**
 * A virtual machine: memory slots and vCPUs.
 *
 * @module
 */

import { DirtyLog } from "./dirty_log.ts";
import { KvmError } from "./errors.ts";
import { ioctlBuffer, ioctlValue, kvmCapabilities, type KvmCapability } from "./ioctls.ts";
import type { Kvm } from "./kvm.ts";
import { kvm_clock_data, kvm_enable_cap, kvm_userspace_memory_region } from "./kvm_structures.ts";
import { libc } from "./libc.ts";
import { Mapping } from "./mapping.ts";
import { Structure } from "./structure.ts";
import { Vcpu } from "./vcpu.ts";

const PAGE_BYTES = 4096;
/** `KVM_MEM_LOG_DIRTY_PAGES`. */
const LOG_DIRTY_PAGES = 1;
/** `KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE`. */
const MANUAL_PROTECT_ENABLE = 1;

/** A piece of guest-physical memory. */
export interface MemorySlot {
  /** Its number; the same again replaces it. */
  slot: number;
  /** Where the guest has it, page-aligned. */
  guestAddress: number;
  /** Length, whole pages. */
  bytes: number;
  /** The host's memory that it is. It has to live as long as the VM. */
  memory: Mapping;
  /** Where in `memory` it starts, page-aligned; 0 by default. */
  offset?: number;
  /** Whether KVM notes the pages that the guest writes to. */
  logDirtyPages?: boolean;
}

/** One VM. Disposing it ends its vCPUs, closes it, and unmaps what `addMemory` mapped. */
export class Vm implements Disposable {
  readonly #kvm: Kvm;
  readonly #vcpuMmapBytes: number;
  readonly #memories: Mapping[] = [];
  readonly #vcpus: Vcpu[] = [];
  readonly #slots = new Map<number, MemorySlot>();
  #fd: number;
  #manualProtect = false;

  /** Takes the descriptor over; use {@linkcode Kvm.createVm}. */
  constructor(kvm: Kvm, fd: number) {
    this.#kvm = kvm;
    this.#vcpuMmapBytes = kvm.vcpuMmapBytes;
    this.#fd = fd;
  }

  /** The raw descriptor. @throws {KvmError} `state` once disposed */
  get unsafeFd(): number {
    if (this.#fd < 0) throw new KvmError("state", "Cannot use a VM: it was closed");
    return this.#fd;
  }

  /** As {@linkcode Kvm.check}, for this VM. */
  check(capability: KvmCapability): number {
    return ioctlValue(this.unsafeFd, "KVM_CHECK_EXTENSION", kvmCapabilities[capability]);
  }

  /**
   * Maps fresh memory and shows it to the guest.
   *
   * @param options.slot the first free one by default
   * @returns the memory, which ends with the VM
   * @throws {RangeError} when address or length are no whole pages
   * @throws {KvmError} `system` when it overlaps another slot (EEXIST), or there is no room
   */
  addMemory(options: { guestAddress: number; bytes: number; slot?: number }): Mapping {
    const { guestAddress, bytes } = options;
    let slot = options.slot ?? 0;
    if (options.slot === undefined) { while (this.#slots.has(slot)) slot++; }
    const memory = Mapping.anonymous(bytes);
    this.#memories.push(memory);
    this.setSlot({ slot, guestAddress, bytes, memory });
    return memory;
  }

  /**
   * Makes a slot, or changes whether its writes are logged.
   *
   * @throws {RangeError} when it is not whole pages inside `memory`
   * @throws {KvmError} `system`
   * @see https://docs.kernel.org/virt/kvm/api.html, section 4.35
   */
  setSlot(options: MemorySlot): void {
    const { slot, guestAddress, bytes, memory, offset = 0, logDirtyPages = false } = options;
    const whole = [guestAddress, bytes, offset].every((value) =>
      Number.isSafeInteger(value) && value >= 0 && value % PAGE_BYTES === 0
    );
    if (!whole || bytes === 0 || offset + bytes > memory.bytes.length) {
      throw new RangeError(
        `Cannot give memory to the guest: ${bytes} bytes at ${offset} of ${memory.bytes.length}`,
      );
    }
    // SAFETY: the kernel keeps the address: it lies in a mapping that the caller, or this VM, unmaps after the VM was closed.
    const region = new Structure(kvm_userspace_memory_region).assign({
      slot,
      flags: logDirtyPages ? LOG_DIRTY_PAGES : 0,
      guest_phys_addr: BigInt(guestAddress),
      memory_size: BigInt(bytes),
      userspace_addr: memory.unsafeAddress + BigInt(offset),
    });
    ioctlBuffer(this.unsafeFd, "KVM_SET_USER_MEMORY_REGION", region.bytes);
    this.#slots.set(slot, { ...options });
  }

  /**
   * From here on writes to a slot are noted.
   *
   * Where KVM can, reading the log and protecting the pages again are two steps (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2): a page is
   * protected right before it is copied, not seconds before.
   *
   * @throws {KvmError} `state` when there is no such slot
   */
  startDirtyLog(slot: number): DirtyLog {
    const current = this.#slots.get(slot);
    if (current === undefined) {
      throw new KvmError("state", `Cannot log writes to slot ${slot}: there is none`);
    }
    if (!this.#manualProtect && this.check("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2") > 0) {
      const enable = new Structure(kvm_enable_cap).assign({
        cap: kvmCapabilities.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
      });
      new DataView(enable.get("args").buffer, 8).setBigUint64(
        0,
        BigInt(MANUAL_PROTECT_ENABLE),
        true,
      );
      ioctlBuffer(this.unsafeFd, "KVM_ENABLE_CAP", enable.bytes);
      this.#manualProtect = true;
    }
    this.setSlot({ ...current, logDirtyPages: true });
    return new DirtyLog(this, {
      slot,
      pageCount: current.bytes / PAGE_BYTES,
      manualProtect: this.#manualProtect,
    });
  }

  /** Ends {@linkcode Vm.startDirtyLog}: writes are at full speed again. */
  stopDirtyLog(slot: number): void {
    const current = this.#slots.get(slot);
    if (current?.logDirtyPages) this.setSlot({ ...current, logDirtyPages: false });
  }

  /** A vCPU with the CPUID of the host, as after reset. @throws {KvmError} `system` */
  createVcpu(id = 0): Vcpu {
    const vcpu = new Vcpu(ioctlValue(this.unsafeFd, "KVM_CREATE_VCPU", id), {
      id,
      mmapBytes: this.#vcpuMmapBytes,
    });
    this.#vcpus.push(vcpu);
    vcpu.setCpuid(this.#kvm.supportedCpuid());
    return vcpu;
  }

  /** Nanoseconds of the guest's paravirtual clock. API document, section 4.29 */
  getClock(): bigint {
    const data = new Structure(kvm_clock_data);
    ioctlBuffer(this.unsafeFd, "KVM_GET_CLOCK", data.bytes);
    return data.get("clock");
  }

  /** Sets that clock. API document, section 4.30 */
  setClock(nanoseconds: bigint): void {
    const data = new Structure(kvm_clock_data).assign({ clock: nanoseconds });
    ioctlBuffer(this.unsafeFd, "KVM_SET_CLOCK", data.bytes);
  }

  /** Closes it, its vCPUs first; no other thread may be in one of them. */
  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    for (const vcpu of this.#vcpus) vcpu[Symbol.dispose]();
    // SAFETY: a descriptor that only this object owns, closed once.
    libc().close(this.#fd);
    this.#fd = -1;
    for (const memory of this.#memories) memory[Symbol.dispose]();
  }
}
