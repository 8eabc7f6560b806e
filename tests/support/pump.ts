/**
 * The smallest migration: from a page source into a page sink, in clear and in order.
 *
 * @module
 */

import type { PageEvents, PageSink, PageSource } from "../../migration/ports.ts";
import { concat } from "./stream_builder.ts";

/** What has not been handed to the sink yet. */
type Item =
  | { block: number; page: number; bytes: Uint8Array | null }
  | { setup: Uint8Array };

/** Moves pages from `source` to `sink`; without a sink they are dropped. */
export class Pump implements PageEvents {
  readonly #source: PageSource;
  readonly #sink: PageSink | null;
  #items: Item[] = [];
  readonly #setup: Uint8Array[] = [];
  readonly #state: Uint8Array[] = [];
  #setupDone = false;
  pageCount = 0;
  zeroCount = 0;
  hasStopped = false;

  constructor(source: PageSource, sink: PageSink | null) {
    this.#source = source;
    this.#sink = sink;
  }

  /** Everything after the last page. */
  get stateBytes(): Uint8Array {
    return concat(...this.#state);
  }

  /** Reads once; false at the end. */
  async step(): Promise<boolean> {
    const more = await this.#source.next(this);
    const items = this.#items;
    this.#items = [];
    for (const item of items) await this.#give(item);
    return more;
  }

  /** Reads to the end, or until `until` holds. */
  async run(until: () => boolean = () => false): Promise<void> {
    while (!until() && await this.step());
  }

  setup(bytes: Uint8Array): void {
    this.#setup.push(bytes.slice());
  }
  page(block: number, page: number, bytes: Uint8Array): void {
    this.pageCount++;
    this.#push({ block, page, bytes: bytes.slice() });
  }
  zero(block: number, page: number): void {
    this.zeroCount++;
    this.#push({ block, page, bytes: null });
  }
  stopped(): void {
    this.hasStopped = true;
  }
  state(bytes: Uint8Array): void {
    this.#state.push(bytes.slice());
  }
  drained(): void {}

  #push(item: Item): void {
    if (!this.#setupDone) {
      this.#setupDone = true;
      this.#items.push({ setup: concat(...this.#setup) });
    }
    if (this.#sink !== null) this.#items.push(item);
  }

  async #give(item: Item): Promise<void> {
    const sink = this.#sink;
    if (sink === null) return;
    if ("setup" in item) return await sink.setup(item.setup);
    const pages = Uint32Array.of(item.page);
    if (item.bytes === null) await sink.zeros(item.block, pages);
    else await sink.pages(item.block, pages, item.bytes);
  }
}
