/**
 * A wire on which a test may rewrite whatever passes: a TCP relay that hands over whole frames.
 *
 * @module
 */

import { FRAME_DATA } from "../../migration/frame.ts";
import { FRAME_HEADER_BYTES, RECORD_HEADER_BYTES } from "../../migration/limits.ts";
import { readRecordHeader, type RecordHeader } from "../../migration/record.ts";
import { type Direction, Frames } from "./tampering_relay.ts";

/** Where a frame's record begins. */
export const RECORD_AT = FRAME_HEADER_BYTES;

/**
 * Sees each frame before it goes on, and may change its bytes; `number` is 1 for the handshake's message, and then
 * counts the frames of that direction of the connection.
 */
export type FrameEdit = (
  frame: Uint8Array,
  place: { direction: Direction; number: number },
) => void;

/** See the module. Disposing of it cuts every connection. */
export class EditingRelay implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #targetPort: number;
  readonly #edit: FrameEdit;
  readonly #conns = new Set<Deno.Conn>();
  readonly #accepting: Promise<void>;

  /** Relays to `targetPort` on this host. */
  constructor(targetPort: number, edit: FrameEdit) {
    this.#targetPort = targetPort;
    this.#edit = edit;
    this.#accepting = this.#accept();
  }

  /** Where the source connects. */
  get port(): number {
    return this.#listener.addr.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of this.#conns) close(conn);
    await this.#accepting;
  }

  async #accept(): Promise<void> {
    const pumps: Promise<void>[] = [];
    for (;;) {
      let source: Deno.Conn;
      try {
        source = await this.#listener.accept();
      } catch {
        // The listener was closed.
        break;
      }
      this.#conns.add(source);
      try {
        const destination = await Deno.connect({ hostname: "127.0.0.1", port: this.#targetPort });
        this.#conns.add(destination);
        pumps.push(
          this.#pump("to destination", source, destination),
          this.#pump("to source", destination, source),
        );
      } catch {
        // Nobody listens at the target (any more): so it looks to the source.
        close(source);
      }
    }
    for (const conn of this.#conns) close(conn);
    await Promise.all(pumps);
  }

  async #pump(direction: Direction, from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const frames = new Frames(direction);
    try {
      for (let frame; (frame = await frames.next(from)) !== null;) {
        this.#edit(frame, { direction, number: frames.count });
        for (let at = 0; at < frame.length;) at += await to.write(frame.subarray(at));
      }
    } catch {
      // One side is gone: the other is told below. A close would take what is still on its way to it.
    }
    try {
      await to.closeWrite();
    } catch {
      // So is the other.
    }
  }
}

/** The header of a frame's record; null for any other frame. */
export function recordHeaderOf(frame: Uint8Array): RecordHeader | null {
  // A message of the handshake begins otherwise.
  if (frame[0] !== FRAME_DATA || frame.length < RECORD_AT + RECORD_HEADER_BYTES) return null;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  return readRecordHeader(view, RECORD_AT);
}

function close(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch {
    // Closed already.
  }
}
