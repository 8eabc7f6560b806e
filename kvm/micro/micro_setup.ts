/**
 * What a micro-VM says before its first page: the machine, so that no other takes its memory.
 *
 * @module
 */

import { KvmError } from "../errors.ts";
import { readProcess } from "../process.ts";
import type { QemuFacts } from "../qemu_facts.ts";
import type { MicroVm } from "./micro_vm.ts";

/** "SMST", version u32, vCPUs u32, 0 u32, bytes of RAM u64. */
const MAGIC = 0x54534d53, VERSION = 1, SETUP_BYTES = 24;

/** How a micro-VM is called. */
export interface MicroIdentity {
  /** Shown, never compared; `micro` by default. */
  name?: string;
  /** Has to be the same at both ends; zeros by default. */
  uuid?: string;
}

/** The facts of a migration; the process that runs a micro-VM is this one. */
export function microFacts(
  vm: MicroVm,
  { name = "micro", uuid = "00000000-0000-0000-0000-000000000000" }: MicroIdentity,
): QemuFacts {
  const { pid, startTime, bootId } = readProcess(Deno.pid);
  return {
    name,
    uuid,
    machine: `sealift-micro-${VERSION}-${vm.vcpuCount}cpu`,
    qemuVersion: "none",
    memoryBytes: vm.memory.length,
    blocks: [{ name: "micro.ram", bytes: vm.memory.length }],
    capabilities: [],
    localDrives: [],
    process: { pid, startTime, bootId },
  };
}

/** The bytes before the first page. */
export function encodeSetup(vm: MicroVm): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SETUP_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(8, vm.vcpuCount, true);
  view.setBigUint64(16, BigInt(vm.memory.length), true);
  return bytes;
}

/** Refuses the setup of another machine. @throws {KvmError} `stream` */
export function checkSetup(bytes: Uint8Array, vm: MicroVm): void {
  const due = encodeSetup(vm);
  if (bytes.length === due.length && due.every((byte, i) => byte === bytes[i])) return;
  throw new KvmError("stream", "Cannot take this VM in: it is no micro-VM of the same shape");
}
