/**
 * Peers with the right keys that say what a test has them say: for what an honest one never does.
 *
 * @module
 */

import { defaultRegistry } from "../../ciphers/registry.ts";
import { Admission, type Admitted } from "../../migration/admission.ts";
import type { Connection } from "../../migration/connection.ts";
import { DamagedSequences } from "../../migration/damaged_sequences.ts";
import { encodeKey, type Identity } from "../../migration/identity.ts";
import type {
  AcceptMessage,
  FinishMessage,
  Message,
  OfferMessage,
} from "../../migration/messages.ts";
import { connect, negotiate, NO_PSK, OPEN, type Opened } from "../../migration/opening.ts";
import { MistakeBitmap } from "../../migration/mistake_bitmap.ts";
import { RecordSealer } from "../../migration/record_sealer.ts";
import { Rounds } from "../../migration/rounds.ts";
import { SealedBodyWriter } from "../../migration/sealed_bodies.ts";
import { SealedWindow } from "../../migration/window.ts";
import type { LoopbackEnd } from "./loopback.ts";
import {
  everyClass,
  identities,
  type SimulatedMigration,
  usualLimits,
} from "./simulated_migration.ts";

/** A source that has its ACCEPT. */
export class ScriptedSource implements Disposable {
  readonly connection: Connection;
  readonly sealer: RecordSealer;
  readonly rounds: Rounds;
  readonly #opened: Opened;
  readonly #window: SealedWindow;
  readonly #received: Message[] = [];
  readonly #reading: Promise<void>;

  constructor(run: SimulatedMigration, opened: Opened) {
    this.#opened = opened;
    this.connection = opened.connection;
    this.#window = new SealedWindow(
      2 ** 30,
      (slab) => this.connection.outbox.put(slab.bytes.slice(0, slab.usedBytes), { data: true }),
    );
    this.rounds = new Rounds(run.sourceVm.facts.blocks, run.clock);
    this.sealer = new RecordSealer({
      bodies: new SealedBodyWriter({
        schedule: opened.schedule,
        suites: [defaultRegistry().get("aes-256-gcm")],
        suiteOf: { user: 0, kernelText: 0, kernelData: 0, unmapped: 0 },
      }),
      window: this.#window,
      rounds: this.rounds,
      mistakes: new MistakeBitmap(run.sourceVm.facts.blocks),
      lane: 0,
    });
    this.#reading = this.#read();
  }

  /** Proves that a connection is this migration's. */
  get joinKey(): Uint8Array {
    return this.#opened.schedule.joinKey();
  }

  /** Types of all that came. */
  get received(): string[] {
    return this.#received.map(({ type }) => type);
  }

  /** Sends what is sealed. */
  flush(): void {
    this.sealer.sealOpen();
    this.#window.flush();
  }

  /** SETUP, one page, an empty last round, STATE. */
  everything(): void {
    this.sealer.stream("setup", new Uint8Array(10));
    this.sealer.page(0, 0, new Uint8Array(4096).fill(1));
    this.sealer.endRound();
    this.rounds.next();
    this.sealer.stream("state", new Uint8Array(10));
    this.flush();
  }

  finish(
    changes: {
      pages?: number;
      records?: number;
      sequence?: number;
      damaged?: FinishMessage["damaged"];
    } = {},
  ): void {
    const { lastSequence } = this.sealer;
    const { pages = 1, records = lastSequence, sequence = lastSequence } = changes;
    this.connection.send({
      type: "FINISH",
      lanes: [{ lane: 0, sequence }],
      pages,
      records,
      damaged: changes.damaged ?? new DamagedSequences(0).digest(),
    });
  }

  /** Resolves when the other side has closed. */
  closed(): Promise<void> {
    return this.#reading;
  }

  [Symbol.dispose](): void {
    this.sealer[Symbol.dispose]();
    this.#opened.schedule[Symbol.dispose]();
    this.connection[Symbol.dispose]();
  }

  async #read(): Promise<void> {
    try {
      for (let next; (next = await this.connection.nextMessage()) !== null;) {
        this.#received.push(next.message);
      }
    } catch {
      // Closed.
    }
  }
}

/** The offer that a simulated source would make. */
export function offerOf(run: SimulatedMigration): OfferMessage {
  const { uuid, name, machine, qemuVersion, memoryBytes, blocks, capabilities } =
    run.sourceVm.facts;
  return {
    type: "OFFER",
    uuid,
    name,
    machine,
    qemuVersion,
    memoryBytes,
    blocks,
    capabilities,
    vmId: null,
    sensitivity: null,
    before: "running",
    suites: everyClass("aes-256-gcm"),
    limits: usualLimits,
    dryRun: false,
    sourceRandom: encodeKey(crypto.getRandomValues(new Uint8Array(32))),
  };
}

/** A connection to the destination of `run` that has shaken hands, and said nothing yet. */
export async function dialAs(
  run: SimulatedMigration,
  options: { kind: number; id: Uint8Array; psk?: Uint8Array; identity?: Identity },
): Promise<Connection> {
  const { kind, id, psk = NO_PSK, identity = identities.source } = options;
  const { connection } = await connect(run.loopback.dial(), {
    identity,
    remotePublic: identities.destination.publicKey,
    migrationId: id,
    clock: run.clock,
    kind,
    psk,
    onCut: () => {},
  });
  return connection;
}

/** Opens a migration to the destination of `run`, over a connection to it: a new one if none is given. */
export async function scriptedSource(
  run: SimulatedMigration,
  options: { id?: Uint8Array; end?: LoopbackEnd } = {},
): Promise<ScriptedSource> {
  const { id = crypto.getRandomValues(new Uint8Array(16)), end = run.loopback.dial() } = options;
  const { connection, handshakeHash } = await connect(end, {
    identity: identities.source,
    remotePublic: identities.destination.publicKey,
    migrationId: id,
    clock: run.clock,
    kind: OPEN,
    psk: NO_PSK,
    onCut: () => {},
  });
  return new ScriptedSource(
    run,
    await negotiate(connection, { offer: offerOf(run), handshakeHash, clock: run.clock }),
  );
}

/** Answers the next connection as a destination; `changes` makes another ACCEPT of it. */
export async function scriptedDestination(
  run: SimulatedMigration,
  changes: Partial<AcceptMessage> = {},
): Promise<Admitted> {
  const transport = await run.loopback.accept() as LoopbackEnd;
  const admission = new Admission({
    identity: identities.destination,
    allowed: [identities.source.publicKey],
    clock: run.clock,
    joinKey: () => null,
    mayRecover: () => false,
  });
  const admitted = await admission.admit(transport);
  if (admitted?.kind !== OPEN) throw new Error("the source did not prove its key");
  const suite = "aes-256-gcm";
  admitted.connection.send({
    type: "ACCEPT",
    suites: { user: suite, kernelText: suite, kernelData: suite, unmapped: suite },
    landing: "scripted",
    backend: "none",
    notes: [],
    warnings: [],
    limits: admitted.offer.limits,
    qemuVersion: "7.2.22",
    destinationRandom: encodeKey(new Uint8Array(32)),
    ...changes,
  });
  return admitted;
}
