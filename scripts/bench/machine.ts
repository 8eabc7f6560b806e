/**
 * The machine that figures come from, as far as it explains them. No host name, no path.
 *
 * @module
 */

import { defaultRegistry } from "../../ciphers/registry.ts";
import { runTool } from "../../cli/guest/run_tool.ts";

/** What was measured on. */
export interface Machine {
  cpu: string;
  cores: number;
  memoryGiB: number;
  kernel: string;
  qemu: string;
  /** The `openssl` program that makes QEMU's certificates. */
  openssl: string;
  /** What seals and opens in Sealift. */
  cipherBackend: string;
  deno: string;
  /** `/sys/kernel/mm/transparent_hugepage/enabled`: decides what the first touch of private memory costs. */
  transparentHugepages: string;
}

/** Asks the system; what it does not say, or has not got, is `unknown`. */
export async function describeMachine(): Promise<Machine> {
  const [cpuinfo, meminfo, hugepages] = await Promise.all([
    Deno.readTextFile("/proc/cpuinfo"),
    Deno.readTextFile("/proc/meminfo"),
    Deno.readTextFile("/sys/kernel/mm/transparent_hugepage/enabled").catch(() => ""),
  ]);
  const [qemu, openssl] = await Promise.all([
    runTool("qemu-system-x86_64", ["--version"]).catch(() => ""),
    runTool("openssl", ["version"]).catch(() => ""),
  ]);
  const memoryKiB = Number(/^MemTotal:\s+(\d+)/m.exec(meminfo)?.[1] ?? 0);
  return {
    cpu: /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? "unknown",
    cores: navigator.hardwareConcurrency,
    memoryGiB: Math.round(memoryKiB / 2 ** 20),
    kernel: Deno.osRelease(),
    qemu: /version (\S+)/.exec(qemu)?.[1] ?? "unknown",
    openssl: /^OpenSSL (\S+)/.exec(openssl)?.[1] ?? "unknown",
    cipherBackend: defaultRegistry().get("aes-256-gcm").backend,
    deno: Deno.version.deno,
    transparentHugepages: /\[(\w+)\]/.exec(hugepages)?.[1] ?? "unknown",
  };
}
