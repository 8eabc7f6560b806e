/**
 * How the source's connections come about: the first, with its offer, and those that take its place.
 *
 * @see PROTOCOL.md sections 2, 3 and 6
 * @module
 */

import type { Connection } from "./connection.ts";
import { encodeKey } from "./identity.ts";
import {
  closeTransport,
  connect,
  dialled,
  JOIN,
  negotiate,
  NO_PSK,
  OPEN,
  type Opened,
} from "./opening.ts";
import type { Transport } from "./ports.ts";
import type { Profile } from "./profile.ts";
import type { SourceOptions } from "./source_options.ts";
import type { Waiter } from "./waiter.ts";

/** What all connections of one migration have alike. */
export interface SourceConnections {
  options: SourceOptions;
  profile: Profile;
  /** 16 bytes. */
  migrationId: Uint8Array;
}

/**
 * Dials, proves our key, says OFFER and hears ACCEPT; `connected` is waited for in between.
 *
 * @throws what `waiter` was interrupted with, or what went wrong; no connection is left then
 */
export async function openMigration(
  { options, profile, migrationId }: SourceConnections,
  { waiter, connected }: { waiter: Waiter; connected: () => Promise<void> },
): Promise<Opened> {
  const { clock, identity, peer, signal } = options;
  const transport = await dialFirst(options, waiter);
  // Until ACCEPT a waiting read ends only with its connection.
  const closeEarly = () => closeTransport(transport);
  signal.addEventListener("abort", closeEarly);
  let connection: Connection | null = null;
  try {
    const { handshakeHash, ...rest } = await connect(transport, {
      identity,
      remotePublic: peer.publicKey,
      migrationId,
      clock,
      kind: OPEN,
      psk: NO_PSK,
      onCut: () => {},
      profile,
    });
    connection = rest.connection;
    await connected();
    const { facts, before } = options.vm;
    const opened = await negotiate(connection, {
      handshakeHash,
      clock,
      offer: {
        type: "OFFER",
        uuid: facts.uuid,
        name: facts.name,
        machine: facts.machine,
        qemuVersion: facts.qemuVersion,
        memoryBytes: facts.memoryBytes,
        blocks: facts.blocks,
        capabilities: facts.capabilities,
        vmId: options.vmId ?? null,
        sensitivity: options.sensitivity ?? null,
        before,
        suites: options.suites,
        limits: options.limits,
        dryRun: options.dryRun ?? false,
        sourceRandom: encodeKey(crypto.getRandomValues(new Uint8Array(32))),
      },
    });
    return opened;
  } catch (error) {
    connection?.[Symbol.dispose]();
    closeTransport(transport);
    waiter.check();
    throw error;
  } finally {
    signal.removeEventListener("abort", closeEarly);
  }
}

/** Dials; whoever asks for the end meanwhile does not wait for the network. */
async function dialFirst(options: SourceOptions, waiter: Waiter): Promise<Transport> {
  waiter.check();
  const dialling = options.dial();
  try {
    return await Promise.race([dialling, waiter.until<never>(() => null)]);
  } catch (error) {
    dialling.then(closeTransport, () => {});
    throw error;
  }
}

/** Dials again and proves the join key; nothing is said yet. Gives up when `signal` says so. */
export async function joinMigration(
  { options, profile, migrationId }: SourceConnections,
  { joinKey, onCut, signal }: {
    joinKey: Uint8Array;
    onCut: (cause: unknown) => void;
    signal: AbortSignal;
  },
): Promise<Connection> {
  const transport = await dialled(options.dial(), signal);
  const close = () => closeTransport(transport);
  signal.addEventListener("abort", close);
  try {
    const { connection } = await connect(transport, {
      identity: options.identity,
      remotePublic: options.peer.publicKey,
      migrationId,
      clock: options.clock,
      kind: JOIN,
      psk: joinKey,
      onCut,
      profile,
    });
    return connection;
  } catch (error) {
    close();
    throw error;
  } finally {
    signal.removeEventListener("abort", close);
  }
}
