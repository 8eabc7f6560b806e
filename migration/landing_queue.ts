/**
 * Verified records, put where they belong in the VM; SETUP and STATE are put together first.
 *
 * @see PROTOCOL.md section 4
 * @module
 */

import { MigrationError } from "./errors.ts";
import type { PageSink } from "./ports.ts";
import type { OpenedRecord } from "./record_opener.ts";

/** See the module. */
export class LandingQueue {
  readonly #onSetup: (setup: Uint8Array) => Promise<PageSink>;
  readonly #blockOf: readonly number[];
  readonly #setup = new Assembly("SETUP");
  readonly #state = new Assembly("STATE");
  #sink: PageSink | null = null;
  /** Pages landed, zero pages included. */
  pages = 0;
  /** Guest bytes landed, zero pages not included. */
  bytes = 0;

  /**
   * `onSetup` is called once, with all of SETUP; pages go to the sink that it gives. `blockOf` has our own number of each
   * block of the offer: the two QEMUs may list them in another order.
   */
  constructor(
    options: { blockOf: readonly number[]; onSetup: (setup: Uint8Array) => Promise<PageSink> },
  ) {
    this.#blockOf = options.blockOf;
    this.#onSetup = options.onSetup;
  }

  /** STATE, whole; null before. */
  get state(): Uint8Array | null {
    return this.#state.whole;
  }

  get sink(): PageSink | null {
    return this.#sink;
  }

  /** @throws MigrationError `protocol` when a record comes where it cannot */
  land(record: OpenedRecord): void | Promise<void> {
    switch (record.type) {
      case "pages":
        this.#count(record.pages.length, 0);
        this.bytes += record.bytes.length;
        return this.#pageSink().pages(this.#blockOf[record.block]!, record.pages, record.bytes);
      case "zeros":
        this.#count(0, record.pages.length);
        return this.#pageSink().zeros(this.#blockOf[record.block]!, record.pages);
      case "setup":
        if (this.#setup.add(record)) return this.#open();
        return;
      case "state":
        this.#pageSink();
        this.#state.add(record);
        return;
      case "round":
        // A key change; its totals are the source's, which counts records that were damaged on the way too.
        return;
      case "mistake":
        return;
    }
  }

  async #open(): Promise<void> {
    this.#sink = await this.#onSetup(this.#setup.whole!);
  }

  #count(pages: number, zeros: number): void {
    this.pages += pages + zeros;
  }

  #pageSink(): PageSink {
    if (this.#sink === null) throw outOfPlace("a page came before SETUP was whole");
    return this.#sink;
  }
}

/**
 * Pieces placed by offset, in any order, since one that was damaged comes again later; overlaps are refused. The total
 * is capped by the record parser.
 */
class Assembly {
  readonly #what: string;
  #bytes: Uint8Array | null = null;
  /** Where pieces begin, with their lengths. */
  readonly #pieces = new Map<number, number>();
  #filled = 0;

  constructor(what: string) {
    this.#what = what;
  }

  get whole(): Uint8Array | null {
    return this.#bytes !== null && this.#filled === this.#bytes.length ? this.#bytes : null;
  }

  /** @returns whether it is whole now */
  add(piece: { offset: number; total: number; bytes: Uint8Array }): boolean {
    const { offset, total, bytes } = piece;
    this.#bytes ??= new Uint8Array(total);
    if (total !== this.#bytes.length) throw outOfPlace(`${this.#what} changes its length`);
    for (const [start, length] of this.#pieces) {
      if (offset < start + length && start < offset + bytes.length) {
        throw outOfPlace(`${this.#what} has an overlap at ${offset}`);
      }
    }
    this.#pieces.set(offset, bytes.length);
    this.#bytes.set(bytes, offset);
    this.#filled += bytes.length;
    return this.#filled === total;
  }
}

function outOfPlace(what: string): MigrationError {
  return new MigrationError("protocol", `Cannot land a record: ${what}`);
}
