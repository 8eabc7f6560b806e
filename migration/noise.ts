/**
 * Noise_IKpsk2_25519_AESGCM_SHA256 (Noise revision 34), both sides:
 *
 * ```text
 * IKpsk2:
 *   <- s                     the initiator knows the responder's static key
 *   ...
 *   -> e, es, s, ss          message 1, 96 bytes + payload
 *   <- e, ee, se, psk        message 2, 48 bytes + payload
 * ```
 *
 * Message 1 can be replayed, and proves nothing about *now*: the responder acts on the initiator's
 * first transport message only (PROTOCOL.md section 2).
 *
 * @module
 * @see https://noiseprotocol.org/noise.html
 */

import { concat, SymmetricState } from "./_noise_state.ts";
import { AUTHENTICATION_FAILED, MigrationError } from "./errors.ts";
import { generateIdentity, type Identity, KEY_BYTES } from "./identity.ts";
import { TAG_BYTES } from "./limits.ts";

/** What message 1 adds to its payload: ephemeral key, sealed static key, tag of the payload. */
export const MESSAGE_1_OVERHEAD_BYTES: number = KEY_BYTES + KEY_BYTES + TAG_BYTES + TAG_BYTES;
/** What message 2 adds to its payload: ephemeral key, tag of the payload. */
export const MESSAGE_2_OVERHEAD_BYTES: number = KEY_BYTES + TAG_BYTES;
/** Longest Noise message (Noise section 3). */
const MAX_MESSAGE_BYTES = 65_535;

/** What both sides hold after the handshake. The receiver of it wipes the keys. */
export interface NoiseResult {
  /** 32 bytes, the same on both sides, unique to this connection (Noise section 11.2). */
  handshakeHash: Uint8Array<ArrayBuffer>;
  /** 32 bytes. */
  sendKey: Uint8Array<ArrayBuffer>;
  /** 32 bytes. */
  receiveKey: Uint8Array<ArrayBuffer>;
}

/** What an initiator knows beforehand. */
export interface NoiseInitiatorOptions {
  /** Our static key pair. */
  identity: Identity;
  /** The responder's static public key, 32 bytes. */
  remotePublic: Uint8Array;
  /** Bytes that must be the same on both sides. */
  prologue: Uint8Array;
  /** 32 bytes; all zeros where there is none. */
  psk: Uint8Array;
  /** For test vectors only: reusing an ephemeral key gives away the connection. */
  ephemeral?: Identity;
}

/** What a responder knows beforehand. */
export interface NoiseResponderOptions {
  /** Our static key pair. */
  identity: Identity;
  /** Bytes that must be the same on both sides. */
  prologue: Uint8Array;
  /** For test vectors only: reusing an ephemeral key gives away the connection. */
  ephemeral?: Identity;
}

/**
 * The side that dials. One object makes one handshake: each method is called once, in order.
 *
 * @example
 * ```ts
 * import { generateIdentity } from "./identity.ts";
 * import { NoiseInitiator, NoiseResponder } from "./noise.ts";
 *
 * const [source, destination] = [await generateIdentity(), await generateIdentity()];
 * const prologue = new TextEncoder().encode("sealift/1"), psk = new Uint8Array(32);
 * const dialling = { identity: source, remotePublic: destination.publicKey, prologue, psk };
 * const initiator = new NoiseInitiator(dialling);
 * const responder = new NoiseResponder({ identity: destination, prologue });
 *
 * await responder.readMessage1(await initiator.writeMessage1(new Uint8Array(17)));
 * const { message, result } = await responder.writeMessage2({ psk });
 * const { sendKey } = await initiator.readMessage2(message);
 * console.assert(sendKey[0] === result.receiveKey[0]);
 * ```
 */
export class NoiseInitiator {
  readonly #options: NoiseInitiatorOptions;
  readonly #symmetric = new SymmetricState();
  #ephemeral: Identity | null = null;
  #next: 1 | 2 | null = 1;

  /**
   * Copies the keys.
   *
   * @throws {MigrationError} `usage` when one has another length than 32 bytes
   */
  constructor(options: NoiseInitiatorOptions) {
    requireKey(options.remotePublic);
    requireKey(options.psk);
    this.#options = {
      ...options,
      remotePublic: new Uint8Array(options.remotePublic),
      psk: new Uint8Array(options.psk),
    };
  }

  /**
   * Begins the handshake.
   *
   * @returns `MESSAGE_1_OVERHEAD_BYTES` more than `payload` has
   * @throws {MigrationError} `handshake` when `remotePublic` is not a usable key
   */
  async writeMessage1(payload: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
    if (this.#next !== 1) throw new TypeError("Cannot write message 1: the handshake has begun");
    this.#next = null;
    requireRoom(MESSAGE_1_OVERHEAD_BYTES, payload);
    const { identity, remotePublic, prologue, ephemeral } = this.#options;
    const symmetric = this.#symmetric;
    symmetric.mixHash(prologue);
    symmetric.mixHash(remotePublic); // pre-message: <- s
    const e = this.#ephemeral = ephemeral ?? await generateIdentity();
    symmetric.mixEphemeral(e.publicKey); // e
    symmetric.mixSecret(await e.dh(remotePublic)); // es
    const s = symmetric.encryptAndHash(identity.publicKey); // s
    symmetric.mixSecret(await identity.dh(remotePublic)); // ss
    const sealed = symmetric.encryptAndHash(payload);
    this.#next = 2;
    return concat([e.publicKey, s, sealed]);
  }

  /**
   * Ends the handshake.
   *
   * @throws {MigrationError} `handshake` when it is not the expected key's answer to our message 1
   */
  async readMessage2(message: Uint8Array): Promise<NoiseResult & { payload: Uint8Array }> {
    const e = this.#ephemeral;
    if (this.#next !== 2 || e === null) {
      throw new TypeError("Cannot read message 2: it is not due");
    }
    this.#next = null;
    this.#ephemeral = null;
    requireLength(MESSAGE_2_OVERHEAD_BYTES, message);
    const symmetric = this.#symmetric;
    const re = message.slice(0, KEY_BYTES);
    symmetric.mixEphemeral(re); // e
    symmetric.mixSecret(await e.dh(re)); // ee
    symmetric.mixSecret(await this.#options.identity.dh(re)); // se
    symmetric.mixKeyAndHash(this.#options.psk); // psk
    this.#options.psk.fill(0);
    const payload = symmetric.decryptAndHash(message.subarray(KEY_BYTES));
    const { handshakeHash, first, second } = symmetric.split();
    return { handshakeHash, sendKey: first, receiveKey: second, payload };
  }
}

/** The side that is dialled. One object makes one handshake: each method is called once, in order. */
export class NoiseResponder {
  readonly #options: NoiseResponderOptions;
  readonly #symmetric = new SymmetricState();
  #remote: { ephemeral: Uint8Array; identity: Uint8Array } | null = null;
  #next: 1 | 2 | null = 1;

  /** Keeps the options. */
  constructor(options: NoiseResponderOptions) {
    this.#options = options;
  }

  /**
   * Reads the dialling side's key and payload.
   *
   * @returns who says that they dial, and the payload. Whether `remotePublic` is allowed is the
   * caller's question; that it is *there* only its first transport message proves.
   * @throws {MigrationError} `handshake` when the message was not made for our key
   */
  async readMessage1(
    message: Uint8Array,
  ): Promise<{ remotePublic: Uint8Array<ArrayBuffer>; payload: Uint8Array<ArrayBuffer> }> {
    if (this.#next !== 1) throw new TypeError("Cannot read message 1: the handshake has begun");
    this.#next = null;
    requireLength(MESSAGE_1_OVERHEAD_BYTES, message);
    const { identity, prologue } = this.#options;
    const symmetric = this.#symmetric;
    symmetric.mixHash(prologue);
    symmetric.mixHash(identity.publicKey); // pre-message: <- s
    const re = message.slice(0, KEY_BYTES);
    const sealedKeyEnd = KEY_BYTES + KEY_BYTES + TAG_BYTES;
    symmetric.mixEphemeral(re); // e
    symmetric.mixSecret(await identity.dh(re)); // es
    const rs = symmetric.decryptAndHash(message.subarray(KEY_BYTES, sealedKeyEnd)); // s
    symmetric.mixSecret(await identity.dh(rs)); // ss
    const payload = symmetric.decryptAndHash(message.subarray(sealedKeyEnd));
    this.#remote = { ephemeral: re, identity: rs };
    this.#next = 2;
    return { remotePublic: rs.slice(), payload };
  }

  /**
   * Ends the handshake on this side.
   *
   * @param options `psk` is 32 bytes, all zeros where there is none; `payload` is empty unless given
   * @throws {MigrationError} `handshake` when the other side's keys are not usable
   */
  async writeMessage2(
    options: { psk: Uint8Array; payload?: Uint8Array },
  ): Promise<{ message: Uint8Array<ArrayBuffer>; result: NoiseResult }> {
    const remote = this.#remote;
    if (this.#next !== 2 || remote === null) {
      throw new TypeError("Cannot write message 2: it is not due");
    }
    this.#next = null;
    const { psk, payload = new Uint8Array(0) } = options;
    requireKey(psk);
    requireRoom(MESSAGE_2_OVERHEAD_BYTES, payload);
    const symmetric = this.#symmetric;
    const e = this.#options.ephemeral ?? await generateIdentity();
    symmetric.mixEphemeral(e.publicKey); // e
    symmetric.mixSecret(await e.dh(remote.ephemeral)); // ee
    symmetric.mixSecret(await e.dh(remote.identity)); // se
    symmetric.mixKeyAndHash(psk); // psk
    const sealed = symmetric.encryptAndHash(payload);
    const { handshakeHash, first, second } = symmetric.split();
    return {
      message: concat([e.publicKey, sealed]),
      result: { handshakeHash, sendKey: second, receiveKey: first },
    };
  }
}

function requireKey(key: Uint8Array): void {
  if (key.length !== KEY_BYTES) {
    throw new MigrationError(
      "usage",
      `Cannot begin handshake: a key is not ${KEY_BYTES} bytes long`,
    );
  }
}

function requireRoom(overheadBytes: number, payload: Uint8Array): void {
  if (overheadBytes + payload.length > MAX_MESSAGE_BYTES) {
    throw new RangeError(`Cannot write message: its payload has ${payload.length} bytes`);
  }
}

function requireLength(overheadBytes: number, message: Uint8Array): void {
  if (message.length < overheadBytes || message.length > MAX_MESSAGE_BYTES) {
    throw new MigrationError("handshake", AUTHENTICATION_FAILED);
  }
}
