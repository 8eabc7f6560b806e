/**
 * A profile decides what a migration is protected by: how connections are opened, and what is inside records.
 * Everything else, from rounds to the switchover, is the same in all. Both ends must be told the same one:
 * it is never negotiated.
 *
 * @see PROTOCOL.md sections 2 and 8
 * @module
 */

import type { CipherSuite } from "../ciphers/suite.ts";
import { MigrationError } from "./errors.ts";
import type { Identity } from "./identity.ts";
import type { KeySchedule } from "./key_schedule.ts";
import { NoiseInitiator, NoiseResponder, type NoiseResult } from "./noise.ts";
import type { Clock } from "./ports.ts";
import type { BodyReader, BodyWriter } from "./record_bodies.ts";
import { SealedBodyReader, SealedBodyWriter, type SuiteTable } from "./sealed_bodies.ts";

/** `sealed` is for use, `paper` for the lab. */
export const profileIds = ["sealed", "paper"] as const;
/** One of {@linkcode profileIds}. */
export type ProfileId = typeof profileIds[number];

/** Noise prologue: a peer of another version fails the handshake. */
export const PROLOGUE: Uint8Array<ArrayBuffer> = new TextEncoder().encode("sealift/1");

/** The side that dials: each method is called once, in order. */
export interface Initiator {
  /** Message 1: 113 bytes around a payload of 17. */
  writeMessage1(payload: Uint8Array): Promise<Uint8Array>;
  /** Ends the handshake. @throws MigrationError `handshake` */
  readMessage2(message: Uint8Array): Promise<NoiseResult>;
}

/** The side that is dialled: each method is called once, in order. */
export interface Responder {
  /** Whose key the other side shows, and its payload. @throws MigrationError `handshake` */
  readMessage1(message: Uint8Array): Promise<{ remotePublic: Uint8Array; payload: Uint8Array }>;
  /** Message 2: 48 bytes. */
  writeMessage2(
    options: { psk: Uint8Array },
  ): Promise<{ message: Uint8Array; result: NoiseResult }>;
}

/** What the bodies of one lane's records are made with. */
export interface BodyParts extends SuiteTable {
  schedule: KeySchedule;
  clock: Clock;
}

/** See the module. */
export interface Profile {
  readonly id: ProfileId;
  /** Whether a page's class decides more than its suite. */
  readonly hidesByClass: boolean;
  /** A new handshake of the side that dials. */
  initiator(
    options: { identity: Identity; remotePublic: Uint8Array; psk: Uint8Array },
  ): Initiator;
  /** A new handshake of the side that is dialled. */
  responder(options: { identity: Identity }): Responder;
  /** Whether a message 1 is of a peer with another profile, as far as that can be seen. */
  isForeign(message1: Uint8Array): boolean;
  /** Protects what is sent. @throws MigrationError `usage` for a suite of another profile */
  bodyWriter(parts: BodyParts): BodyWriter;
  /** Checks what comes. @throws MigrationError `usage` for a suite of another profile */
  bodyReader(parts: BodyParts): BodyReader;
}

/** First bytes of the lab's message 1: a sealed peer can tell, and says so. */
export const PAPER_PREAMBLE: Uint8Array<ArrayBuffer> = new TextEncoder().encode(
  "sealift/1 paper\n",
);

/** Noise, and AEAD. */
export const sealedProfile: Profile = {
  id: "sealed",
  hidesByClass: false,
  initiator: (options) => new NoiseInitiator({ ...options, prologue: PROLOGUE }),
  responder: ({ identity }) => new NoiseResponder({ identity, prologue: PROLOGUE }),
  isForeign: (message1) => PAPER_PREAMBLE.every((byte, i) => message1[i] === byte),
  bodyWriter(parts) {
    requireProfile("sealed", parts.suites);
    return new SealedBodyWriter(parts);
  },
  bodyReader(parts) {
    requireProfile("sealed", parts.suites);
    return new SealedBodyReader(parts);
  },
};

/** Fails closed: whatever was negotiated, a suite works in its own profile only. */
export function requireProfile(profile: ProfileId, suites: readonly CipherSuite[]): void {
  for (const suite of suites) {
    if (suite.profile === profile) continue;
    throw new MigrationError(
      "usage",
      `Cannot use suite ${suite.id}: it is of the ${suite.profile} profile, this migration is ${profile}`,
    );
  }
}
