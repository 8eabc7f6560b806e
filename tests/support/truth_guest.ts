/**
 * A Linux guest that tells which of its pages its processes have, and then stands still.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  buildLinuxGuest,
  type LinuxGuest,
  linuxGuestArguments,
} from "../../cli/guest/linux_guest.ts";
import {
  busyboxPath,
  libtcc1Paths,
  muslDirectory,
  muslIncludeDirectory,
} from "../../cli/guest/prerequisites.ts";
import { runTool } from "../../cli/guest/run_tool.ts";
import { patienceMs } from "./patience.ts";
import { testCacheDirectory } from "./qemu.ts";
import { pause, TestQemu } from "./test_qemu.ts";

/** Flags of a page as `truth_guest/truth.c` has them. */
export const truthFlags = {
  pagemap: 1,
  mmap: 2,
  slab: 4,
  buddy: 8,
  pageTable: 16,
  noPage: 32,
  lru: 64,
  reserved: 128,
} as const;

/** What a guest says of itself. */
export interface Truth {
  /** Processes that have memory of their own. */
  addressSpaces: number;
  /** First and last page of the kernel's code. */
  code: { first: number; last: number };
  /** {@linkcode truthFlags} of each guest-physical page. */
  pages: Uint8Array;
}

/** How the guest is started. */
export interface TruthGuestOptions {
  /** An existing directory of the test's own. */
  directory: string;
  memoryMebibytes: number;
  /** QEMU's `-cpu`. */
  cpu?: string;
  cpus?: number;
  /** Added to the kernel's command line. */
  append?: string;
  /** QEMU's further arguments. */
  args?: string[];
}

/** Boots the guest; resolves when it has told everything and was stopped. */
export async function startTruthGuest(
  options: TruthGuestOptions,
): Promise<{ vm: TestQemu; truth: Truth }> {
  const { directory, memoryMebibytes, cpu = "qemu64", cpus = 1, append = "", args = [] } = options;
  const { kernel, initrd } = await buildTruthGuest(directory);
  const console = `${directory}/console`;
  const vm = await TestQemu.start({
    directory,
    name: "truth",
    memoryMebibytes,
    args: [
      ...["-cpu", cpu, "-smp", String(cpus), "-serial", `file:${console}`],
      ...["-kernel", kernel, "-initrd", initrd],
      ...["-append", `${linuxGuestArguments} rdinit=/init ${append}`, ...args],
    ],
  });
  try {
    const said = await waitForText(console, /^FROZEN/m);
    await vm.qmp.execute("stop");
    return { vm, truth: parseTruth(said) };
  } catch (error) {
    await vm[Symbol.asyncDispose]();
    throw error;
  }
}

/** Parses what the guest says on its console. */
function parseTruth(text: string): Truth {
  const addressSpaces = Number(/^SPACES (\d+)/m.exec(text)?.[1]);
  const code = /^CODE ([0-9a-f]+)-([0-9a-f]+)/m.exec(text);
  const pages: number[] = [];
  for (const [, count, flags] of text.matchAll(/^P (\d+) (\d+)\r?$/gm)) {
    for (let n = Number(count); n > 0; n--) pages.push(Number(flags));
  }
  assert.equal(pages.length, 2 ** 20, "the guest told of all its pages");
  assert.ok(code !== null && addressSpaces > 0);
  const [first, last] = [parseInt(code[1]!, 16) >>> 12, parseInt(code[2]!, 16) >>> 12];
  return { addressSpaces, code: { first, last }, pages: Uint8Array.from(pages) };
}

async function waitForText(path: string, pattern: RegExp): Promise<string> {
  const deadlineMs = performance.now() + 4 * patienceMs;
  for (;;) {
    const text = await Deno.readTextFile(path).catch(() => "");
    if (pattern.test(text)) return text;
    assert.doesNotMatch(text, /^FAIL|Kernel panic/m);
    assert.ok(performance.now() < deadlineMs, `the guest said only: ${text.slice(-500)}`);
    await pause(100);
  }
}

async function buildTruthGuest(directory: string): Promise<LinuxGuest> {
  const { kernel } = await buildLinuxGuest({
    cacheDirectory: testCacheDirectory(),
    log: () => {},
  });
  const root = `${directory}/root`;
  await Deno.mkdir(`${root}/bin`, { recursive: true });
  await Deno.copyFile(busyboxPath, `${root}/bin/busybox`);
  const source = `${directory}/truth.c`;
  await Deno.copyFile(new URL("truth_guest/truth.c", import.meta.url), source);
  const libtcc1 = libtcc1Paths.find((path) => exists(path)) ?? libtcc1Paths[0];
  await runTool("tcc", [
    ...["-nostdlib", "-nostdinc", "-static", "-I", muslIncludeDirectory, "-o", `${root}/init`],
    ...[`${muslDirectory}/crt1.o`, `${muslDirectory}/crti.o`, source],
    ...[`${muslDirectory}/libc.a`, libtcc1, `${muslDirectory}/crtn.o`],
  ]);
  const initrd = `${directory}/initramfs`;
  await runTool("cpio", ["-o", "-H", "newc", "--quiet", "--owner=0:0", "-O", initrd], {
    cwd: root,
    input: new TextEncoder().encode("bin\nbin/busybox\ninit\n"),
  });
  return { kernel, initrd };
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
