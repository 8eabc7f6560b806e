/**
 * A migration that was accepted: its keys, its end of the wire, and where its records land. It outlives its
 * connections.
 *
 * @see PROTOCOL.md section 3, "Keys"
 * @module
 */

import type { CipherRegistry } from "../ciphers/registry.ts";
import { type Admitted, equal } from "./admission.ts";
import { DestinationLink, type DestinationLinkEvents } from "./destination_link.ts";
import type { Arrived } from "./destination_result.ts";
import { MigrationError } from "./errors.ts";
import { messageOf } from "./failure.ts";
import { decodeKey } from "./identity.ts";
import { deriveMigrationSecret, KeySchedule } from "./key_schedule.ts";
import { LandingQueue } from "./landing_queue.ts";
import type { AcceptMessage } from "./messages.ts";
import type { Clock, PageSink, RamBlock } from "./ports.ts";
import type { Profile } from "./profile.ts";
import type { RecordContent } from "./record_content.ts";
import { RecordOpener } from "./record_opener.ts";
import { suiteTable } from "./sealed_bodies.ts";

/** See the module. Whether it is the one that is taken, {@linkcode Place} knows. */
export class Candidate implements Disposable {
  readonly admitted: Admitted;
  readonly accept: AcceptMessage;
  readonly link: DestinationLink;
  readonly queue: LandingQueue;
  readonly #schedule: KeySchedule;
  #recovered = false;

  constructor(options: {
    admitted: Admitted;
    accept: AcceptMessage;
    /** ACCEPT as it was said: the keys depend on each byte. */
    acceptBytes: Uint8Array;
    profile: Profile;
    registry: CipherRegistry;
    clock: Clock;
    /** Those of our own QEMU, in its order. */
    ownBlocks: readonly RamBlock[];
    /** Called once, with all of SETUP; gives where pages go. */
    onSetup: (setup: Uint8Array) => Promise<PageSink>;
    events: DestinationLinkEvents;
  }) {
    const { admitted, accept, acceptBytes, profile, registry, clock, ownBlocks } = options;
    const { offer } = admitted;
    this.admitted = admitted;
    this.accept = accept;
    const secret = deriveMigrationSecret({
      handshakeHash: admitted.handshakeHash,
      sourceRandom: decodeKey(offer.sourceRandom),
      destinationRandom: decodeKey(accept.destinationRandom),
      offerBytes: admitted.offerBytes,
      acceptBytes,
    });
    using stack = new DisposableStack();
    const schedule = this.#schedule = stack.use(new KeySchedule(secret));
    const opener = new RecordOpener({
      bodies: profile.bodyReader({ schedule, clock, ...suiteTable(accept.suites, registry) }),
      lane: 0,
      blocks: offer.blocks,
    });
    const own = ownBlocks.map((block) => block.name);
    const blockOf = offer.blocks.map((block) => own.indexOf(block.name));
    this.queue = new LandingQueue({ blockOf, onSetup: options.onSetup });
    this.link = new DestinationLink({
      opener,
      budgetBytes: accept.limits.repairBudgetBytes,
      reconnectMs: accept.limits.reconnectMs,
      clock,
      events: options.events,
    });
    stack.move();
  }

  /** Whether it is this migration, and that key opened it. */
  isOf(migrationId: string, publicKey: Uint8Array): boolean {
    return this.admitted.migrationId === migrationId && equal(this.admitted.publicKey, publicKey);
  }

  /** `recover` has taken the source's place: its word is the source's, and the join key is worth nothing any more. */
  recover(): void {
    this.#recovered = true;
  }

  /** What another connection has to prove; null when none may join any more. */
  joinKey(): Uint8Array | null {
    return this.#recovered ? null : this.#schedule.joinKey();
  }

  /** Lands a record that opened. @throws MigrationError `protocol` for one out of place, `vm` when our own side fails; the promise too */
  land(record: RecordContent): void | Promise<void> {
    try {
      return this.queue.land(record)?.catch(rethrowAsOurs);
    } catch (error) {
      rethrowAsOurs(error);
    }
  }

  /** What came of it so far. */
  arrived(): Arrived {
    const { admitted, accept, link, queue } = this;
    return {
      migrationId: admitted.migrationId,
      accept,
      sensitivity: admitted.offer.sensitivity,
      guestBytes: queue.bytes,
      wireBytes: link.readBytes,
      pages: queue.pages,
      records: link.records,
      damaged: link.damaged.count,
      hits: link.hits,
      reconnects: link.reconnects,
    };
  }

  /** Closes the connection and wipes the keys. */
  [Symbol.dispose](): void {
    this.link[Symbol.dispose]();
    this.#schedule[Symbol.dispose]();
  }
}

/** A failed landing is our own side's fault; a record out of place is the other's. */
function rethrowAsOurs(cause: unknown): never {
  if (cause instanceof MigrationError) throw cause;
  throw new MigrationError("vm", `Cannot land in the VM: ${messageOf(cause)}`, { cause });
}
