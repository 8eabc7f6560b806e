/**
 * The paper's scheme as a profile, **for the lab**: its record bodies, and connections that prove nothing,
 * since the paper has no handshake. Whoever dials only says whose key it would have; control messages go under
 * a key that everybody knows.
 *
 * ```text
 * message 1, 113 bytes: "sealift/1 paper\n", payload (17), public key (32), zeros (48)
 * message 2, 48 bytes:  "sealift/1 paper\n", zeros (32)
 * ```
 *
 * @see PROTOCOL.md section 8, docs/paper.md
 * @module
 */

import { MigrationError } from "./errors.ts";
import { KEY_BYTES } from "./identity.ts";
import type { NoiseResult } from "./noise.ts";
import { type PaperBodyOptions, PaperBodyReader, PaperBodyWriter } from "./paper_bodies.ts";
import { type BodyParts, PAPER_PREAMBLE, type Profile, requireProfile } from "./profile.ts";

const PAYLOAD_BYTES = 17;
const KEY_AT = PAPER_PREAMBLE.length + PAYLOAD_BYTES;
/** Those of the sealed profile, so that either side reads the other's messages whole. */
const MESSAGE_1_BYTES = 113;
const MESSAGE_2_BYTES = 48;

/** See the module. */
export const paperProfile: Profile = {
  id: "paper",
  hidesByClass: true,
  initiator: ({ identity }) => ({
    writeMessage1(payload) {
      const message = new Uint8Array(MESSAGE_1_BYTES);
      message.set(PAPER_PREAMBLE);
      message.set(payload, PAPER_PREAMBLE.length);
      message.set(identity.publicKey, KEY_AT);
      return Promise.resolve(message);
    },
    readMessage2(message) {
      requirePreamble(message);
      return Promise.resolve(publicKeys());
    },
  }),
  responder: () => ({
    readMessage1(message) {
      requirePreamble(message);
      return Promise.resolve({
        remotePublic: message.slice(KEY_AT, KEY_AT + KEY_BYTES),
        payload: message.slice(PAPER_PREAMBLE.length, KEY_AT),
      });
    },
    writeMessage2() {
      const message = new Uint8Array(MESSAGE_2_BYTES);
      message.set(PAPER_PREAMBLE);
      return Promise.resolve({ message, result: publicKeys() });
    },
  }),
  isForeign: (message1) => !startsWithPreamble(message1),
  bodyWriter: (parts) => new PaperBodyWriter(bodyOptions(parts)),
  bodyReader: (parts) => new PaperBodyReader(bodyOptions(parts)),
};

/** A page's class decides whether it is hidden, not by what: there is one suite. */
function bodyOptions({ suites, clock }: BodyParts): PaperBodyOptions {
  requireProfile("paper", suites);
  const [suite, ...others] = suites;
  if (suite === undefined || others.length > 0) {
    throw new MigrationError(
      "usage",
      "Cannot use a suite for each class of pages: the paper's profile has one for all",
    );
  }
  return { suite, nowMs: () => clock.date().getTime() };
}

/** Keys that everybody knows: the frames of the sealed profile need some. */
function publicKeys(): NoiseResult {
  return {
    handshakeHash: new Uint8Array(KEY_BYTES),
    sendKey: new Uint8Array(KEY_BYTES),
    receiveKey: new Uint8Array(KEY_BYTES),
  };
}

function startsWithPreamble(message: Uint8Array): boolean {
  return PAPER_PREAMBLE.every((byte, i) => message[i] === byte);
}

function requirePreamble(message: Uint8Array): void {
  if (startsWithPreamble(message)) return;
  throw new MigrationError(
    "handshake",
    "Cannot open the connection: the other side does not speak the paper's profile",
  );
}
