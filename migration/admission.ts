/**
 * Who may speak to the destination: the responder's side of the handshake, and nothing before it is
 * complete (PROTOCOL.md section 2).
 *
 * @module
 */

import { Connection } from "./connection.ts";
import { FrameReader } from "./frame.ts";
import type { Identity } from "./identity.ts";
import { HANDSHAKE_TIMEOUT_MS, MAX_HALF_OPEN, MAX_REMEMBERED_DIALS } from "./limits.ts";
import type { OfferMessage, ResumeMessage, StatusMessage } from "./messages.ts";
import {
  closeTransport,
  JOIN,
  MESSAGE_1_BYTES,
  NO_PSK,
  OPEN,
  OTHER_PROFILE,
  RECOVER,
  writeAll,
} from "./opening.ts";
import type { Clock, Transport } from "./ports.ts";
import { type Profile, sealedProfile } from "./profile.ts";

/** Somebody who proved an allowed key. */
interface Confirmed {
  connection: Connection;
  /** The other side's public key. */
  publicKey: Uint8Array;
  /** 32 hex digits. */
  migrationId: string;
}

/** A source with a new migration. */
export interface Admitted extends Confirmed {
  kind: typeof OPEN;
  handshakeHash: Uint8Array;
  offer: OfferMessage;
  offerBytes: Uint8Array;
}

/** The source of a migration under way, on another connection. */
export interface Joining extends Confirmed {
  kind: typeof JOIN;
  resume: ResumeMessage;
  /** The join key that was proven: the place may be another migration's by now. */
  joinKey: Uint8Array;
}

/** `recover` on the other host. */
export interface Recovering extends Confirmed {
  kind: typeof RECOVER;
  status: StatusMessage;
}

/** Lets connections in, a few at a time. */
export class Admission {
  readonly #identity: Identity;
  readonly #allowed: readonly Uint8Array[];
  readonly #clock: Clock;
  readonly #profile: Profile;
  readonly #joinKey: (migrationId: string, publicKey: Uint8Array) => Uint8Array | null;
  readonly #mayRecover: (migrationId: string, publicKey: Uint8Array) => boolean;
  /** Who has only dialled, or says a message 1 that was said before: whose it was nobody can know yet. */
  readonly #dialled = new Set<Transport>();
  /** Who has said message 1 of an allowed key, which somebody may have recorded. */
  readonly #named = new Set<Transport>();
  /** Ephemeral keys of those messages. */
  readonly #answered = new Set<string>();
  #closed = false;

  /**
   * `allowed` are the public keys that may open a migration; `joinKey` gives that of one under way, if it is theirs;
   * `mayRecover` tells whose journal names them.
   */
  constructor(options: {
    identity: Identity;
    allowed: readonly Uint8Array[];
    clock: Clock;
    joinKey: (migrationId: string, publicKey: Uint8Array) => Uint8Array | null;
    mayRecover: (migrationId: string, publicKey: Uint8Array) => boolean;
    /** Absent: the sealed one. */
    profile?: Profile | undefined;
  }) {
    this.#profile = options.profile ?? sealedProfile;
    this.#mayRecover = options.mayRecover;
    this.#joinKey = options.joinKey;
    this.#identity = options.identity;
    this.#allowed = options.allowed;
    this.#clock = options.clock;
  }

  /** Connections that have not proven a key yet. */
  get halfOpen(): number {
    return this.#dialled.size + this.#named.size;
  }

  /**
   * The handshake, up to the message that confirms the key. No answer tells a stranger why it failed.
   * @returns null when the other side did not prove an allowed key in time; its connection is closed then
   */
  async admit(transport: Transport): Promise<Admitted | Joining | Recovering | null> {
    if (this.#closed) {
      closeTransport(transport);
      return null;
    }
    this.#enter(this.#dialled, transport);
    const timer = this.#clock.timer(HANDSHAKE_TIMEOUT_MS, () => this.#drop(transport));
    let connection: Connection | null = null;
    try {
      const responder = this.#profile.responder({ identity: this.#identity });
      const reader = new FrameReader(transport);
      const message1 = await reader.exactly(MESSAGE_1_BYTES);
      if (message1 === null) return null;
      if (this.#profile.isForeign(message1)) {
        await writeAll(transport, OTHER_PROFILE);
        return null;
      }
      const { remotePublic, payload } = await responder.readMessage1(message1);
      if (!this.#allowed.some((key) => equal(key, remotePublic))) return null;
      if (payload.length !== 17) return null;
      const migrationId = hex(payload.subarray(1));
      const kind = payload[0];
      const psk = this.#psk(kind, { migrationId, publicKey: remotePublic });
      if (psk === null) return null;
      if (!this.#dialled.has(transport)) return null;
      if (this.#isNew(message1)) {
        // Who only dials cannot push it out any more.
        this.#dialled.delete(transport);
        this.#enter(this.#named, transport);
      }
      const { message, result } = await responder.writeMessage2({ psk });
      await writeAll(transport, message);
      connection = new Connection({
        transport,
        reader,
        keys: result,
        clock: this.#clock,
        onCut: () => {},
      });
      const first = await connection.nextMessage();
      if (first === null) return null;
      const confirmed = { connection, publicKey: remotePublic, migrationId };
      let admitted: Admitted | Joining | Recovering;
      if (kind === OPEN && first.message.type === "OFFER") {
        const { handshakeHash } = result;
        admitted = {
          kind,
          ...confirmed,
          handshakeHash,
          offer: first.message,
          offerBytes: first.bytes.slice(),
        };
      } else if (kind === JOIN && first.message.type === "RESUME") {
        admitted = { kind, ...confirmed, resume: first.message, joinKey: psk };
      } else if (kind === RECOVER && first.message.type === "STATUS") {
        admitted = { kind, ...confirmed, status: first.message };
      } else return null;
      // One that was pushed out just now is closed.
      if (!this.#named.delete(transport) && !this.#dialled.delete(transport)) return null;
      connection = null;
      return admitted;
    } catch {
      return null;
    } finally {
      timer.clear();
      connection?.[Symbol.dispose]();
      if (this.#dialled.has(transport) || this.#named.has(transport)) this.#drop(transport);
    }
  }

  /** Drops every connection that is still half open, and lets nobody else in. */
  close(): void {
    this.#closed = true;
    for (const transport of [...this.#dialled, ...this.#named]) this.#drop(transport);
  }

  /** The oldest makes room: silent sockets cannot keep the peer out. */
  #enter(among: Set<Transport>, transport: Transport): void {
    const [oldest] = among;
    if (among.size >= MAX_HALF_OPEN && oldest !== undefined) this.#drop(oldest);
    among.add(transport);
  }

  /** Whether that message 1 was never answered here: who replays one has no place among those who made theirs. */
  #isNew(message1: Uint8Array): boolean {
    const ephemeral = hex(message1.subarray(0, 32));
    if (this.#answered.has(ephemeral)) return false;
    this.#answered.add(ephemeral);
    const [oldest] = this.#answered;
    if (this.#answered.size > MAX_REMEMBERED_DIALS && oldest !== undefined) {
      this.#answered.delete(oldest);
    }
    return true;
  }

  /** The key that the handshake mixes in; null for who has no business here. */
  #psk(
    kind: number | undefined,
    who: { migrationId: string; publicKey: Uint8Array },
  ): Uint8Array | null {
    const { migrationId, publicKey } = who;
    switch (kind) {
      case OPEN:
        return NO_PSK;
      case JOIN:
        return this.#joinKey(migrationId, publicKey);
      case RECOVER:
        return this.#mayRecover(migrationId, publicKey) ? NO_PSK : null;
      default:
        return null;
    }
  }

  #drop(transport: Transport): void {
    this.#dialled.delete(transport);
    this.#named.delete(transport);
    closeTransport(transport);
  }
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether two keys are the same: public ones, or secrets that were both proven here. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
