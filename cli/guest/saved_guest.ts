/**
 * A guest that booted once and was saved while running: later ones start from there in a fraction of a second.
 *
 * @module
 */

import { asObject, asText } from "../../kvm/json_values.ts";
import { QmpClient } from "../../kvm/qmp.ts";
import { GuestError } from "./guest_error.ts";
import { buildLinuxGuest, linuxCommandLine, type LinuxLoad } from "./linux_guest.ts";
import { defaultAccelerator, qemuArguments, type QemuOptions } from "./qemu_arguments.ts";
import { QemuProcess } from "./qemu_process.ts";
import { runTool } from "./run_tool.ts";

/** Emulated on a busy machine, a boot takes several times the usual four seconds. */
const BOOT_TIMEOUT_MS = 120_000;
const SAVE_TIMEOUT_MS = 60_000;
const POLL_MS = 10;

/** What a saved machine is; everything here changes the saved file. */
export interface SavedLinuxGuestOptions
  extends Pick<QemuOptions, "machine" | "memoryMiB" | "vcpus" | "accel" | "vga" | "uuid"> {
  /** Where the guest's files and the saved state are kept. */
  cacheDirectory: string;
  /** Gets one line for each step that takes time. */
  log: (line: string) => void;
  /** What the guest does. */
  load: LinuxLoad;
}

/** What may differ from one start to the next. */
export type SavedStartOptions = Pick<
  QemuOptions,
  "memory" | "prealloc" | "paused" | "name" | "qmpCount" | "directory"
>;

/** A saved guest. */
export interface SavedGuest {
  /** The machine as options for {@linkcode QemuProcess.start}: a destination adds `incoming` and `paused`. */
  options: QemuOptions;
  /** Starts a machine that goes on where it was saved; resolves when it runs (or is paused). */
  start: (options?: SavedStartOptions) => Promise<QemuProcess>;
}

/**
 * Boots a Linux guest with its load, waits until it is ready and saves it, or takes it from the cache.
 *
 * @throws {GuestError} as `buildLinuxGuest` and `QemuProcess.start` do, or `qemu` when it cannot be saved
 *
 * @example
 * ```ts
 * import { QemuProcess } from "./qemu_process.ts";
 *
 * export async function startPair(cacheDirectory: string): Promise<void> {
 *   const load = { dirtyMiBPerSecond: 16, workingSetMiB: 32, secretToken: "x7" };
 *   const saved = await savedLinuxGuest({ cacheDirectory, log: console.error, memoryMiB: 128, load });
 *   await using source = await saved.start({ memory: "memfd" });
 *   const twin = { ...saved.options, incoming: "defer", paused: true };
 *   await using destination = await QemuProcess.start(twin);
 *   console.log(source.pid, destination.pid);
 * }
 * ```
 */
export async function savedLinuxGuest(options: SavedLinuxGuestOptions): Promise<SavedGuest> {
  const { cacheDirectory, log, load, ...machine } = options;
  const files = await buildLinuxGuest({ cacheDirectory, log });
  const vm: QemuOptions = {
    ...machine,
    accel: machine.accel ?? defaultAccelerator(),
    guest: { ...files, append: linuxCommandLine(load) },
  };
  const version = await runTool("qemu-system-x86_64", ["--version"]);
  // Of what QEMU is told, not of what we were: a state starts only on the very same machine.
  const machineHash = await hashOf(JSON.stringify([version, qemuArguments(vm, "")]));
  const path = `${cacheDirectory}/saved-${machineHash}`;
  if (!await exists(path)) await bootAndSave(vm, path, { log });
  return { options: vm, start: (more = {}) => startSaved({ ...vm, ...more }, path) };
}

async function bootAndSave(
  options: QemuOptions,
  path: string,
  { log }: { log: (line: string) => void },
): Promise<void> {
  log("Booting a guest to save it");
  await using vm = await QemuProcess.start(options);
  await vm.waitForLine(0, "READY", BOOT_TIMEOUT_MS);
  const unfinished = `${path}.${crypto.randomUUID()}`;
  try {
    await saveGuest(vm, unfinished);
    await Deno.rename(unfinished, path);
  } catch (error) {
    for (const file of [unfinished, `${unfinished}.part`]) await Deno.remove(file).catch(() => {});
    throw error;
  }
}

/**
 * Saves a running machine to a file; it stands still after that (`postmigrate`).
 *
 * @throws {GuestError} `qemu` when QEMU reports a failure, `timeout` when it does not end
 */
export async function saveGuest(vm: QemuProcess, path: string): Promise<void> {
  await using qmp = await QmpClient.connect(vm.qmpPaths[0] ?? "");
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": 0, "downtime-limit": 10_000 });
  // `file:` would be simpler, but needs QEMU 8.2. The file has its name only once cat has written all of it.
  const [part, whole] = [shellQuoted(`${path}.part`), shellQuoted(path)];
  await qmp.execute("migrate", { uri: `exec:cat > ${part} && mv ${part} ${whole}` });
  await poll("save the guest", async () => {
    const status = asObject(await qmp.execute("query-migrate"), "query-migrate").status;
    if (status === "failed") throw new GuestError("qemu", `Cannot save the guest: ${vm.stderr}`);
    return status === "completed" && await exists(path);
  });
}

async function startSaved(options: QemuOptions, path: string): Promise<QemuProcess> {
  const vm = await QemuProcess.start({ ...options, incoming: `exec:cat ${shellQuoted(path)}` });
  try {
    await using qmp = await QmpClient.connect(vm.qmpPaths[0] ?? "");
    await poll("start the saved guest", async () => {
      const answer = asObject(await qmp.execute("query-status"), "query-status");
      return asText(answer.status, "status") !== "inmigrate";
    });
    return vm;
  } catch (cause) {
    await vm[Symbol.asyncDispose]();
    throw new GuestError("qemu", `Cannot start the saved guest: ${vm.stderr.trim()}`, { cause });
  }
}

async function poll(what: string, isDone: () => Promise<boolean>): Promise<void> {
  const until = performance.now() + SAVE_TIMEOUT_MS;
  while (!await isDone()) {
    if (performance.now() > until) {
      throw new GuestError("timeout", `Cannot ${what}: it does not end`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

function shellQuoted(path: string): string {
  return `'${path.replaceAll("'", `'\\''`)}'`;
}

async function hashOf(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(digest).toHex().slice(0, 16);
}
