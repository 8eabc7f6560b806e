import { GuestError } from "./guest_error.ts";
import { LineAssembler, type SerialChunk, type SerialLine } from "./heartbeat.ts";

const READ_BYTES = 16 * 1024;

/** Keeps everything that comes out of one serial port, with the time it came. */
export class SerialCapture {
  /** What came so far; grows. */
  readonly chunks: SerialChunk[] = [];
  /** Resolves when the port is closed. */
  readonly closed: Promise<void>;
  readonly #conn: Deno.Conn;
  readonly #waiting = new Set<() => void>();
  #hasEnded = false;

  /** Takes the connection over. */
  constructor(conn: Deno.Conn) {
    this.#conn = conn;
    this.closed = this.#read();
  }

  /**
   * The first line that includes `text`, among those that came and those that come.
   *
   * @throws {GuestError} `timeout` when it does not come in time, `qemu` when the port is closed
   */
  async waitForLine(text: string, timeoutMs: number): Promise<SerialLine> {
    const lines = new LineAssembler();
    const until = performance.now() + timeoutMs;
    for (let next = 0;;) {
      for (let chunk; (chunk = this.chunks[next]) !== undefined; next++) {
        const line = lines.push(chunk).find((line) => line.text.includes(text));
        if (line !== undefined) return line;
      }
      if (this.#hasEnded) {
        throw new GuestError("qemu", `Cannot wait for "${text}": the serial port is closed`);
      }
      const leftMs = until - performance.now();
      if (leftMs <= 0) {
        throw new GuestError("timeout", `Cannot wait for "${text}": not seen in ${timeoutMs} ms`);
      }
      await this.#change(leftMs);
    }
  }

  /** Ends the capture; what came stays. */
  close(): void {
    if (!this.#hasEnded) this.#conn.close();
    this.#hasEnded = true;
    this.#wake();
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(READ_BYTES);
    try {
      for (let count; (count = await this.#conn.read(buffer)) !== null;) {
        this.chunks.push({ atMs: performance.now(), bytes: buffer.slice(0, count) });
        this.#wake();
      }
    } catch {
      // QEMU was killed or the capture closed: both are its end.
    }
    this.close();
  }

  async #change(timeoutMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, timeoutMs);
    this.#waiting.add(resolve);
    await promise;
    this.#waiting.delete(resolve);
    clearTimeout(timer);
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
  }
}
