/**
 * What the VM says, turned into records: SETUP first, then rounds of pages, then STATE.
 *
 * @see PROTOCOL.md section 4
 * @module
 */

import { MigrationError } from "./errors.ts";
import { MAX_SETUP_BYTES, MAX_STATE_BYTES } from "./limits.ts";
import type { PageClassifier, PageEvents } from "./ports.ts";
import type { RecordSealer } from "./record_sealer.ts";
import type { Rounds, RoundStatistics } from "./rounds.ts";

/** See the module. */
export class PageStream implements PageEvents {
  readonly #sealer: RecordSealer;
  readonly #rounds: Rounds;
  readonly #classifier: PageClassifier | null;
  readonly #onSetup: () => void;
  readonly #onRound: (closed: RoundStatistics, vmStopped: boolean) => void;
  readonly #setup = new Pieces(MAX_SETUP_BYTES, "the stream before the first page");
  readonly #state = new Pieces(MAX_STATE_BYTES, "the device state");
  #setupSealed = false;
  /** What came behind SETUP and must not be sealed yet; null while the gate is open. */
  #held: (() => void)[] | null = null;
  #stopped = false;

  /** `onSetup` is called when SETUP is sealed, before the first page is; `onRound` with each round that was closed. */
  constructor(options: {
    sealer: RecordSealer;
    rounds: Rounds;
    /** Looks again when a round begins. */
    classifier?: PageClassifier | null;
    onSetup: () => void;
    onRound: (closed: RoundStatistics, vmStopped: boolean) => void;
  }) {
    this.#onSetup = options.onSetup;
    this.#sealer = options.sealer;
    this.#rounds = options.rounds;
    this.#classifier = options.classifier ?? null;
    this.#onRound = options.onRound;
  }

  /** Whether SETUP is whole and sealed: what follows is held until {@linkcode openGate}. */
  get setupSealed(): boolean {
    return this.#setupSealed;
  }

  /** SETUP has arrived: lets everything through that was held. */
  openGate(): void {
    this.#classifier?.refresh();
    const held = this.#held ?? [];
    this.#held = null;
    for (const event of held) event();
    this.#sealer.sealOpen();
  }

  /** Whether the last round has begun: the VM does not run. */
  get hasStopped(): boolean {
    return this.#stopped;
  }

  setup(bytes: Uint8Array): void {
    this.#setup.add(bytes);
  }

  page(block: number, page: number, bytes: Uint8Array): void {
    if (!this.#setupSealed) this.#endSetup();
    if (this.#held !== null) {
      // Once in a migration, and what one read gave at most.
      const kept = bytes.slice();
      this.#held.push(() => this.page(block, page, kept));
      return;
    }
    this.#beginPage(block, page);
    this.#sealer.page(block, page, bytes);
  }

  zero(block: number, page: number): void {
    if (!this.#setupSealed) this.#endSetup();
    if (this.#held !== null) {
      this.#held.push(() => this.zero(block, page));
      return;
    }
    this.#beginPage(block, page);
    this.#sealer.zero(block, page);
  }

  stopped(): void {
    if (!this.#setupSealed) this.#endSetup();
    if (this.#held !== null) {
      this.#held.push(() => this.stopped());
      return;
    }
    this.#stopped = true;
    this.#nextRound();
  }

  state(bytes: Uint8Array): void {
    this.#state.add(bytes);
  }

  drained(): void {
    this.#sealer.sealOpen();
  }

  /** Seals STATE: the VM has said everything. */
  end(): void {
    this.#sealer.sealOpen();
    this.#sealer.stream("state", this.#state.take());
    this.#rounds.end();
  }

  #beginPage(block: number, page: number): void {
    if (this.#rounds.seenBefore(block, page)) {
      this.#nextRound();
      this.#rounds.seenBefore(block, page);
    }
  }

  #endSetup(): void {
    this.#setupSealed = true;
    this.#sealer.stream("setup", this.#setup.take());
    this.#held = [];
    this.#onSetup();
  }

  #nextRound(): void {
    this.#sealer.endRound();
    this.#onRound(this.#rounds.next(), this.#stopped);
    if (this.#stopped) this.#classifier?.refresh();
    else this.#classifier?.refreshIfDue();
  }
}

/** Bytes that come in pieces, up to a cap. */
class Pieces {
  readonly #cap: number;
  readonly #what: string;
  #pieces: Uint8Array[] = [];
  #length = 0;

  constructor(cap: number, what: string) {
    this.#cap = cap;
    this.#what = what;
  }

  add(bytes: Uint8Array): void {
    this.#length += bytes.length;
    if (this.#length > this.#cap) {
      throw new MigrationError(
        "vm",
        `Cannot migrate the VM: ${this.#what} is longer than ${this.#cap} bytes`,
      );
    }
    this.#pieces.push(bytes.slice());
  }

  take(): Uint8Array {
    const whole = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    this.#pieces = [];
    return whole;
  }
}
