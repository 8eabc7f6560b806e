/**
 * Puts the guest into memory and vCPUs, as a boot loader would.
 *
 * @module
 */

import { kvm_dtable, kvm_segment } from "../kvm_structures.ts";
import { Structure } from "../structure.ts";
import type { Vcpu } from "../vcpu.ts";
import { guestImage } from "./guest_image.ts";
import { addresses, information, selectors } from "./layout.ts";
import { writePageTables } from "./page_tables.ts";

const PAGE_BYTES = 4096;
const CR0_PE = 1n << 0n, CR0_MP = 1n << 1n, CR0_NE = 1n << 5n, CR0_WP = 1n << 16n;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n, CR4_OSFXSR = 1n << 9n, CR4_OSXMMEXCPT = 1n << 10n;
const EFER_LME = 1n << 8n, EFER_LMA = 1n << 10n, EFER_NXE = 1n << 11n;
const RFLAGS_RESERVED = 1n << 1n;
/** Segment types. @see Intel SDM volume 3, section 3.4.5.1 */
const CODE = 11, DATA = 3, BUSY_TSS = 11;

/** What a vCPU does. */
export interface Workload {
  /** Offset in RAM of its first page. */
  first: number;
  /** Its pages. */
  pages: number;
  /** Of these, how many it changes between two heartbeats. */
  pagesPerBeat: number;
}

/**
 * Writes image, page tables, workloads and secret.
 *
 * @param memory RAM, all zeros
 * @param options.workloads one for each vCPU
 * @returns CR3 of the guest
 */
export function loadGuest(
  memory: Uint8Array<ArrayBuffer>,
  options: { workloads: readonly Workload[]; secret: Uint8Array },
): number {
  memory.set(guestImage(), addresses.kernelText);
  memory.set(options.secret, addresses.secret);
  const view = new DataView(memory.buffer, memory.byteOffset);
  options.workloads.forEach(({ first, pages, pagesPerBeat }, cpu) => {
    const at = addresses.information[cpu]!;
    view.setBigUint64(at + information.first, BigInt(first), true);
    view.setBigUint64(at + information.pages, BigInt(pages), true);
    view.setBigUint64(at + information.pagesPerBeat, BigInt(pagesPerBeat), true);
  });
  return writePageTables(memory);
}

/** Sets a vCPU to the kernel's entry point, in long mode. */
export function startInKernel(vcpu: Vcpu, options: { cr3: number }): void {
  const sregs = vcpu.getSregs();
  const segment = (bytes: Uint8Array<ArrayBuffer>, values: { selector: number; type: number }) =>
    new Structure(kvm_segment, bytes).assign({
      base: 0n,
      limit: 0xffffffff,
      ...values,
      present: 1,
      dpl: 0,
      db: 0,
      s: 1,
      l: values.type === CODE ? 1 : 0,
      g: 1,
      avl: 0,
      unusable: 0,
    });
  segment(sregs.get("cs"), { selector: selectors.kernelCode, type: CODE });
  for (const name of ["ds", "es", "fs", "gs", "ss"] as const) {
    segment(sregs.get(name), { selector: selectors.kernelData, type: DATA });
  }
  segment(sregs.get("tr"), { selector: selectors.taskStates[vcpu.id]!, type: BUSY_TSS }).assign({
    base: BigInt(addresses.taskStates[vcpu.id]!),
    limit: 103,
    s: 0,
    g: 0,
  });
  new Structure(kvm_dtable, sregs.get("gdt")).assign({
    base: BigInt(addresses.kernelData),
    limit: 0x48 - 1,
  });
  new Structure(kvm_dtable, sregs.get("idt")).assign({
    base: BigInt(addresses.idt),
    limit: 32 * 16 - 1,
  });
  sregs.assign({
    cr0: CR0_PE | CR0_MP | CR0_NE | CR0_WP | CR0_PG,
    cr3: BigInt(options.cr3),
    cr4: CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT,
    efer: EFER_LME | EFER_LMA | EFER_NXE,
  });
  vcpu.setSregs(sregs);
  vcpu.setRegs(
    vcpu.getRegs().assign({
      rip: BigInt(addresses.kernelText),
      rsp: BigInt(addresses.stacks[vcpu.id]! + PAGE_BYTES),
      rdi: BigInt(addresses.information[vcpu.id]!),
      rflags: RFLAGS_RESERVED,
    }),
  );
}
