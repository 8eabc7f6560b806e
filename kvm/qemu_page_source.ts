/**
 * The pages of a source QEMU, read from its migration stream.
 *
 * @module
 */

import { StreamReader } from "./stream_reader.ts";
import type { StreamBlock, StreamEvents } from "./stream_format.ts";
import { writeAll } from "./write_all.ts";

/** Return path, message SHUT with value 0: the destination has everything. Type u16, length u16, u32. */
const SHUT_OK = Uint8Array.of(0, 1, 0, 4, 0, 0, 0, 0);

/** A connected migration stream whose return path ends here. */
export class QemuPageSource implements Disposable {
  readonly #conn: Deno.UnixConn;
  readonly #reader: StreamReader;
  #closed = false;

  /**
   * Reads from a connection that is its own from here on.
   *
   * @param options.blocks the VM's RAM blocks; events number them by their index here
   */
  constructor(conn: Deno.UnixConn, options: { blocks: readonly StreamBlock[] }) {
    this.#conn = conn;
    this.#reader = new StreamReader(options);
  }

  /**
   * Reads once and hands what came to `events`.
   *
   * @returns false when the VM has said everything
   * @throws {KvmError} `stream`, `streamCut`; whatever Deno throws after `close`
   */
  async next(events: StreamEvents): Promise<boolean> {
    const reader = this.#reader;
    if (reader.ended) return false;
    const count = await this.#conn.read(reader.space());
    if (count === null) reader.end();
    else reader.advance(count, events);
    return !reader.ended;
  }

  /** Whether everything was read. */
  get ended(): boolean {
    return this.#reader.ended;
  }

  /** Lets QEMU finish: it was waiting for this. */
  async shut(): Promise<void> {
    await writeAll(this.#conn, SHUT_OK);
  }

  /** Ends the stream: QEMU sees its migration fail, unless it has finished. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#conn.close();
  }

  /** As {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
