/**
 * What the destination writes down of one migration, each line on disk before the step that it guards.
 *
 * @see PROTOCOL.md section 7.3
 * @module
 */

import { equal } from "./admission.ts";
import type { Candidate } from "./candidate.ts";
import type { DestinationOptions } from "./destination_options.ts";
import { journalError } from "./failure.ts";
import { encodeKey } from "./identity.ts";
import type { DestinationJournalState, Journal } from "./ports.ts";
import { Turns } from "./turns.ts";

/** See the module. */
export class DestinationJournal {
  readonly #options: DestinationOptions;
  readonly #turns = new Turns();
  #journal: Journal | null = null;
  #candidate: Candidate | null = null;
  #state: DestinationJournalState = "open";
  #taken = false;

  /** Writes nothing yet. */
  constructor(options: DestinationOptions) {
    this.#options = options;
  }

  /** Whether there is one. */
  get isOpen(): boolean {
    return this.#journal !== null;
  }

  /** Its last line's. */
  get state(): DestinationJournalState {
    return this.#state;
  }

  /** `taking` is written: the copy may have run. */
  get taken(): boolean {
    return this.#taken;
  }

  /** Creates it, with its first line. @throws MigrationError `journal` */
  async open(candidate: Candidate): Promise<void> {
    const { vm, journals, clock, allowed } = this.#options;
    const { admitted, accept } = candidate;
    const peer = allowed.find(({ publicKey }) => equal(publicKey, admitted.publicKey))!;
    this.#candidate = candidate;
    try {
      this.#journal = await journals.create(admitted.migrationId, "destination", {
        state: "open",
        time: clock.date().toISOString(),
        version: 1,
        id: admitted.migrationId,
        side: "destination",
        vm: {
          name: admitted.offer.name,
          uuid: admitted.offer.uuid,
          memoryBytes: admitted.offer.memoryBytes,
        },
        ...this.#options.journalFacts,
        qemu: vm.facts.process,
        before: admitted.offer.before,
        peer: { name: peer.name, publicKey: encodeKey(peer.publicKey) },
        suites: accept.suites,
      });
    } catch (cause) {
      throw journalError(cause);
    }
  }

  /** Adds a line. @throws MigrationError `journal` when it is not on disk: then the step it guards is not taken */
  async append(state: Exclude<DestinationJournalState, "open">): Promise<void> {
    await this.#turns.run(async () => {
      // `ranEarly` may have come first, and says more.
      if (state === "loaded" && this.#state !== "open") return;
      await this.#append(state);
    });
  }

  /**
   * Somebody else ran the VM: whatever becomes of its QEMU, no older copy may be taken for it without somebody's word.
   * Nothing where `taking` says as much. @throws MigrationError `journal`
   */
  async appendRanEarly(): Promise<void> {
    await this.#turns.run(async () => {
      if (this.#state in { open: 1, loaded: 1 }) await this.#append("ranEarly");
    });
  }

  /**
   * The VM went on at the source (`sourceRan`), or is about to: alone nobody may run this one, and what ran there no RELEASE
   * takes back. @throws MigrationError `journal`
   */
  async appendSourceWentOn(facts: { sourceRan?: true }): Promise<void> {
    await this.#turns.run(async () => {
      const state = this.#state;
      if (state === "taking") await this.#append(state, { sourceWentOn: true, ...facts });
      else if (facts.sourceRan && (state === "loaded" || state === "ranEarly")) {
        await this.#append(state, facts);
      }
    });
  }

  /** Takes no more lines. */
  close(): void {
    this.#journal?.close();
  }

  async #append(
    state: Exclude<DestinationJournalState, "open">,
    facts: Record<string, unknown> = {},
  ): Promise<void> {
    try {
      const time = this.#options.clock.date().toISOString();
      await this.#journal?.append({ time, ...this.#audit(state), ...facts, state });
      this.#state = state;
      if (state === "taking") this.#taken = true;
    } catch (cause) {
      throw journalError(cause);
    }
  }

  /** What a last line says of damage, if there was any. */
  #audit(state: DestinationJournalState): Record<string, unknown> {
    const link = this.#candidate?.link;
    if (link === undefined || link.hits.length === 0) return {};
    if (state !== "running" && state !== "discarded") return {};
    return { mistakes: link.damaged.count, hits: link.hits };
  }
}
