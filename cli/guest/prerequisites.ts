/**
 * What the demonstration and the integration tests need on the machine, and how it gets there.
 *
 * @module
 */

import { GuestError } from "./guest_error.ts";
import { tryTool } from "./run_tool.ts";

/** Static BusyBox: the guest's userland. */
export const busyboxPath = "/bin/busybox";
/** The C library that the guest's load is linked with. */
export const muslDirectory = "/usr/lib/x86_64-linux-musl";
/** Headers of that library. */
export const muslIncludeDirectory = "/usr/include/x86_64-linux-musl";
/** The runtime of the tiny C compiler; the place depends on the release. */
export const libtcc1Paths = [
  "/usr/lib/x86_64-linux-gnu/tcc/libtcc1.a",
  "/usr/lib/tcc/libtcc1.a",
] as const;

/** Something needed: the Debian package that has it, and how to see that it is there. */
interface Prerequisite {
  package: string;
  isThere: () => boolean;
}

const prerequisites: readonly Prerequisite[] = [
  // Brings SeaBIOS, the VGA and the PXE ROMs: they are dependencies, not recommendations.
  { package: "qemu-system-x86", isThere: () => isProgram("qemu-system-x86_64") },
  { package: "busybox-static", isThere: () => isStaticProgram(busyboxPath) },
  { package: "tcc", isThere: () => isProgram("tcc") && libtcc1Paths.some(isFile) },
  { package: "musl-dev", isThere: () => isFile(`${muslDirectory}/libc.a`) },
  { package: "cpio", isThere: () => isProgram("cpio") },
  // Debian 13 calls it libssl3t64, which provides this name.
  { package: "libssl3", isThere: () => libcryptoPaths.some(isFile) },
];

/** What only tests need: nasm makes the micro-VM's guest, a C compiler looks into the system's headers. */
const testPrerequisites: readonly Prerequisite[] = [
  { package: "nasm", isThere: () => isProgram("nasm") },
  { package: "libc6-dev", isThere: () => isFile("/usr/include/stdio.h") },
  { package: "linux-libc-dev", isThere: () => isFile("/usr/include/linux/kvm.h") },
];

const libcryptoPaths = ["/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/lib64/libcrypto.so.3"];

/** Settings of {@linkcode ensurePrerequisites}. */
export interface PrerequisiteOptions {
  /** Whether what is missing may be installed. */
  install: boolean;
  /** Whether what only tests need is asked for too; false by default. */
  tests?: boolean;
  /** Gets one line for each step. */
  log: (line: string) => void;
}

/** Debian packages that are missing here, in the order they are needed. */
export function missingPrerequisites(options: { tests?: boolean } = {}): string[] {
  const all = options.tests ? [...prerequisites, ...testPrerequisites] : prerequisites;
  return all.filter((it) => !it.isThere()).map((it) => it.package);
}

/**
 * Makes sure that everything is there; as root on a Debian it installs what is not.
 *
 * @throws {GuestError} `missing`; the hint is the exact command to type
 * @throws {GuestError} `offline` when the packages could not be had
 *
 * @example
 * ```ts
 * export async function prepare(): Promise<void> {
 *   await ensurePrerequisites({ install: true, log: (line) => console.error(line) });
 * }
 * ```
 */
export async function ensurePrerequisites(options: PrerequisiteOptions): Promise<void> {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    throw new GuestError("missing", "Cannot run a guest: this needs Linux on x86-64");
  }
  const missing = missingPrerequisites(options);
  if (missing.length === 0) return;
  const command = `apt-get update && apt-get install -y --no-install-recommends ${
    missing.join(" ")
  }`;
  const list = missing.join(", ");
  if (!isProgram("apt-get")) {
    throw new GuestError("missing", `Cannot run a guest: ${list} not installed`, {
      hint: `install your distribution's equivalent of Debian's ${list}`,
    });
  }
  if (!options.install || Deno.uid() !== 0) {
    throw new GuestError("missing", `Cannot run a guest: ${list} not installed`, {
      hint: `as root: ${command}`,
    });
  }
  options.log("Updating the package lists");
  await apt(["update"], command);
  options.log(`Installing ${list} (this takes a minute)`);
  await apt(["install", "-y", "--no-install-recommends", ...missing], command);
  const still = missingPrerequisites(options);
  if (still.length > 0) {
    throw new GuestError(
      "missing",
      `Cannot run a guest: ${still.join(", ")} installed, but not found`,
    );
  }
}

async function apt(args: readonly string[], command: string): Promise<void> {
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const { ok, stderr } = await tryTool("apt-get", ["-q", ...args], { env });
  if (ok) return;
  throw new GuestError("offline", `Cannot install packages: ${stderr.trim().slice(-1000)}`, {
    hint: `try it by hand: ${command}`,
  });
}

/** Whether a program of that name is on the PATH. */
export function isProgram(name: string): boolean {
  return (Deno.env.get("PATH") ?? "").split(":").some((directory) =>
    isFile(`${directory}/${name}`)
  );
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** An ELF file that names no dynamic loader runs alone in an initramfs. */
function isStaticProgram(path: string): boolean {
  if (!isFile(path)) return false;
  using file = Deno.openSync(path);
  const head = new Uint8Array(4096);
  const count = file.readSync(head) ?? 0;
  // The loader's path (PT_INTERP) follows the headers at the beginning of the file.
  const text = new TextDecoder("latin1").decode(head.subarray(0, count));
  return text.startsWith("\x7fELF") && !text.includes("/ld-");
}
