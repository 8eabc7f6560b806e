/**
 * The destination's door: takes connections, and answers the offers of those who prove an allowed key. Who is let in
 * gets the {@linkcode Place}.
 *
 * @see PROTOCOL.md sections 2 and 3
 * @module
 */

import { type AcceptLoop, acceptLoop } from "./accepting.ts";
import { Admission, type Admitted, type Joining, type Recovering } from "./admission.ts";
import type { Candidate } from "./candidate.ts";
import type { DestinationOptions } from "./destination_options.ts";
import type { Place } from "./destination_place.ts";
import { messageOf } from "./failure.ts";
import { encodeKey } from "./identity.ts";
import { MAX_JUDGED_OFFERS } from "./limits.ts";
import type { AcceptMessage, RefuseMessage } from "./messages.ts";
import { judgeOffer, refuse } from "./offer_answer.ts";
import { JOIN, RECOVER } from "./opening.ts";
import type { LandingProbe, Transport } from "./ports.ts";
import type { Profile } from "./profile.ts";
import { SpacedNotes } from "./spaced_notes.ts";

/** What a door hands on. */
export interface DoorEvents {
  /** ACCEPT was said to who has the place. @returns what is served from now on */
  onAccepted(
    admitted: Admitted,
    answer: { accept: AcceptMessage; acceptBytes: Uint8Array },
  ): Candidate;
  /** Resolves when its connection has ended. */
  onJoin(joining: Joining): Promise<void>;
  /** Likewise. */
  onRecover(recovering: Recovering): Promise<void>;
}

/** See the module. */
export class Door {
  readonly #options: DestinationOptions;
  readonly #place: Place;
  readonly #events: DoorEvents;
  readonly #admission: Admission;
  /** Connections without a key: they may be many. */
  readonly #strangers: SpacedNotes;
  readonly #serving = new Set<Promise<void>>();
  #accepting: AcceptLoop | null = null;
  /** Offers that are being looked at. */
  #judging = 0;
  #probe: LandingProbe | null = null;

  /** Closed yet. */
  constructor(
    options: DestinationOptions,
    { profile, place, events }: { profile: Profile; place: Place; events: DoorEvents },
  ) {
    this.#options = options;
    this.#place = place;
    this.#events = events;
    this.#strangers = new SpacedNotes(options.clock);
    this.#admission = new Admission({
      identity: options.identity,
      allowed: options.allowed.map((peer) => peer.publicKey),
      clock: options.clock,
      profile,
      joinKey: (migrationId, publicKey) => {
        const { candidate } = place;
        return candidate?.isOf(migrationId, publicKey) ? candidate.joinKey() : null;
      },
      mayRecover: (migrationId, publicKey) => place.bound?.isOf(migrationId, publicKey) ?? false,
    });
  }

  /** How pages would land, or do; null before the first offer that came so far. */
  get probe(): LandingProbe | null {
    return this.#probe;
  }

  /** Serves whoever calls, until {@linkcode close}. */
  open(): void {
    const { listener, clock } = this.#options;
    this.#accepting = acceptLoop(listener, {
      clock,
      onTransport: (transport) => {
        const one = this.#serve(transport).catch(() => {})
          .finally(() => this.#serving.delete(one));
        this.#serving.add(one);
      },
    });
  }

  /** Nobody comes in any more; who is inside stays. */
  close(): void {
    this.#accepting?.close();
    this.#admission.close();
  }

  /** Resolves when nobody is served any more, after {@linkcode close}. */
  async ended(): Promise<void> {
    await this.#accepting?.ended;
    await Promise.all(this.#serving);
  }

  /** One connection, from its first byte to its last. */
  async #serve(transport: Transport): Promise<void> {
    const admitted = await this.#admission.admit(transport);
    if (admitted?.kind === JOIN) return await this.#events.onJoin(admitted);
    if (admitted?.kind === RECOVER) return await this.#events.onRecover(admitted);
    if (admitted === null) return this.#stranger();
    try {
      await this.#converse(admitted);
    } catch (error) {
      this.#note(messageOf(error), admitted.migrationId);
      this.#place.giveUp(admitted);
    } finally {
      // Who has the place ends its connection in its own time.
      if (!this.#place.isClaimedBy(admitted)) admitted.connection[Symbol.dispose]();
    }
  }

  /** Says that somebody proved no key, but not once for each who scans ports. */
  #stranger(): void {
    const count = this.#strangers.count();
    if (count === 0) return;
    this.#note(
      count === 1
        ? "A connection did not prove an allowed key, and was dropped"
        : `${count} connections did not prove an allowed key, and were dropped`,
      null,
    );
  }

  async #converse(admitted: Admitted): Promise<void> {
    const { connection, offer, migrationId } = admitted;
    const answer = await this.#answerInTurn(admitted);
    if (answer.type === "REFUSE") {
      connection.send(answer);
      this.#note(`Refused: ${answer.text}`, migrationId);
      return await connection.finish(1_000);
    }
    const acceptBytes = connection.send(answer);
    if (offer.dryRun) {
      this.#note("Answered a dry run", migrationId);
      return await connection.finish(1_000);
    }
    if (!this.#place.isClaimedBy(admitted)) return;
    const candidate = this.#place.seat(
      this.#events.onAccepted(admitted, { accept: answer, acceptBytes }),
    );
    await candidate.link.serve(connection);
  }

  /** A policy takes its time, and who offers again and again must not fill our memory meanwhile. */
  async #answerInTurn(admitted: Admitted): Promise<AcceptMessage | RefuseMessage> {
    if (this.#judging >= MAX_JUDGED_OFFERS) {
      return refuse("busy", "too many offers are being looked at here");
    }
    this.#judging++;
    try {
      return await this.#answer(admitted);
    } finally {
      this.#judging--;
    }
  }

  async #answer(admitted: Admitted): Promise<AcceptMessage | RefuseMessage> {
    const { vm, registry, repairBudgetBytes } = this.#options;
    const { offer, migrationId, publicKey } = admitted;
    const judged = await judgeOffer(offer, {
      ...this.#options,
      vmId: this.#options.vmId,
      migrationId,
      probe: this.#probe,
    });
    if ("type" in judged) return judged;
    this.#probe = judged.probe;
    // Asked last, with nothing awaited after it: two sources cannot both be let in.
    if (this.#place.isTakenFor(publicKey)) {
      return refuse("busy", "another migration is under way here");
    }
    if (this.#place.closed) return refuse("state", "this side is about to end");
    if (!offer.dryRun) this.#place.claim(admitted);
    return {
      type: "ACCEPT",
      suites: judged.suites,
      landing: judged.probe.landing,
      backend: registry.get(judged.suites.user).backend,
      notes: judged.probe.notes,
      warnings: judged.warnings,
      limits: {
        ...offer.limits,
        repairBudgetBytes: Math.min(offer.limits.repairBudgetBytes, repairBudgetBytes),
      },
      qemuVersion: vm.facts.qemuVersion,
      destinationRandom: encodeKey(crypto.getRandomValues(new Uint8Array(32))),
    };
  }

  #note(text: string, migrationId: string | null): void {
    this.#options.onNote?.({ text, migrationId });
  }
}
