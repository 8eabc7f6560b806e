/**
 * Real machines for tests.
 *
 * @module
 */

import { missingPrerequisites } from "../../cli/guest/prerequisites.ts";
import type { QemuProcess } from "../../cli/guest/qemu_process.ts";
import { type SavedGuest, savedLinuxGuest } from "../../cli/guest/saved_guest.ts";
import { QmpClient } from "../../kvm/qmp.ts";

/** What {@linkcode savedTestGuest} runs: a saved state is shared by all tests that use the same. */
export const testLoad = {
  dirtyMiBPerSecond: 16,
  workingSetMiB: 32,
  secretToken: "t0ken7",
} as const;
/** Memory of {@linkcode savedTestGuest}. */
export const testMemoryMiB = 128;

/**
 * Registers a test that needs QEMU and what a guest is built of. Without them it is skipped, and its name says why;
 * where `CI=true` promises them, it runs and fails.
 */
export function qemuTest(name: string, test: () => Promise<void>): void {
  const missing = missingPrerequisites();
  const ignore = missing.length > 0 && Deno.env.get("CI") !== "true";
  Deno.test({ name: ignore ? `${name} (needs ${missing.join(", ")})` : name, ignore, fn: test });
}

/** Where tests keep the kernel and the saved guests from one run to the next. */
export function testCacheDirectory(): string {
  const cache = Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME") ?? "/tmp"}/.cache`;
  return `${cache}/sealift/tests`;
}

/** A Linux guest under {@linkcode testLoad}, or under another load: booted once, then started from its saved state. */
export async function savedTestGuest(
  load: { dirtyMiBPerSecond?: number; workingSetMiB?: number; machine?: "q35" | "pc" } = {},
): Promise<SavedGuest> {
  const { machine = "q35", ...rates } = load;
  return await savedLinuxGuest({
    cacheDirectory: testCacheDirectory(),
    log: () => {},
    machine,
    memoryMiB: testMemoryMiB,
    load: { ...testLoad, ...rates },
  });
}

/** Reads guest memory from outside: `lengthBytes` from guest-physical `address`, which lie in one range of RAM. */
export async function readGuestMemory(
  vm: QemuProcess,
  address: number,
  lengthBytes: number,
): Promise<Uint8Array<ArrayBuffer>> {
  using memory = await openGuestMemory(vm, address);
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes;) {
    const count = memory.readSync(bytes.subarray(at));
    if (count === null) throw new Error("Cannot read guest memory: it ends early");
    at += count;
  }
  return bytes;
}

/** Writes guest memory from outside, at guest-physical `address`. */
export async function writeGuestMemory(
  vm: QemuProcess,
  address: number,
  bytes: Uint8Array,
): Promise<void> {
  using memory = await openGuestMemory(vm, address);
  for (let at = 0; at < bytes.length;) at += memory.writeSync(bytes.subarray(at));
}

async function openGuestMemory(vm: QemuProcess, address: number): Promise<Deno.FsFile> {
  await using qmp = await QmpClient.connect(vm.qmpPaths[0] ?? "");
  const answer = await qmp.hmp(`gpa2hva 0x${address.toString(16)}`);
  const host = /is (0x[0-9a-f]+)/.exec(answer)?.[1];
  if (host === undefined) throw new Error(`Cannot find guest memory: ${answer}`);
  const memory = Deno.openSync(`/proc/${vm.pid}/mem`, { read: true, write: true });
  memory.seekSync(BigInt(host), Deno.SeekMode.Start);
  return memory;
}

/** Runs a QMP command on the first socket. */
export async function qmpExecute(
  vm: QemuProcess,
  command: string,
  args: Record<string, unknown> = {},
): Promise<unknown> {
  await using qmp = await QmpClient.connect(vm.qmpPaths[0] ?? "");
  return await qmp.execute(command, args);
}

/** Numbers of the 4 KiB pages that differ. */
export function changedPages(before: Uint8Array, after: Uint8Array): number[] {
  const changed: number[] = [];
  const [a, b] = [words(before), words(after)];
  for (let page = 0; page * 512 < a.length; page++) {
    for (let i = page * 512; i < page * 512 + 512; i++) {
      if (a[i] !== b[i]) {
        changed.push(page);
        break;
      }
    }
  }
  return changed;
}

/** Resolves after `ms`. */
export async function delay(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

function words(bytes: Uint8Array): BigUint64Array {
  return new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 3);
}
