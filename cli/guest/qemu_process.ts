/**
 * A QEMU that runs as long as this object is in use, with its serial ports captured.
 *
 * @module
 */

import { GuestError } from "./guest_error.ts";
import { type Heartbeat, parseHeartbeats, type SerialChunk, type SerialLine } from "./heartbeat.ts";
import { qemuArguments, type QemuOptions, serialPortCount } from "./qemu_arguments.ts";
import { SerialCapture } from "./serial_capture.ts";

const QEMU = "qemu-system-x86_64";
/** QEMU connects its serial ports within a few ms; a busy machine takes longer. */
const START_TIMEOUT_MS = 30_000;
const STDERR_CHARACTERS = 64 * 1024;

/**
 * A QEMU process. Disposing of it kills it and removes its sockets.
 *
 * @example
 * ```ts
 * import { buildLinuxGuest, linuxCommandLine } from "./linux_guest.ts";
 *
 * export async function bootOnce(cacheDirectory: string): Promise<void> {
 *   const files = await buildLinuxGuest({ cacheDirectory, log: console.error });
 *   const append = linuxCommandLine({ dirtyMiBPerSecond: 16, workingSetMiB: 64, secretToken: "x7" });
 *   await using vm = await QemuProcess.start({ guest: { ...files, append }, memoryMiB: 256 });
 *   await vm.waitForLine(0, "READY", 60_000);
 *   console.log(vm.pid, vm.qmpPaths[0], vm.heartbeats().length);
 * }
 * ```
 */
export class QemuProcess implements AsyncDisposable {
  /** QEMU's process id. */
  readonly pid: number;
  /** Its QMP sockets, unused so far. */
  readonly qmpPaths: readonly string[];
  /** The private directory (0700) of its sockets and of a memory file (`m0`). */
  readonly directory: string;
  /** The whole command line, for a person to repeat. */
  readonly commandLine: readonly string[];
  /** Resolves when the process is gone. */
  readonly exited: Promise<Deno.CommandStatus>;

  readonly #child: Deno.ChildProcess;
  readonly #stderrEnd: Promise<void>;
  readonly #serial: SerialCapture[] = [];
  readonly #onUnload = () => this.#abandon();
  #stderr = "";

  private constructor(options: QemuOptions, directory: string) {
    const args = qemuArguments(options, directory);
    this.directory = directory;
    this.commandLine = [QEMU, ...args];
    this.qmpPaths = Array.from({ length: options.qmpCount ?? 1 }, (_, i) => `${directory}/qmp${i}`);
    this.#child = spawn(args);
    this.pid = this.#child.pid;
    this.exited = this.#child.status;
    this.#stderrEnd = this.#readStderr();
    // A process that ends in a hurry takes its machines with it.
    globalThis.addEventListener("unload", this.#onUnload);
  }

  /**
   * Starts QEMU; resolves when it has its devices, which is before the guest has booted.
   *
   * @throws {GuestError} `qemu` with QEMU's own words when it does not start; `missing` when it is not installed
   */
  static async start(options: QemuOptions): Promise<QemuProcess> {
    const parent = options.directory === undefined ? {} : { dir: options.directory };
    const directory = await Deno.makeTempDir({ ...parent, prefix: "sealift-vm-" });
    const listeners: Deno.Listener[] = [];
    let vm: QemuProcess | undefined;
    try {
      for (let i = 0; i < serialPortCount(options.guest); i++) {
        listeners.push(Deno.listen({ transport: "unix", path: `${directory}/serial${i}` }));
      }
      vm = new QemuProcess(options, directory);
      await vm.#attachSerial(listeners);
      return vm;
    } catch (error) {
      await vm?.[Symbol.asyncDispose]();
      await Deno.remove(directory, { recursive: true }).catch(() => {});
      throw error;
    } finally {
      for (const listener of listeners) listener.close();
    }
  }

  /** What came out of a serial port so far; the array grows. */
  serial(port: number): readonly SerialChunk[] {
    return this.#port(port).chunks;
  }

  /** The guest's beats so far; they come through its last serial port. */
  heartbeats(): Heartbeat[] {
    return parseHeartbeats(this.serial(this.#serial.length - 1));
  }

  /**
   * The first line of a serial port that includes `text`, among those that came and those that come.
   *
   * @throws {GuestError} `timeout`, or `qemu` when QEMU ends first
   */
  async waitForLine(port: number, text: string, timeoutMs: number): Promise<SerialLine> {
    return await this.#port(port).waitForLine(text, timeoutMs);
  }

  /** What QEMU said on its standard error, at most the last 64 Ki characters. */
  get stderr(): string {
    return this.#stderr;
  }

  /** Kills QEMU and waits until it is gone; what was captured stays. */
  async kill(): Promise<void> {
    this.#kill();
    await this.exited;
    await this.#stderrEnd;
    for (const port of this.#serial) await port.closed;
  }

  /** Lets QEMU outlive this process, its directory with it. */
  leave(): void {
    globalThis.removeEventListener("unload", this.#onUnload);
    this.#child.unref();
  }

  /** Kills QEMU and removes its directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    globalThis.removeEventListener("unload", this.#onUnload);
    await this.kill();
    await Deno.remove(this.directory, { recursive: true }).catch(() => {});
  }

  /** All that can be done of disposing at once. */
  #abandon(): void {
    this.#kill();
    try {
      Deno.removeSync(this.directory, { recursive: true });
    } catch {
      // The system's temporary directory is cleaned by others as well.
    }
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It is gone already.
    }
  }

  #port(port: number): SerialCapture {
    const capture = this.#serial[port];
    if (capture === undefined) {
      throw new RangeError(`Cannot read serial port ${port}: no such port`);
    }
    return capture;
  }

  async #attachSerial(listeners: readonly Deno.Listener[]): Promise<void> {
    const failed = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      failed.reject(
        new GuestError("timeout", "Cannot start QEMU: its serial ports do not connect"),
      );
    }, START_TIMEOUT_MS);
    const ended = this.exited.then(async () => {
      await this.#stderrEnd;
      failed.reject(new GuestError("qemu", `Cannot start QEMU: ${this.#stderr.trim()}`));
    });
    try {
      for (const listener of listeners) {
        const conn = listener.accept();
        conn.catch(() => {}); // closed by `start` when QEMU ends before it connects
        this.#serial.push(new SerialCapture(await Promise.race([conn, failed.promise])));
      }
    } finally {
      clearTimeout(timer);
      failed.promise.catch(() => {});
      ended.catch(() => {});
    }
  }

  async #readStderr(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.#child.stderr) {
      const text = this.#stderr + decoder.decode(chunk, { stream: true });
      this.#stderr = text.slice(-STDERR_CHARACTERS);
    }
  }
}

function spawn(args: readonly string[]): Deno.ChildProcess {
  try {
    return new Deno.Command(QEMU, {
      args: [...args],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    })
      .spawn();
  } catch (cause) {
    throw new GuestError("missing", `Cannot start QEMU: no ${QEMU}`, { cause });
  }
}
