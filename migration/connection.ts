/**
 * One connection after its handshake: frames in, frames out, control messages sealed and opened.
 *
 * @see PROTOCOL.md section 2
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import { MigrationError } from "./errors.ts";
import { type Frame, FRAME_CONTROL, type FrameReader } from "./frame.ts";
import { MAX_QUEUED_CONTROL_BYTES } from "./limits.ts";
import { decodeMessage, encodeMessage, type Message } from "./messages.ts";
import type { NoiseResult } from "./noise.ts";
import { Outbox } from "./outbox.ts";
import type { Clock, Transport } from "./ports.ts";
import { ControlChannel } from "./secure_channel.ts";

/** See the module. */
export class Connection implements Disposable {
  readonly reader: FrameReader;
  readonly outbox: Outbox;
  readonly #transport: Transport;
  readonly #channel: ControlChannel;
  readonly #clock: Clock;
  readonly #handshakeBytes: number;
  #closed = false;
  /** When bytes last came, on the clock. */
  lastReadAtMs: number;

  constructor(options: {
    transport: Transport;
    /** The reader of the handshake: it may hold bytes already. */
    reader: FrameReader;
    /** Wiped here. */
    keys: NoiseResult;
    clock: Clock;
    onCut: (cause: unknown) => void;
  }) {
    this.#transport = options.transport;
    this.#clock = options.clock;
    this.reader = options.reader;
    this.#handshakeBytes = options.reader.readBytes - options.reader.bufferedBytes;
    this.outbox = new Outbox(options.transport, options);
    // Noise's AESGCM is this suite, with the counter as its nonce.
    const suite = defaultRegistry().get("aes-256-gcm");
    this.#channel = new ControlChannel({ ...options.keys, suite });
    options.keys.sendKey.fill(0);
    options.keys.receiveKey.fill(0);
    this.lastReadAtMs = options.clock.now();
  }

  /** Bytes that came behind the handshake. */
  get readBytes(): number {
    return this.reader.readBytes - this.#handshakeBytes;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Seals a control message and puts it behind what waits to be written. @returns its exact bytes, for the transcript */
  send(message: Message): Uint8Array {
    const bytes = encodeMessage(message);
    if (this.#closed) return bytes;
    for (const frame of this.#channel.seal(bytes)) this.outbox.put(frame);
    // Who reads no answers gets none: its read ends, and with it the connection.
    if (this.outbox.controlBytes > MAX_QUEUED_CONTROL_BYTES) this[Symbol.dispose]();
    return bytes;
  }

  /** Waits for the next whole frame. @returns null at the end of the stream */
  async nextFrame(): Promise<Frame | null> {
    for (;;) {
      const frame = this.reader.next();
      if (frame !== null) return frame;
      if (!await this.reader.fill()) return null;
      this.lastReadAtMs = this.#clock.now();
    }
  }

  /**
   * The bytes of a control message once its last part came, else null.
   *
   * @throws MigrationError `cut` when it does not open, `protocol` when it does and is none
   */
  open(frame: Frame): Uint8Array | null {
    if (frame.kind !== FRAME_CONTROL) {
      // Records are opened elsewhere: nobody has proven that this is one.
      throw new MigrationError("cut", "Cannot read a frame: a record came where none may");
    }
    return this.#channel.open(frame.header, frame.payload);
  }

  /** Waits for the next control message. @returns null at the end of the stream @throws MigrationError as `open` */
  async nextMessage(): Promise<{ message: Message; bytes: Uint8Array } | null> {
    for (let frame; (frame = await this.nextFrame()) !== null;) {
      const bytes = this.open(frame);
      if (bytes !== null) return { message: decodeMessage(bytes), bytes };
    }
    return null;
  }

  /** Writes what waits, for at most `withinMs`, and closes. */
  async finish(withinMs: number): Promise<void> {
    const late = Promise.withResolvers<void>();
    const timer = this.#clock.timer(withinMs, late.resolve);
    await Promise.race([this.outbox.drained(), late.promise]);
    timer.clear();
    this[Symbol.dispose]();
  }

  /** Closes both ways and wipes the keys. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.outbox.close();
    try {
      this.#transport.close();
    } catch {
      // Already closed by the other side.
    }
    this.#channel[Symbol.dispose]();
  }
}
