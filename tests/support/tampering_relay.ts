/**
 * A wire with an attacker on it: a TCP relay that knows where each frame begins and does one thing to one of them.
 *
 * Control messages are sealed, so a frame is recognised by its direction, its place and its length alone; a run
 * without any tampering shows in `trace` whether that still holds.
 *
 * @module
 */

import { FRAME_DATA } from "../../migration/frame.ts";
import { FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, TAG_BYTES } from "../../migration/limits.ts";
import { MESSAGE_1_BYTES, MESSAGE_2_BYTES } from "../../migration/opening.ts";
import { readRecordHeader } from "../../migration/record.ts";

/** What passes on the wire, in both directions. */
export const wireNames = [
  "message 1",
  "message 2",
  "OFFER",
  "ACCEPT",
  "SETUP",
  "PAGES",
  "ZEROS",
  "ROUND",
  "STATE",
  "ACK",
  "PING",
  "PONG",
  "FINISH",
  "LOADED",
  "RELEASE",
  "RUNNING",
  "DONE",
  "other",
] as const;
/** One of {@linkcode wireNames}. */
export type WireName = typeof wireNames[number];

/** What is done to a frame: one bit flipped in its frame header, the record header, the body or the tag; or to all of it. */
export const tamperingActs = [
  "flip frame header",
  "flip record header",
  "flip body",
  "flip tag",
  "drop",
  "duplicate",
  "swap",
  "truncate",
] as const;
/** One of {@linkcode tamperingActs}. `swap`: with the frame after it; `truncate`: half of it, then the connection is cut. */
export type TamperingAct = typeof tamperingActs[number];

/** One attack: done to the first frame of that name, or the one after `skip` of them. */
export interface Tampering {
  frame: WireName;
  act: TamperingAct;
  skip?: number;
}

/** The two ways along a wire. */
export type Direction = "to destination" | "to source";

/** See the module. Disposing of it cuts every connection. */
export class TamperingRelay implements AsyncDisposable {
  /** The names of what came in, in order; what the source said first has `>`, the rest `<`. */
  readonly trace: string[] = [];
  /** Resolves when a connection has ended, one way at least. */
  readonly ended: Promise<void>;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #targetPort: number;
  readonly #tampering: Tampering | null;
  readonly #conns = new Set<Deno.Conn>();
  readonly #accepting: Promise<void>;
  readonly #ended = Promise.withResolvers<void>();
  #skip: number;
  #hasTampered = false;
  readonly #seen = new Set<WireName>();

  /** Relays to `targetPort` on this host. */
  constructor(targetPort: number, tampering: Tampering | null) {
    this.#targetPort = targetPort;
    this.#tampering = tampering;
    this.#skip = tampering?.skip ?? 0;
    this.ended = this.#ended.promise;
    this.#accepting = this.#accept();
  }

  /** Where the source connects. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** Whether the attack was carried out. */
  get hasTampered(): boolean {
    return this.#hasTampered;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.#cut();
    await this.#accepting;
  }

  async #accept(): Promise<void> {
    const pumps: Promise<void>[] = [];
    try {
      for (;;) {
        const source = await this.#listener.accept();
        source.setNoDelay(true);
        this.#conns.add(source);
        const destination = await Deno.connect({ hostname: "127.0.0.1", port: this.#targetPort });
        destination.setNoDelay(true);
        this.#conns.add(destination);
        pumps.push(
          this.#pump("to destination", source, destination),
          this.#pump("to source", destination, source),
        );
      }
    } catch {
      // The listener was closed, or nobody listens at the target.
    }
    this.#cut();
    await Promise.all(pumps);
  }

  async #pump(direction: Direction, from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const frames = new Frames(direction);
    let held: Uint8Array | null = null;
    try {
      for (let bytes; (bytes = await frames.next(from)) !== null;) {
        const name = frames.count === 1 ? frames.firstName : this.#name(direction, bytes, frames);
        this.#seen.add(name);
        this.trace.push(`${direction === "to destination" ? ">" : "<"} ${name}`);
        const act = this.#actOn(name);
        if (act === "truncate") {
          await writeAll(to, bytes.subarray(0, bytes.length >> 1));
          this.#cut();
          break;
        }
        if (act === "drop") continue;
        if (act === "swap") {
          held = bytes;
          continue;
        }
        if (act !== null && act !== "duplicate") {
          const at = flipOffset(act, { name, bytes });
          bytes[at] = bytes[at]! ^ 1;
        }
        await writeAll(to, bytes);
        if (act === "duplicate") await writeAll(to, bytes);
        if (held !== null) await writeAll(to, held);
        held = null;
      }
    } catch {
      // One side is gone: the other is told below.
    }
    this.#ended.resolve();
    try {
      await to.closeWrite();
    } catch {
      // So is the other.
    }
  }

  #actOn(name: WireName): TamperingAct | null {
    if (this.#tampering?.frame !== name || this.#hasTampered || this.#skip-- > 0) return null;
    this.#hasTampered = true;
    return this.#tampering.act;
  }

  #name(direction: Direction, bytes: Uint8Array, frames: Frames): WireName {
    if (bytes[0] === FRAME_DATA) return recordName(bytes);
    const payloadBytes = bytes.length - FRAME_HEADER_BYTES;
    frames.controls++;
    return direction === "to destination"
      ? this.#nameOfSource(payloadBytes, frames.controls)
      : this.#nameOfDestination(payloadBytes, frames.controls);
  }

  #nameOfSource(payloadBytes: number, count: number): WireName {
    if (count === 1) return "OFFER";
    if (payloadBytes === sealedBytes('{"type":"RELEASE"}')) return "RELEASE";
    if (payloadBytes === sealedBytes('{"type":"DONE"}')) return "DONE";
    // Its digest alone has 64 digits.
    if (payloadBytes > 150 && this.#seen.has("STATE") && !this.#seen.has("FINISH")) return "FINISH";
    const ping = sealedBytes('{"lanes":[{"lane":0,"sequence":1}],"nonce":0,"type":"PING"}');
    return payloadBytes >= ping && payloadBytes < ping + 12 ? "PING" : "other";
  }

  #nameOfDestination(payloadBytes: number, count: number): WireName {
    if (count === 1) return "ACCEPT";
    if (payloadBytes < sealedBytes('{"nonce":12345,"type":"PONG"}')) return "PONG";
    // Everything is acknowledged before FINISH, and FINISH has one answer.
    if (!this.#seen.has("FINISH")) return "ACK";
    if (!this.#seen.has("LOADED")) return "LOADED";
    return this.#seen.has("RELEASE") && !this.#seen.has("RUNNING") ? "RUNNING" : "other";
  }

  #cut(): void {
    for (const conn of this.#conns) {
      try {
        conn.close();
      } catch {
        // Closed already.
      }
    }
    this.#conns.clear();
  }
}

/** Cuts a byte stream where its frames end; the first piece is a handshake message of a fixed length. */
export class Frames {
  readonly firstName: WireName;
  readonly #firstBytes: number;
  #rest = new Uint8Array(0);
  /** Pieces so far, and CONTROL frames among them. */
  count = 0;
  controls = 0;

  constructor(direction: Direction) {
    const first = direction === "to destination";
    this.firstName = first ? "message 1" : "message 2";
    this.#firstBytes = first ? MESSAGE_1_BYTES : MESSAGE_2_BYTES;
  }

  /** The next whole piece; null at the end of the stream. */
  async next(conn: Deno.Conn): Promise<Uint8Array | null> {
    for (;;) {
      const length = this.#length();
      if (length !== null && this.#rest.length >= length) {
        const piece = this.#rest.slice(0, length);
        this.#rest = this.#rest.subarray(length);
        this.count++;
        return piece;
      }
      const more = new Uint8Array(256 * 1024);
      const count = await conn.read(more);
      if (count === null) return null;
      const joined = new Uint8Array(this.#rest.length + count);
      joined.set(this.#rest);
      joined.set(more.subarray(0, count), this.#rest.length);
      this.#rest = joined;
    }
  }

  #length(): number | null {
    if (this.count === 0) return this.#firstBytes;
    if (this.#rest.length < FRAME_HEADER_BYTES) return null;
    const view = new DataView(this.#rest.buffer, this.#rest.byteOffset);
    return FRAME_HEADER_BYTES + view.getUint32(4);
  }
}

/** A record by what its header and length show: which pages it holds is sealed, what kind it is can be guessed. */
function recordName(bytes: Uint8Array): WireName {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const header = readRecordHeader(view, FRAME_HEADER_BYTES);
  if (header === null) return "other";
  const plaintextBytes = header.bodyLength - TAG_BYTES;
  if (header.sequence === 1) return "SETUP";
  if (plaintextBytes === 21) return "ROUND";
  if ((plaintextBytes - 3) % (4 + 4096) === 0) return "PAGES";
  // Thousands of zero pages come in the first round only.
  return header.keyNumber > 0 && plaintextBytes > 4096 ? "STATE" : "ZEROS";
}

/** Payload of a CONTROL frame with one part: its part header, the message, the tag. */
function sealedBytes(message: string): number {
  return 4 + message.length + TAG_BYTES;
}

/** Which byte gets a bit flipped. */
function flipOffset(act: TamperingAct, frame: { name: WireName; bytes: Uint8Array }): number {
  const { name, bytes } = frame;
  switch (act) {
    case "flip frame header":
      return FRAME_HEADER_BYTES - 1; // of its length
    case "flip record header":
      return FRAME_HEADER_BYTES + 15; // of its sequence
    case "flip tag":
      return bytes.length - 1;
  }
  if (name === "message 1" || name === "message 2") return 40; // behind the ephemeral key
  const bodyAt = FRAME_HEADER_BYTES + (bytes[0] === FRAME_DATA ? RECORD_HEADER_BYTES : 0);
  return bodyAt + ((bytes.length - bodyAt) >> 1);
}

async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}
