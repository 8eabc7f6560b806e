/**
 * How a VM's CPUs translate addresses, by QEMU's word.
 *
 * @see Intel SDM volume 3A, section 4.1 (paging modes and control bits)
 * @module
 */

import { asList, asObject, isObject } from "./json_values.ts";
import { QmpError } from "./qmp_error.ts";
import type { HumanMonitor } from "./guest_memory.ts";

const CR0_PG = 1n << 31n;
const CR4_LA57 = 1n << 12n;
const CR4_VMXE = 1n << 13n;
const EFER_LMA = 1n << 10n;
const EFER_SVME = 1n << 12n;
const CR3_PAGE = (1n << 40n) - 1n;

/** The registers of one vCPU that say how it translates addresses. */
export interface PagingRegisters {
  cr0: bigint;
  cr3: bigint;
  cr4: bigint;
  efer: bigint;
}

/** How the guest translates addresses; or why that cannot be worked with. */
export type PagingMode =
  | {
    /** Null. */
    why: null;
    /** Levels of paging. */
    levels: 4 | 5;
    /** Guest-physical pages of the top-level tables that CPUs use now, by vCPU. */
    topPages: readonly { cpu: number; page: number }[];
  }
  | { why: string };

/** What is asked of QEMU. */
export interface RegisterMonitor extends HumanMonitor {
  /** Runs a command. */
  execute(command: string): Promise<unknown>;
}

/**
 * Asks QEMU for the paging mode. The VM goes on running; with KVM each vCPU is interrupted for microseconds.
 *
 * @throws {QmpError} when QEMU does not answer
 */
export async function readPagingMode(monitor: RegisterMonitor): Promise<PagingMode> {
  if (await isEncrypted(monitor)) return { why: "the guest's memory is encrypted" };
  const cpus = asList(await monitor.execute("query-cpus-fast"), "query-cpus-fast");
  const targets = cpus.map((cpu) => asObject(cpu, "a CPU").target);
  const other = targets.find((target) => target !== "x86_64");
  if (other !== undefined) return { why: `the guest is not x86-64 but ${other}` };
  const registers = parseRegisters(await monitor.hmp("info registers -a"));
  if (registers.length !== cpus.length) {
    return { why: `QEMU shows the registers of ${registers.length} CPUs of ${cpus.length}` };
  }
  return pagingMode(registers);
}

/** What the registers of all vCPUs, in their order, say together. */
export function pagingMode(registers: readonly PagingRegisters[]): PagingMode {
  const topPages: { cpu: number; page: number }[] = [];
  const levels = new Set<4 | 5>();
  for (const [cpu, { cr0, cr3, cr4, efer }] of registers.entries()) {
    // A CPU that was never started, or taken out of use, waits without paging.
    if ((cr0 & CR0_PG) === 0n) continue;
    if ((efer & EFER_LMA) === 0n) return { why: `vCPU ${cpu} is in 32-bit mode` };
    // What runs in such a CPU now may be a guest's guest.
    if ((cr4 & CR4_VMXE) !== 0n || (efer & EFER_SVME) !== 0n) {
      return { why: `vCPU ${cpu} has virtual machines of its own` };
    }
    levels.add((cr4 & CR4_LA57) === 0n ? 4 : 5);
    topPages.push({ cpu, page: Number((cr3 >> 12n) & CR3_PAGE) });
  }
  const [first, second] = levels;
  if (first === undefined) return { why: "no vCPU uses page tables" };
  if (second !== undefined) return { why: "some vCPUs use 4 levels of page tables, others 5" };
  return { why: null, levels: first, topPages };
}

/**
 * Parses what HMP `info registers -a` prints; a vCPU without one of the registers is left out.
 *
 * @example
 * ```ts
 * import { parseRegisters } from "./page_tables_registers.ts";
 * import { equal } from "node:assert/strict";
 *
 * const text = `CPU#0
 * RAX=0000000000000000 RBX=0000000000000000
 * CR0=80050033 CR2=00007ffdb9f42080 CR3=0000000002a4a000 CR4=000006b0
 * EFER=0000000000000d01
 * `;
 * equal(parseRegisters(text)[0]?.cr3, 0x2a4a000n);
 * ```
 */
export function parseRegisters(text: string): PagingRegisters[] {
  return text.split(/^CPU#\d+\s*$/m).slice(1).flatMap((part) => {
    const register = (name: string) => {
      const value = new RegExp(`\\b${name}=([0-9a-f]{1,16})\\b`).exec(part)?.[1];
      return value === undefined ? null : BigInt(`0x${value}`);
    };
    const [cr0, cr3, cr4, efer] = ["CR0", "CR3", "CR4", "EFER"].map(register);
    if (!isValue(cr0) || !isValue(cr3) || !isValue(cr4) || !isValue(efer)) return [];
    return [{ cr0, cr3, cr4, efer }];
  });
}

function isValue(value: bigint | null | undefined): value is bigint {
  return typeof value === "bigint";
}

async function isEncrypted(monitor: RegisterMonitor): Promise<boolean> {
  try {
    const answer = await monitor.execute("query-sev");
    return isObject(answer) && answer.enabled === true;
  } catch (error) {
    // A QEMU without that feature has no such command, or says that the VM has no such memory.
    if (error instanceof QmpError && error.code === "command") return false;
    throw error;
  }
}
