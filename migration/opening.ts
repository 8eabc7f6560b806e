/**
 * The source's side of opening a migration: handshake, OFFER, ACCEPT (PROTOCOL.md sections 2 and 3).
 *
 * @module
 */

import { AUTHENTICATION_FAILED, MigrationError } from "./errors.ts";
import { Connection } from "./connection.ts";
import { FrameReader } from "./frame.ts";
import { decodeKey, type Identity } from "./identity.ts";
import { deriveMigrationSecret, KeySchedule } from "./key_schedule.ts";
import { HANDSHAKE_TIMEOUT_MS, SILENCE_MS } from "./limits.ts";
import { type AcceptMessage, type OfferMessage, pageClasses } from "./messages.ts";
import type { Clock, Transport } from "./ports.ts";
import { type Profile, sealedProfile } from "./profile.ts";

/** Kinds of connection, first byte of message 1's payload: a new migration, */
export const OPEN = 1;
/** one that goes on, */
export const JOIN = 2;
/** one that is settled after a crash. */
export const RECOVER = 3;

/** OPEN has no key of an earlier connection to prove. */
export const NO_PSK = new Uint8Array(32);

/** Sizes of the two handshake messages: fixed, since their payloads are. */
export const MESSAGE_1_BYTES = 113;
/** See {@linkcode MESSAGE_1_BYTES}. */
export const MESSAGE_2_BYTES = 48;

/** In the place of message 2, to a peer that speaks another profile; it proves nothing, and only explains a failure. */
export const OTHER_PROFILE: Uint8Array<ArrayBuffer> = new Uint8Array(MESSAGE_2_BYTES);
OTHER_PROFILE.set(new TextEncoder().encode("sealift/1 other profile\n"));

/** An opened migration. */
export interface Opened {
  connection: Connection;
  accept: AcceptMessage;
  schedule: KeySchedule;
}

/** Proves our key to the other side and checks its. */
export async function connect(transport: Transport, options: {
  identity: Identity;
  remotePublic: Uint8Array;
  migrationId: Uint8Array;
  /** {@linkcode OPEN} or {@linkcode JOIN}. */
  kind: number;
  /** 32 bytes: {@linkcode NO_PSK}, or the join key. */
  psk: Uint8Array;
  clock: Clock;
  onCut: (cause: unknown) => void;
  /** Absent: the sealed one. */
  profile?: Profile;
}): Promise<{ connection: Connection; handshakeHash: Uint8Array }> {
  const { identity, remotePublic, psk, migrationId, clock, onCut } = options;
  let late = false;
  const timer = clock.timer(HANDSHAKE_TIMEOUT_MS, () => {
    late = true;
    closeTransport(transport);
  });
  try {
    const initiator = (options.profile ?? sealedProfile).initiator({ identity, remotePublic, psk });
    await writeAll(
      transport,
      await initiator.writeMessage1(Uint8Array.of(options.kind, ...migrationId)),
    );
    const reader = new FrameReader(transport);
    const message2 = await reader.exactly(MESSAGE_2_BYTES);
    if (message2 === null) throw new MigrationError("handshake", AUTHENTICATION_FAILED);
    // It proves nothing: it may explain why nothing was opened, and must not end what is open.
    if (options.kind === OPEN && OTHER_PROFILE.every((byte, i) => message2[i] === byte)) {
      throw new MigrationError(
        "refused",
        "Cannot open the migration: the other side speaks another profile",
        { hint: "give the same --profile to send and receive" },
      );
    }
    const keys = await initiator.readMessage2(message2);
    const connection = new Connection({ transport, reader, keys, clock, onCut });
    return { connection, handshakeHash: keys.handshakeHash };
  } catch (cause) {
    if (late) {
      throw new MigrationError(
        "handshake",
        "Cannot open the migration: the other side did not answer in time",
        {
          hint:
            "check that `receive` is the program that listens there, and that nothing on the way holds the bytes",
          cause,
        },
      );
    }
    if (cause instanceof MigrationError) throw cause;
    throw new MigrationError("handshake", AUTHENTICATION_FAILED, { cause });
  } finally {
    timer.clear();
  }
}

/**
 * Says OFFER and waits for the answer.
 *
 * @throws MigrationError `refused` with the other side's words, `timeout` when none comes; the connection is the caller's to close
 */
export async function negotiate(
  connection: Connection,
  options: { offer: OfferMessage; handshakeHash: Uint8Array; clock: Clock },
): Promise<Opened> {
  const { offer, handshakeHash, clock } = options;
  const offerBytes = connection.send(offer);
  let late = false;
  const timer = clock.timer(SILENCE_MS, () => {
    late = true;
    connection[Symbol.dispose]();
  });
  // The destination drops the connection when it cannot open this message: until ACCEPT it is the handshake's end.
  const answer = await connection.nextMessage().catch(() => null);
  timer.clear();
  if (late) {
    throw new MigrationError(
      "timeout",
      "Cannot open the migration: the other side did not answer the offer in time",
    );
  }
  if (answer === null) throw new MigrationError("handshake", AUTHENTICATION_FAILED);
  const { message, bytes: acceptBytes } = answer;
  if (message.type === "REFUSE") {
    throw new MigrationError(
      "refused",
      `Cannot migrate the VM: the destination refuses: ${message.text}`,
      {
        hint: message.hint ?? undefined,
      },
    );
  }
  if (message.type !== "ACCEPT") {
    throw new MigrationError(
      "protocol",
      `Cannot open the migration: ${message.type} came instead of an answer`,
    );
  }
  for (const pageClass of pageClasses) {
    if (!offer.suites[pageClass].includes(message.suites[pageClass])) {
      throw new MigrationError(
        "protocol",
        `Cannot open the migration: suite ${message.suites[pageClass]} was not offered`,
      );
    }
  }
  if (
    message.limits.reconnectMs !== offer.limits.reconnectMs ||
    message.limits.maxStopMs !== offer.limits.maxStopMs ||
    message.limits.repairBudgetBytes > offer.limits.repairBudgetBytes
  ) {
    throw new MigrationError(
      "protocol",
      "Cannot open the migration: the answer changes the limits",
    );
  }
  const secret = deriveMigrationSecret({
    handshakeHash,
    sourceRandom: decodeKey(offer.sourceRandom),
    destinationRandom: decodeKey(message.destinationRandom),
    offerBytes,
    acceptBytes,
  });
  return { connection, accept: message, schedule: new KeySchedule(secret) };
}

/** Waits for a connection until `signal` ends the waiting; one that comes later is closed. */
export async function dialled(
  dialling: Promise<Transport>,
  signal: AbortSignal,
): Promise<Transport> {
  const ended = Promise.withResolvers<never>();
  const end = () => ended.reject(new MigrationError("cut", "Cannot dial: it takes too long"));
  if (signal.aborted) end();
  signal.addEventListener("abort", end);
  try {
    return await Promise.race([dialling, ended.promise]);
  } catch (error) {
    dialling.then(closeTransport, () => {});
    throw error;
  } finally {
    signal.removeEventListener("abort", end);
  }
}

/** Closes a connection that the other side, or a timer, may have closed before. */
export function closeTransport(transport: Transport): void {
  try {
    transport.close();
  } catch {
    // Closed already.
  }
}

/** Writes all of `bytes`. */
export async function writeAll(transport: Transport, bytes: Uint8Array): Promise<void> {
  for (let from = 0; from < bytes.length;) from += await transport.write(bytes.subarray(from));
}
