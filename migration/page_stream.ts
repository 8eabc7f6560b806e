/**
 * What the VM says, turned into records: SETUP first, then rounds of pages, then STATE.
 *
 * @see PROTOCOL.md section 4
 * @module
 */

import { MigrationError } from "./errors.ts";
import { MAX_SETUP_BYTES, MAX_STATE_BYTES } from "./limits.ts";
import type { PageEvents } from "./ports.ts";
import type { RecordSealer } from "./record_sealer.ts";
import type { Rounds, RoundStatistics } from "./rounds.ts";

/** See the module. */
export class PageStream implements PageEvents {
  readonly #sealer: RecordSealer;
  readonly #rounds: Rounds;
  readonly #onSetup: () => void;
  readonly #onRound: (closed: RoundStatistics) => void;
  readonly #setup = new Pieces(MAX_SETUP_BYTES, "the stream before the first page");
  readonly #state = new Pieces(MAX_STATE_BYTES, "the device state");
  #setupSequence = 0;
  #stopped = false;

  /** `onSetup` is called when SETUP is sealed, before the first page is; `onRound` with each round that was closed. */
  constructor(options: {
    sealer: RecordSealer;
    rounds: Rounds;
    onSetup: () => void;
    onRound: (closed: RoundStatistics) => void;
  }) {
    this.#onSetup = options.onSetup;
    this.#sealer = options.sealer;
    this.#rounds = options.rounds;
    this.#onRound = options.onRound;
  }

  /** Sequence of the last SETUP record; 0 before SETUP is whole. */
  get setupSequence(): number {
    return this.#setupSequence;
  }

  /** Whether the last round has begun: the VM does not run. */
  get hasStopped(): boolean {
    return this.#stopped;
  }

  setup(bytes: Uint8Array): void {
    this.#setup.add(bytes);
  }

  page(block: number, page: number, bytes: Uint8Array): void {
    this.#beginPage(block, page);
    this.#sealer.page(block, page, bytes);
  }

  zero(block: number, page: number): void {
    this.#beginPage(block, page);
    this.#sealer.zero(block, page);
  }

  stopped(): void {
    this.#endSetup();
    this.#nextRound();
    this.#stopped = true;
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
    if (this.#setupSequence === 0) this.#endSetup();
    if (this.#rounds.seenBefore(block, page)) {
      this.#nextRound();
      this.#rounds.seenBefore(block, page);
    }
  }

  #endSetup(): void {
    if (this.#setupSequence !== 0) return;
    this.#sealer.stream("setup", this.#setup.take());
    this.#setupSequence = this.#sealer.lastSequence;
    this.#onSetup();
  }

  #nextRound(): void {
    this.#sealer.endRound();
    this.#onRound(this.#rounds.next());
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
