/**
 * What a VM is, by QEMU's own word: enough to refuse a migration between two that do not match.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { asList, asNumber, asObject, asText, isObject } from "./json_values.ts";
import type { ProcessIdentity } from "./process.ts";
import type { QmpClient } from "./qmp.ts";

/** What {@linkcode readFacts} finds. */
export interface QemuFacts {
  /** Of `-name`; null when QEMU was given none. */
  name: string | null;
  /** Lower-case, with dashes; all zeros when QEMU was given none. */
  uuid: string;
  /** The versioned machine type, for instance `pc-q35-7.2`. */
  machine: string;
  /** For instance `7.2.22`. */
  qemuVersion: string;
  /** Guest RAM in bytes, without ROM and video memory. */
  memoryBytes: number;
  /** RAM blocks in QEMU's order, with their used lengths in bytes. */
  blocks: { name: string; bytes: number }[];
  /** Migration capabilities that are on. */
  capabilities: string[];
  /** File names of writable local drives. */
  localDrives: string[];
  /** The process that the VM is. */
  process: ProcessIdentity;
}

/**
 * Migration capabilities that change the stream, or the switchover, into something that Sealift does not speak.
 * Each is refused by name where it is on, and never switched.
 */
export const refusedCapabilities = [
  "xbzrle",
  "compress",
  "multifd",
  "postcopy-ram",
  "postcopy-blocktime",
  "postcopy-preempt",
  "zero-copy-send",
  "dirty-bitmaps",
  "x-colo",
  "background-snapshot",
  "mapped-ram",
  "block",
  // No dirty bitmap is kept for what is ignored.
  "x-ignore-shared",
  // An agent that dies in that pause leaves a frozen VM.
  "pause-before-switchover",
  "rdma-pin-all",
  // Gives up memory of the source that the way back needs.
  "release-ram",
  // Waits for a message of a destination that has no return path.
  "switchover-ack",
] as const;

/** Protocol drivers of QEMU's block layer that reach storage elsewhere: both hosts see the same. */
const remoteDrivers: readonly string[] = [
  "nbd",
  "rbd",
  "iscsi",
  "nfs",
  "ssh",
  "gluster",
  "sheepdog",
  "http",
  "https",
  "ftp",
  "ftps",
];

/**
 * Asks QEMU for everything in {@linkcode QemuFacts}.
 *
 * @throws {QmpError} as QmpClient.execute
 * @throws {KvmError} `unsupported` when QEMU's list of RAM blocks cannot be read
 */
export async function readFacts(qmp: QmpClient, process: ProcessIdentity): Promise<QemuFacts> {
  // One after the other they would cost a turn of QEMU's main loop each.
  const [names, ids, type, qemuVersion, memoryBytes, ramBlocks, capabilities, drives] =
    await Promise.all([
      qmp.execute("query-name"),
      qmp.execute("query-uuid"),
      qmp.execute("qom-get", { path: "/machine", property: "type" }),
      readVersion(qmp),
      readMemoryBytes(qmp),
      qmp.hmp("info ramblock"),
      readCapabilities(qmp),
      qmp.execute("query-block"),
    ]);
  const { name } = asObject(names, "query-name");
  const { pid, startTime, bootId } = process;
  return {
    name: typeof name === "string" && name !== "" ? name : null,
    uuid: asText(asObject(ids, "query-uuid").UUID, "the UUID").toLowerCase(),
    machine: asText(type, "the machine type").replace(/-machine$/, ""),
    qemuVersion,
    memoryBytes,
    blocks: parseRamBlocks(ramBlocks),
    capabilities,
    localDrives: parseLocalDrives(drives),
    process: { pid, startTime, bootId },
  };
}

/** The run state of the VM, for instance `running`, `paused`, `inmigrate`. @throws {QmpError} */
export async function readRunState(
  qmp: QmpClient,
  options: { timeoutMs?: number } = {},
): Promise<string> {
  const status = await qmp.execute("query-status", undefined, options);
  return asText(asObject(status, "query-status").status, "the run state");
}

/** The migration capabilities that are on. @throws {QmpError} */
export async function readCapabilities(qmp: QmpClient): Promise<string[]> {
  const list = asList(await qmp.execute("query-migrate-capabilities"), "the capabilities");
  return list.map((entry) => asObject(entry, "a capability")).filter(({ state }) => state === true)
    .map(({ capability }) => asText(capability, "a capability's name"));
}

/**
 * Refuses a VM with a migration capability on that has to be off.
 *
 * @throws {KvmError} `capability`, naming each of them
 *
 * @example
 * ```ts
 * import { refuseCapabilities } from "./qemu_facts.ts";
 * import { throws } from "node:assert/strict";
 *
 * refuseCapabilities(["events", "validate-uuid"]);
 * throws(() => refuseCapabilities(["xbzrle"]), /xbzrle/);
 * ```
 */
export function refuseCapabilities(enabled: readonly string[]): void {
  const refused = enabled.filter((name) => refusedCapabilities.some((other) => other === name));
  if (refused.length === 0) return;
  throw new KvmError(
    "capability",
    `Cannot migrate this VM: its QEMU has migration capabilities on that have to be off: ${
      refused.join(", ")
    }`,
  );
}

/**
 * Reads what HMP `info ramblock` prints, from 7.2 on (10.0 has more columns).
 *
 * @returns the blocks that have a name, in the order printed: only those can migrate
 * @throws {KvmError} `unsupported`
 */
export function parseRamBlocks(text: string): { name: string; bytes: number }[] {
  const blocks = [];
  for (const line of text.split("\n")) {
    if (line.trim() === "" || /^\s*Block Name\s/.test(line)) continue;
    // Name, page size and its unit, offset, used length, longest length.
    const match = line.match(/^\s*(.*?)\s+\d+ \w+\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x[0-9a-f]+/);
    const [, name, used] = match ?? [];
    const bytes = Number.parseInt(used ?? "", 16);
    if (name === undefined || !Number.isSafeInteger(bytes)) {
      throw new KvmError(
        "unsupported",
        `Cannot read the RAM blocks: QEMU prints ${JSON.stringify(line)}`,
      );
    }
    if (name !== "" && bytes > 0) blocks.push({ name, bytes });
  }
  if (blocks.length === 0) {
    throw new KvmError("unsupported", "Cannot read the RAM blocks: QEMU prints none");
  }
  return blocks;
}

/** File names of the writable drives in an answer to `query-block` that lie on this host. */
export function parseLocalDrives(answer: unknown): string[] {
  const files = [];
  for (const entry of asList(answer, "query-block")) {
    const { inserted } = asObject(entry, "a drive");
    if (!isObject(inserted) || inserted.ro === true || typeof inserted.file !== "string") continue;
    if (isLocal(inserted.file)) files.push(inserted.file);
  }
  return files;
}

/** Whether a file name of QEMU's block layer names storage of this host. */
function isLocal(file: string): boolean {
  if (file.startsWith("json:")) {
    try {
      return isLocalNode(JSON.parse(file.slice("json:".length)));
    } catch {
      return true; // cannot be read: rather one warning too many
    }
  }
  const protocol = file.match(/^([a-z0-9]+)(?:\+[a-z]+)?:/)?.[1];
  return protocol === undefined || !remoteDrivers.includes(protocol);
}

/** Whether no driver in a `json:` file name, down its tree of nodes, is a remote one. */
function isLocalNode(node: unknown): boolean {
  if (!isObject(node)) return true;
  for (const [key, value] of Object.entries(node)) {
    // Nested, or flattened: {"file": {"driver": "nbd"}} or {"file.driver": "nbd"}.
    const names = key === "driver" || key.endsWith(".driver");
    if (names && typeof value === "string" && remoteDrivers.includes(value)) return false;
    if (!isLocalNode(value)) return false;
  }
  return true;
}

async function readVersion(qmp: QmpClient): Promise<string> {
  const { qemu } = asObject(await qmp.execute("query-version"), "query-version");
  const { major, minor, micro } = asObject(qemu, "the version");
  return [major, minor, micro].map((part) => asNumber(part, "the version")).join(".");
}

async function readMemoryBytes(qmp: QmpClient): Promise<number> {
  const summary = asObject(await qmp.execute("query-memory-size-summary"), "the memory's size");
  const base = asNumber(summary["base-memory"], "base-memory");
  // Absent where the machine has no hot-plug.
  const plugged = summary["plugged-memory"];
  return base + (plugged === undefined ? 0 : asNumber(plugged, "plugged-memory"));
}
