/**
 * Where a destination QEMU gets its VM from: pages through the landing, everything else through its migration stream.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import type { Landing } from "./landing.ts";
import type { QemuVm } from "./qemu_vm.ts";
import type { SocketDirectory } from "./runtime_directory.ts";
import { StreamWriter } from "./stream_writer.ts";
import { writeAll } from "./write_all.ts";

/** How long a QEMU that takes no more bytes may need to say why. */
const FAILURE_TIMEOUT_MS = 5_000;

/** What a {@linkcode QemuSink} is made of; it owns the landing and the directory from then on. */
export interface QemuSinkParts {
  /** The QEMU that listens. */
  vm: QemuVm;
  /** Where pages go. */
  landing: Landing;
  /** Where QEMU listens. */
  directory: SocketDirectory;
}

/** Feeds one incoming migration. */
export class QemuSink implements Disposable {
  readonly #vm: QemuVm;
  readonly #landing: Landing;
  readonly #directory: SocketDirectory;
  #conn: Deno.UnixConn | null = null;
  #writer: StreamWriter | null = null;
  #closed = false;

  /** Connects to nothing yet. */
  constructor({ vm, landing, directory }: QemuSinkParts) {
    this.#vm = vm;
    this.#landing = landing;
    this.#directory = directory;
  }

  /** Whether QEMU was given a byte: from then on it cannot go back to waiting. */
  get touched(): boolean {
    return this.#writer !== null;
  }

  /**
   * Connects to QEMU and passes on what precedes the first page. Not before it is all there: a silent connection
   * freezes a QEMU.
   *
   * @throws {KvmError} `stream` when it is not that, `peer` when somebody else listens, `failed`
   */
  async setup(bytes: Uint8Array): Promise<void> {
    const { blocks } = this.#vm.facts;
    const { ramSectionId } = StreamWriter.parseSetup(bytes, { blocks });
    const conn = await Deno.connect({ transport: "unix", path: this.#directory.socketPath });
    this.#conn = conn;
    this.#vm.checkPeer(conn);
    this.#writer = new StreamWriter({ ramSectionId, blocks });
    this.#directory[Symbol.dispose]();
    await this.#write(bytes);
  }

  /** Puts pages where they belong: page number `pages[i]` gets `bytes[4096 i .. 4096 i + 4095]`. */
  pages(block: number, pages: Uint32Array, bytes: Uint8Array): void | Promise<void> {
    if (this.#landing.covers(block)) return this.#landing.pages(block, pages, bytes);
    return this.#write(this.#encoder().pages(block, pages, bytes));
  }

  /** Makes pages all zeros. */
  zeros(block: number, pages: Uint32Array): void | Promise<void> {
    if (this.#landing.covers(block)) return this.#landing.zeros(block, pages);
    return this.#write(this.#encoder().zeros(block, pages));
  }

  /**
   * Tells QEMU `stop` once more, ends RAM and passes on `state`: the devices, EOF and the description. Resolves when the VM
   * is seen loaded and not running.
   *
   * @throws {QmpError} when it does not take the command; QEMU was given nothing then
   * @throws {KvmError} `failed` with QEMU's words, as far as it has any; `state` when it runs after all
   */
  async load(state: Uint8Array): Promise<void> {
    const encoder = this.#encoder();
    // A `cont` of somebody else has armed its autostart again since `open`, and nobody heard of it.
    await this.#vm.qmp.execute("stop");
    await this.#write(encoder.end());
    await this.#write(state);
    const seen = await this.#vm.until((look) => {
      if (this.#vm.hasGone) return "gone";
      if (look === null) return null;
      if (look.migration.status === "failed") return look.migration.errorText ?? "no reason given";
      if (look.runState === "running") return "running";
      const loaded = look.migration.status === "completed" && look.runState !== "inmigrate";
      return loaded ? look : null;
    });
    if (seen === "running") throw new KvmError("state", "Cannot hold the VM: it runs already");
    if (seen === null || typeof seen === "string") throw loadFailed(seen);
    if (seen.runState !== "paused" && seen.runState !== "prelaunch") {
      throw new KvmError("state", `Cannot hold the VM: it is in run state ${seen.runState}`);
    }
    // QEMU has read everything; the stream is of no more use to either side.
    this.close();
  }

  /** Closes the stream and what the landing holds. A QEMU that was not given everything fails then. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#conn?.close();
    this.#landing.close();
    this.#directory[Symbol.dispose]();
  }

  /** As {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #encoder(): StreamWriter {
    if (this.#writer === null) {
      throw new KvmError("state", "Cannot write to QEMU: nothing was set up");
    }
    return this.#writer;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    const conn = this.#conn;
    if (conn === null || this.#closed) {
      throw new KvmError("state", "Cannot write to QEMU: its stream is closed");
    }
    try {
      await writeAll(conn, bytes);
    } catch (cause) {
      throw loadFailed(await this.#reason(), cause);
    }
  }

  /** Why QEMU has closed its stream. */
  async #reason(): Promise<string | null> {
    return await this.#vm.until((look) => {
      if (this.#vm.hasGone) return "gone";
      return look?.migration.status === "failed" ? look.migration.errorText : null;
    }, { timeoutMs: FAILURE_TIMEOUT_MS });
  }
}

function loadFailed(seen: string | null, cause?: unknown): KvmError {
  const text = seen === "gone"
    ? "its QEMU has ended; what it printed says why"
    : `QEMU has given it up: ${seen ?? "no reason given"}`;
  return new KvmError("failed", `Cannot load the VM: ${text}`, { cause });
}
