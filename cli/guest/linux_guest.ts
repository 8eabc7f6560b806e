/**
 * A real Linux guest in two files: Debian's cloud kernel and an initramfs with BusyBox and our load.
 *
 * The kernel's package is downloaded and unpacked, not installed. Both files are kept in a cache, so
 * that only the first guest of a machine needs the network.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { GuestError } from "./guest_error.ts";
import { busyboxPath, libtcc1Paths, muslDirectory, muslIncludeDirectory } from "./prerequisites.ts";
import { runTool, tryTool } from "./run_tool.ts";

const KERNEL_META_PACKAGE = "linux-image-cloud-amd64";

/** The first process: a shell script, as on any BusyBox system, that hands over to the load. */
const INIT_SCRIPT = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mkdir /dev/pts
/bin/busybox mount -t devpts devpts /dev/pts
/bin/busybox mount -t proc proc /proc
exec /load
`;

/**
 * What every guest's kernel is told.
 *
 * `no_timer_check`: the check panics ("IO-APIC + timer doesn't work!") on a host too busy to give an
 * emulated timer its ticks, and KVM's guests skip it too (Linux's kernel-parameters.txt).
 */
export const linuxGuestArguments = "console=ttyS0 quiet panic=-1 no_timer_check";

/** Least memory that the kernel and the load start with, without the working set. */
export const linuxGuestBaseMiB = 96;

/** The files that QEMU boots. */
export interface LinuxGuest {
  /** Path of a bzImage. */
  kernel: string;
  /** Path of the initramfs. */
  initrd: string;
}

/** Settings of {@linkcode buildLinuxGuest}. */
export interface BuildLinuxGuestOptions {
  /** Where the two files are kept; created if missing. */
  cacheDirectory: string;
  /** Gets one line for each step that takes time. */
  log: (line: string) => void;
}

/** What the guest does once it runs. */
export interface LinuxLoad {
  /** Memory rewritten per second; 0 for a guest that only beats. */
  dirtyMiBPerSecond: number;
  /** How much memory that goes over, again and again. */
  workingSetMiB: number;
  /** Letters and digits; see {@linkcode guestSecrets}. */
  secretToken: string;
}

/**
 * Builds the guest, or takes it from the cache.
 *
 * @throws {GuestError} `offline` when the kernel is not cached and cannot be downloaded
 * @throws {GuestError} `build` or `missing` when a tool fails or is missing
 *
 * @example
 * ```ts
 * export async function show(cacheDirectory: string): Promise<void> {
 *   const { kernel, initrd } = await buildLinuxGuest({ cacheDirectory, log: console.error });
 *   console.log(kernel, initrd);
 * }
 * ```
 */
export async function buildLinuxGuest(options: BuildLinuxGuestOptions): Promise<LinuxGuest> {
  await Deno.mkdir(options.cacheDirectory, { recursive: true });
  const kernel = await cachedKernel(options.cacheDirectory) ?? await fetchKernel(options);
  return { kernel, initrd: await buildInitramfs(options) };
}

/**
 * The kernel's command line for a load.
 *
 * @throws {RangeError} when a number or the token is not what the guest understands
 */
export function linuxCommandLine(load: LinuxLoad): string {
  for (const value of [load.dirtyMiBPerSecond, load.workingSetMiB]) {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new RangeError(`Cannot load the guest: ${value} is not a whole number of MiB`);
    }
  }
  if (!/^[A-Za-z0-9]{1,64}$/.test(load.secretToken)) {
    throw new RangeError(
      "Cannot load the guest: the secret token is not 1 to 64 letters and digits",
    );
  }
  return `${linuxGuestArguments} sealift.dirty=${load.dirtyMiBPerSecond} ` +
    `sealift.set=${load.workingSetMiB} sealift.secret=${load.secretToken}`;
}

/** Four strings that lie in the guest's memory; none of them is on its command line. */
export interface GuestSecrets {
  /** In a process's heap: user memory. */
  heap: string;
  /** In a file that no process has mapped: the page cache. */
  file: string;
  /** Written to a pipe and not read yet: kernel data. */
  pipe: string;
  /** Written to a terminal and not read yet: kernel data. */
  tty: string;
}

/** The secrets that the guest makes of a token. */
export function guestSecrets(secretToken: string): GuestSecrets {
  return {
    heap: `SEALIFT-HEAP-${secretToken}`,
    file: `SEALIFT-FILE-${secretToken}`,
    pipe: `SEALIFT-PIPE-${secretToken}`,
    tty: `SEALIFT-TTY-${secretToken}`,
  };
}

async function cachedKernel(cacheDirectory: string): Promise<string | undefined> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(cacheDirectory)) {
    if (name.startsWith("vmlinuz-")) names.push(name);
  }
  const newest = names.sort(new Intl.Collator("en", { numeric: true }).compare).at(-1);
  return newest === undefined ? undefined : `${cacheDirectory}/${newest}`;
}

async function fetchKernel(options: BuildLinuxGuestOptions): Promise<string> {
  const directory = await Deno.makeTempDir({ dir: options.cacheDirectory, prefix: "kernel-" });
  try {
    const archive = await downloadKernel(directory, options.log);
    // Only the kernel is wanted of a package that is mostly modules.
    const unpack = 'dpkg-deb --fsys-tarfile "$1" | tar -x --wildcards "./boot/vmlinuz-*"';
    await runTool("sh", ["-c", unpack, "sh", archive], { cwd: directory });
    const kernel = await cachedKernel(`${directory}/boot`);
    if (kernel === undefined) {
      throw new GuestError("build", `Cannot unpack ${archive}: no kernel in it`);
    }
    const kept = `${options.cacheDirectory}/${kernel.slice(kernel.lastIndexOf("/") + 1)}`;
    await Deno.rename(kernel, kept);
    return kept;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function downloadKernel(directory: string, log: (line: string) => void): Promise<string> {
  let reason = await tryDownload(directory, log);
  if (reason !== undefined && Deno.uid() === 0) {
    // A new machine has no package lists, an old one has lists of packages that are gone.
    log("Updating the package lists");
    const update = await tryTool("apt-get", ["-q", "update"]);
    reason = update.ok ? await tryDownload(directory, log) : update.stderr.trim();
  }
  if (reason !== undefined) {
    throw new GuestError("offline", `Cannot download the guest's kernel: ${reason}`, {
      hint: Deno.uid() === 0
        ? "check that apt-get update works"
        : "as root: apt-get update; then try again",
    });
  }
  for await (const { name } of Deno.readDir(directory)) {
    if (name.endsWith(".deb")) return `${directory}/${name}`;
  }
  throw new GuestError("build", "Cannot download the guest's kernel: apt-get left no package");
}

/** Undefined when the package was downloaded, else why it was not. */
async function tryDownload(
  directory: string,
  log: (line: string) => void,
): Promise<string | undefined> {
  const depends = await tryTool("apt-cache", ["depends", KERNEL_META_PACKAGE]);
  const name = /^\s*Depends: (linux-image-\S+)$/m.exec(depends.stdout)?.[1];
  if (name === undefined) return `apt-cache knows no package for ${KERNEL_META_PACKAGE}`;
  log(`Downloading ${name} (about 30 MB)`);
  // apt's own user could not write into a private cache directory.
  const args = ["-q", "-o", "APT::Sandbox::User=root", "download", name];
  const { ok, stderr } = await tryTool("apt-get", args, { cwd: directory });
  return ok ? undefined : stderr.trim().slice(-1000);
}

async function buildInitramfs(options: BuildLinuxGuestOptions): Promise<string> {
  const source = new Uint8Array(await readFile(new URL("load.c", import.meta.url)));
  const busybox = await readInput(busyboxPath);
  const libc = await readInput(`${muslDirectory}/libc.a`);
  const hash = await hashOf([source, new TextEncoder().encode(INIT_SCRIPT), busybox, libc]);
  const kept = `${options.cacheDirectory}/initramfs-${hash}`;
  if (await exists(kept)) return kept;
  options.log("Building the guest's initramfs");
  const directory = await Deno.makeTempDir({ dir: options.cacheDirectory, prefix: "initramfs-" });
  try {
    const root = `${directory}/root`;
    for (const path of ["bin", "dev", "proc"]) {
      await Deno.mkdir(`${root}/${path}`, { recursive: true });
    }
    await Deno.writeFile(`${root}/bin/busybox`, busybox, { mode: 0o755 });
    await Deno.writeTextFile(`${root}/init`, INIT_SCRIPT, { mode: 0o755 });
    await Deno.writeFile(`${directory}/load.c`, source);
    await compileLoad(`${directory}/load.c`, `${root}/load`);
    const list = ["bin", "bin/busybox", "dev", "proc", "init", "load"].join("\n");
    const archive = `${directory}/initramfs`;
    await runTool("cpio", ["-o", "-H", "newc", "--quiet", "--owner=0:0", "-O", archive], {
      cwd: root,
      input: new TextEncoder().encode(list),
    });
    await Deno.rename(archive, kept);
    return kept;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** `tcc -static` links glibc, which does not work: the start files and libraries are named one by one. */
async function compileLoad(source: string, program: string): Promise<void> {
  const libtcc1 = await firstThatExists(libtcc1Paths);
  await runTool("tcc", [
    ...["-nostdlib", "-nostdinc", "-static", "-I", muslIncludeDirectory, "-o", program],
    ...[`${muslDirectory}/crt1.o`, `${muslDirectory}/crti.o`, source],
    ...[`${muslDirectory}/libc.a`, libtcc1, `${muslDirectory}/crtn.o`],
  ]);
}

async function readInput(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await Deno.readFile(path);
  } catch (cause) {
    throw new GuestError("missing", `Cannot build the guest: no ${path}`, { cause });
  }
}

async function firstThatExists(paths: readonly string[]): Promise<string> {
  for (const path of paths) if (await exists(path)) return path;
  throw new GuestError("missing", `Cannot build the guest: none of ${paths.join(", ")}`);
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function hashOf(parts: readonly Uint8Array[]): Promise<string> {
  const digests = await Promise.all(
    parts.map((part) => crypto.subtle.digest("SHA-256", new Uint8Array(part))),
  );
  const digest = await crypto.subtle.digest("SHA-256", await new Blob(digests).arrayBuffer());
  return new Uint8Array(digest).toHex().slice(0, 16);
}
