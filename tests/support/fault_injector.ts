/**
 * Somebody on the way: relays connections message by message and does to each what a plan says. Frame headers are in
 * clear, so that an attacker can tell one from the next, as this does.
 *
 * @module
 */

import {
  FRAME_HEADER_BYTES,
  MAX_CONTROL_FRAME_BYTES,
  MAX_DATA_FRAME_BYTES,
} from "../../migration/limits.ts";
import { MESSAGE_1_BYTES, MESSAGE_2_BYTES } from "../../migration/opening.ts";
import type { Transport } from "../../migration/ports.ts";
import { type LoopbackEnd, loopbackPair } from "./loopback.ts";

/** Which way a message goes. */
export type Direction = "there" | "back";

/** One message: a handshake message, then frames. */
export interface Unit {
  direction: Direction;
  /** From 0: 0 is the handshake's. */
  index: number;
  /** Which connection, from 0. */
  connection: number;
  bytes: Uint8Array;
}

/** What is done to one message. */
export type Fault =
  | { kind: "pass" }
  | { kind: "flip"; byte: number; bit: number }
  | { kind: "drop" }
  | { kind: "duplicate" }
  /** Goes after the one that follows it. */
  | { kind: "swap" }
  /** The connection ends after so many bytes of it. */
  | { kind: "truncate"; bytes: number }
  /** It arrives, then the connection ends. */
  | { kind: "cutAfter" }
  | { kind: "delay"; ms: number }
  /** Others go before it, or right behind it. */
  | { kind: "inject"; frames: Uint8Array[]; behind?: boolean }
  /** This direction says nothing more, and nothing is closed. */
  | { kind: "stall" };

const PASS: Fault = { kind: "pass" };

/** What passes the time of a delay. */
interface Sleeper {
  sleep(ms: number): Promise<void>;
}

/** See the module. One plan serves all connections; messages are counted over each alone. */
export class FaultInjector {
  readonly #dial: () => LoopbackEnd;
  readonly #plan: (unit: Unit) => Fault | undefined;
  readonly #clock: Sleeper;
  readonly #running = new Set<Promise<void>>();
  readonly #halt = Promise.withResolvers<void>();
  readonly #ends: LoopbackEnd[] = [];
  #connections = 0;
  /** Messages seen: direction and length, for a look at what there is to damage. */
  readonly seen: { direction: Direction; index: number; length: number; kind: number }[] = [];
  /** Faults that were done. */
  done = 0;

  constructor(options: {
    dial: () => LoopbackEnd;
    plan: (unit: Unit) => Fault | undefined;
    clock: Sleeper;
  }) {
    this.#dial = options.dial;
    this.#plan = options.plan;
    this.#clock = options.clock;
  }

  /** A connection that goes through here. */
  dial(): LoopbackEnd {
    const onward = this.#dial();
    const [outer, inner] = loopbackPair();
    this.#ends.push(inner, onward);
    const connection = this.#connections++;
    const halves = [
      this.#relay({ direction: "there", connection }, inner, onward),
      this.#relay({ direction: "back", connection }, onward, inner),
    ];
    const running = Promise.all(halves).then(() => {});
    this.#running.add(running);
    return outer;
  }

  /** Ends every connection now. */
  cut(): void {
    for (const end of this.#ends) if (!end.closed) end.close();
  }

  /** Resolves when every connection has ended; stalled ones end now. */
  async close(): Promise<void> {
    this.#halt.resolve();
    await Promise.all(this.#running);
  }

  async #relay(
    { direction, connection }: { direction: Direction; connection: number },
    from: LoopbackEnd,
    to: LoopbackEnd,
  ): Promise<void> {
    let held: Uint8Array | null = null;
    try {
      for (let index = 0;; index++) {
        const bytes = await nextUnit(from, { direction, index });
        if (bytes === null) break;
        this.seen.push({
          direction,
          index,
          length: bytes.length,
          kind: index === 0 ? 0 : bytes[0]!,
        });
        const fault = this.#plan({ direction, index, connection, bytes }) ?? PASS;
        if (fault.kind !== "pass") this.done++;
        const late = held;
        held = null;
        switch (fault.kind) {
          case "flip":
            bytes[fault.byte]! ^= 1 << fault.bit;
            await writeAll(to, bytes);
            break;
          case "drop":
            break;
          case "duplicate":
            await writeAll(to, bytes);
            await writeAll(to, bytes);
            break;
          case "swap":
            held = bytes;
            break;
          case "truncate":
            await writeAll(to, bytes.subarray(0, fault.bytes));
            return;
          case "cutAfter":
            await writeAll(to, bytes);
            return;
          case "inject":
            await writeAll(
              to,
              joined(fault.behind === true ? [bytes, ...fault.frames] : [...fault.frames, bytes]),
            );
            break;
          case "delay":
            await Promise.race([this.#clock.sleep(fault.ms), this.#halt.promise]);
            await writeAll(to, bytes);
            break;
          case "stall":
            await Promise.race([closedSoon(from, this.#clock), this.#halt.promise]);
            return;
          default:
            await writeAll(to, bytes);
        }
        if (late !== null) await writeAll(to, late);
      }
    } catch {
      // One side has closed: the other hears of it below.
    } finally {
      for (const end of [from, to]) if (!end.closed) end.close();
    }
  }
}

/** Swallows what comes, as long as it does. */
async function closedSoon(from: Transport, clock: Sleeper): Promise<void> {
  const sink = new Uint8Array(64 * 1024);
  while (await from.read(sink).catch(() => null) !== null) await clock.sleep(1);
}

async function nextUnit(
  from: Transport,
  { direction, index }: { direction: Direction; index: number },
): Promise<Uint8Array | null> {
  if (index === 0) {
    return await exactly(from, direction === "there" ? MESSAGE_1_BYTES : MESSAGE_2_BYTES);
  }
  const header = await exactly(from, FRAME_HEADER_BYTES);
  if (header === null) return null;
  const length = new DataView(header.buffer).getUint32(4);
  if (length > Math.max(MAX_CONTROL_FRAME_BYTES, MAX_DATA_FRAME_BYTES)) {
    throw new RangeError("Cannot relay a frame: it is longer than any may be");
  }
  const payload = await exactly(from, length);
  if (payload === null) return null;
  const whole = new Uint8Array(FRAME_HEADER_BYTES + length);
  whole.set(header);
  whole.set(payload, FRAME_HEADER_BYTES);
  return whole;
}

async function exactly(from: Transport, length: number): Promise<Uint8Array | null> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = await from.read(bytes.subarray(at));
    if (count === null) return null;
    at += count;
  }
  return bytes;
}

function joined(pieces: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

async function writeAll(to: Transport, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await to.write(bytes.subarray(at));
}
