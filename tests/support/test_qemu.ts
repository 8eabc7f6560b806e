/**
 * Real QEMUs for tests: started in a temporary directory, gone with their scope.
 *
 * @module
 */

import assert from "node:assert/strict";
import { asObject } from "../../kvm/json_values.ts";
import { libc } from "../../kvm/libc.ts";
import { QmpClient } from "../../kvm/qmp.ts";

const binary = "qemu-system-x86_64";
// Whatever hangs here fails here.
const patienceMs = 60_000;

// Stays open for the life of the process: opened here, it is no leak of the first test.
libc();

/** Why there is no QEMU here, or null when there is. */
export const noQemu: string | null = whyNoQemu();

/** How to start a {@linkcode TestQemu}. */
export interface TestQemuOptions {
  /** An existing directory of the test's own. */
  directory: string;
  /** Tells its sockets from those of another in the same directory. */
  name: string;
  /** Guest RAM in MiB; 32 by default. */
  memoryMebibytes?: number;
  args?: readonly string[];
}

/** One QEMU with two monitors: one for the code under test, one for the test itself. */
export class TestQemu implements AsyncDisposable {
  /** The monitor that the test leaves free. */
  readonly qmpPath: string;
  /** The test's own monitor. */
  readonly qmp: QmpClient;
  readonly #process: Deno.ChildProcess;

  private constructor(process: Deno.ChildProcess, parts: { qmpPath: string; qmp: QmpClient }) {
    this.#process = process;
    this.qmpPath = parts.qmpPath;
    this.qmp = parts.qmp;
  }

  static async start(options: TestQemuOptions): Promise<TestQemu> {
    const { directory, name, memoryMebibytes = 32, args = [] } = options;
    const qmpPath = `${directory}/${name}.agent.qmp`;
    const ownPath = `${directory}/${name}.test.qmp`;
    const process = new Deno.Command(binary, {
      args: [
        ...["-m", `${memoryMebibytes}`, "-accel", "tcg", "-display", "none", "-nodefaults"],
        ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
        ...["-qmp", `unix:${ownPath},server=on,wait=off`, ...args],
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    for (const deadlineMs = performance.now() + patienceMs;;) {
      try {
        return new TestQemu(process, { qmpPath, qmp: await QmpClient.connect(ownPath) });
      } catch (error) {
        if (performance.now() > deadlineMs) {
          process.kill("SIGKILL");
          await process.status;
          throw error;
        }
        await pause(20);
      }
    }
  }

  get pid(): number {
    return this.#process.pid;
  }

  async runState(): Promise<unknown> {
    return asObject(await this.qmp.execute("query-status"), "query-status").status;
  }

  /** Waits until `condition` holds. */
  async until(condition: () => Promise<boolean>): Promise<void> {
    const deadlineMs = performance.now() + patienceMs;
    while (!await condition()) {
      assert.ok(performance.now() < deadlineMs, "QEMU does not get there");
      await pause(10);
    }
  }

  /** Guest-physical memory as QEMU reads it. */
  async memory(options: { path: string; bytes: number }): Promise<Uint8Array> {
    await this.qmp.execute("pmemsave", { val: 0, size: options.bytes, filename: options.path });
    const bytes = await Deno.readFile(options.path);
    await Deno.remove(options.path);
    return bytes;
  }

  /** Ends the process without a word. */
  async kill(): Promise<void> {
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await this.#process.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.qmp[Symbol.asyncDispose]();
    await this.kill();
  }
}

/**
 * A boot sector that adds 1 to the first byte of each of 96 pages (from 128 KiB on), in turn, for ever.
 *
 * Each pass begins with CR0.WP flipped, which flushes the TLB: the TCG of QEMU 7.2 does not mark a page as dirty again
 * that is still in the TLB when the dirty bitmap is synced, and what is written to it then is lost in any migration.
 */
export function writingBootSector(): Uint8Array {
  const sector = new Uint8Array(512);
  sector.set([
    ...[0xfa], /*                               cli                */
    ...[0x0f, 0x20, 0xc0], /*                   mov eax, cr0       */
    ...[0x66, 0x35, 0x00, 0x00, 0x01, 0x00], /* xor eax, 0x10000   */
    ...[0x0f, 0x22, 0xc0], /*                   mov cr0, eax       */
    ...[0xb8, 0x00, 0x20], /*                   mov ax, 0x2000     */
    ...[0x8e, 0xc0], /*                         mov es, ax         */
    ...[0x31, 0xff], /*                         xor di, di         */
    ...[0x26, 0xfe, 0x05], /*                   inc byte [es:di]   */
    ...[0x81, 0xc7, 0x00, 0x10], /*             add di, 4096       */
    ...[0x75, 0xf7], /*                         jnz the inc        */
    ...[0x05, 0x00, 0x10], /*                   add ax, 0x1000     */
    ...[0x3d, 0x00, 0x80], /*                   cmp ax, 0x8000     */
    ...[0x72, 0xeb], /*                         jb the mov es      */
    ...[0xeb, 0xda], /*                         jmp the first mov  */
  ]);
  sector.set([0x55, 0xaa], 510);
  return sector;
}

/** Resolves after `ms`. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function whyNoQemu(): string | null {
  try {
    const { success } = new Deno.Command(binary, {
      args: ["--version"],
      stdout: "null",
      stderr: "null",
    }).outputSync();
    return success ? null : `${binary} does not start`;
  } catch {
    return `${binary} is not installed`;
  }
}
