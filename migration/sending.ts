/**
 * What a source sends: rounds of pages told apart, sealed and, where they were damaged on the way, sent again.
 * The paper's three functions meet here: the monitor tells pages apart, the key and security functions are
 * behind the sealer.
 *
 * @see PROTOCOL.md sections 4 and 5
 * @module
 */

import type { CipherRegistry } from "../ciphers/registry.ts";
import type { KeySchedule } from "./key_schedule.ts";
import { DEFAULT_REPAIR_BUDGET_BYTES, MAX_HITS } from "./limits.ts";
import { type AcceptMessage, type FinishMessage, pageClasses } from "./messages.ts";
import { MistakeBitmap } from "./mistake_bitmap.ts";
import { PageStream } from "./page_stream.ts";
import type { ClassifierSummary, Clock, PageClassifier, RamBlock } from "./ports.ts";
import type { Profile } from "./profile.ts";
import { RecordSealer } from "./record_sealer.ts";
import { Repair } from "./repair.ts";
import { Rounds, type RoundStatistics } from "./rounds.ts";
import { suiteTable } from "./sealed_bodies.ts";
import type { SealedWindow } from "./window.ts";

/** See the module. One lane. */
export class Sending implements Disposable {
  readonly repair: Repair;
  /** What was damaged and when, the first of it. */
  readonly hits: { time: string; what: string }[] = [];
  readonly #accept: AcceptMessage;
  readonly #clock: Clock;
  readonly #window: SealedWindow;
  readonly #rounds: Rounds;
  readonly #sealer: RecordSealer;
  readonly #classifier: PageClassifier | null;

  private constructor(parts: {
    accept: AcceptMessage;
    clock: Clock;
    window: SealedWindow;
    rounds: Rounds;
    sealer: RecordSealer;
    repair: Repair;
    classifier: PageClassifier | null;
  }) {
    this.#accept = parts.accept;
    this.#clock = parts.clock;
    this.#window = parts.window;
    this.#rounds = parts.rounds;
    this.#sealer = parts.sealer;
    this.#classifier = parts.classifier;
    this.repair = parts.repair;
  }

  /** `classifier` makes the monitor function; it is called only where pages have to be told apart. */
  static async make(options: {
    accept: AcceptMessage;
    schedule: KeySchedule;
    registry: CipherRegistry;
    profile: Profile;
    blocks: readonly RamBlock[];
    window: SealedWindow;
    clock: Clock;
    classifier: (() => Promise<PageClassifier>) | undefined;
  }): Promise<Sending> {
    const { accept, schedule, registry, profile, blocks, window, clock } = options;
    const table = suiteTable(accept.suites, registry);
    const apart = profile.hidesByClass || table.suites.length > 1;
    const classifier = apart ? await options.classifier?.() ?? null : null;
    const bodies = profile.bodyWriter({ schedule, clock, ...table });
    const rounds = new Rounds(blocks, clock);
    const bitmap = new MistakeBitmap(blocks);
    const sealer = new RecordSealer({
      bodies,
      window,
      rounds,
      mistakes: bitmap,
      classifier,
      lane: 0,
    });
    const budgetBytes = accept.limits.repairBudgetBytes;
    const alarmBytes = Math.min(budgetBytes, DEFAULT_REPAIR_BUDGET_BYTES);
    const repair = new Repair({
      bodies,
      window,
      sealer,
      bitmap,
      blocks,
      budgetBytes,
      alarmBytes,
    });
    return new Sending({ accept, clock, window, rounds, sealer, repair, classifier });
  }

  /** Rounds so far, the current one last. */
  get rounds(): RoundStatistics[] {
    return this.#rounds.all();
  }

  /** The sequence of the last record. */
  get lastSequence(): number {
    return this.#sealer.lastSequence;
  }

  /** What told pages apart; null when nothing had to. */
  get monitor(): ClassifierSummary | null {
    return this.#classifier?.summary() ?? null;
  }

  /** Takes what the VM says; `onRound` is called with each round that was closed. */
  stream(onRound: (closed: RoundStatistics, vmStopped: boolean) => void): PageStream {
    return new PageStream({
      sealer: this.#sealer,
      rounds: this.#rounds,
      classifier: this.#classifier,
      onSetup: () => this.#window.flush(),
      onRound,
    });
  }

  /** A record was damaged: its pages are marked, or its piece is sent again. @returns what was hit @throws as `Repair.damaged` */
  damaged(sequence: number): string[] {
    const { lastSequence } = this;
    const hit = this.repair.damaged(sequence);
    this.#rounds.current.mistakes += hit.length;
    for (const what of hit.slice(0, MAX_HITS - this.hits.length)) {
      this.hits.push({ time: this.#clock.date().toISOString(), what });
    }
    // A piece that was sealed again is waited for.
    if (this.lastSequence !== lastSequence) this.#window.flush();
    return hit;
  }

  /** What FINISH says. */
  finish(): Omit<FinishMessage, "type"> {
    return {
      lanes: [{ lane: 0, sequence: this.lastSequence }],
      pages: this.#pages() - this.repair.lostPages,
      records: this.lastSequence - this.repair.mistakes,
      damaged: this.repair.digest(),
    };
  }

  /** The suite of the class with most pages. */
  mostUsedSuite(): string {
    const used = new Map<string, number>();
    for (const { pages } of this.rounds) {
      for (const pageClass of pageClasses) {
        const id = this.#accept.suites[pageClass];
        used.set(id, (used.get(id) ?? 0) + pages[pageClass]);
      }
    }
    return [...used].reduce((most, one) => one[1] > most[1] ? one : most)[0];
  }

  /** Wipes the keys. */
  [Symbol.dispose](): void {
    this.#sealer[Symbol.dispose]();
  }

  #pages(): number {
    let sum = 0;
    for (const { pages } of this.rounds) {
      sum += pages.user + pages.kernelText + pages.kernelData + pages.unmapped + pages.zero;
    }
    return sum;
  }
}
