/**
 * Who may speak to the destination: the responder's side of the handshake, and nothing before it is
 * complete (PROTOCOL.md section 2).
 *
 * @module
 */

import { Connection } from "./connection.ts";
import { FrameReader } from "./frame.ts";
import type { Identity } from "./identity.ts";
import { HANDSHAKE_TIMEOUT_MS, MAX_HALF_OPEN } from "./limits.ts";
import type { OfferMessage } from "./messages.ts";
import { NoiseResponder } from "./noise.ts";
import { closeTransport, MESSAGE_1_BYTES, NO_PSK, OPEN, PROLOGUE, writeAll } from "./opening.ts";
import type { Clock, Transport } from "./ports.ts";

/** A source that proved an allowed key and said what it wants. */
export interface Admitted {
  connection: Connection;
  /** The source's public key. */
  publicKey: Uint8Array;
  migrationId: string;
  handshakeHash: Uint8Array;
  offer: OfferMessage;
  offerBytes: Uint8Array;
}

/** Lets connections in, a few at a time. */
export class Admission {
  readonly #identity: Identity;
  readonly #allowed: readonly Uint8Array[];
  readonly #clock: Clock;
  readonly #halfOpen = new Set<Transport>();
  #closed = false;

  /** `allowed` are the public keys that may open a migration. */
  constructor(options: { identity: Identity; allowed: readonly Uint8Array[]; clock: Clock }) {
    this.#identity = options.identity;
    this.#allowed = options.allowed;
    this.#clock = options.clock;
  }

  /** Connections that have not proven a key yet. */
  get halfOpen(): number {
    return this.#halfOpen.size;
  }

  /**
   * The handshake, up to the message that confirms the key. No answer tells a stranger why it failed.
   * @returns null when the other side did not prove an allowed key in time; its connection is closed then
   */
  async admit(transport: Transport): Promise<Admitted | null> {
    if (this.#closed) {
      closeTransport(transport);
      return null;
    }
    // Silent sockets cannot keep the peer out: the oldest makes room.
    const oldest = this.#halfOpen.values().next().value;
    if (this.#halfOpen.size >= MAX_HALF_OPEN && oldest !== undefined) this.#drop(oldest);
    this.#halfOpen.add(transport);
    const timer = this.#clock.timer(HANDSHAKE_TIMEOUT_MS, () => this.#drop(transport));
    let connection: Connection | null = null;
    try {
      const noise = new NoiseResponder({ identity: this.#identity, prologue: PROLOGUE });
      const reader = new FrameReader(transport);
      const message1 = await reader.exactly(MESSAGE_1_BYTES);
      if (message1 === null) return null;
      const { remotePublic, payload } = await noise.readMessage1(message1);
      if (!this.#allowed.some((key) => equal(key, remotePublic))) return null;
      if (payload.length !== 17 || payload[0] !== OPEN) return null;
      const { message, result } = await noise.writeMessage2({ psk: NO_PSK });
      await writeAll(transport, message);
      connection = new Connection({
        transport,
        reader,
        keys: result,
        clock: this.#clock,
        onCut: () => {},
      });
      const first = await connection.nextMessage();
      if (first === null || first.message.type !== "OFFER") return null;
      const admitted: Admitted = {
        connection,
        publicKey: remotePublic,
        migrationId: Array.from(payload.subarray(1), (byte) => byte.toString(16).padStart(2, "0"))
          .join(""),
        handshakeHash: result.handshakeHash,
        offer: first.message,
        offerBytes: first.bytes.slice(),
      };
      connection = null;
      this.#halfOpen.delete(transport);
      return admitted;
    } catch {
      return null;
    } finally {
      timer.clear();
      connection?.[Symbol.dispose]();
      if (this.#halfOpen.has(transport)) this.#drop(transport);
    }
  }

  /** Drops every connection that is still half open, and lets nobody else in. */
  close(): void {
    this.#closed = true;
    for (const transport of [...this.#halfOpen]) this.#drop(transport);
  }

  #drop(transport: Transport): void {
    this.#halfOpen.delete(transport);
    closeTransport(transport);
  }
}

/** Whether two public keys are the same; they are no secrets. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
