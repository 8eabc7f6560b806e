/**
 * Our QEMU's incoming side: opened once, when SETUP is whole, and from its first byte on good for this migration only.
 *
 * @see PROTOCOL.md sections 4 and 7.3
 * @module
 */

import type { Candidate } from "./candidate.ts";
import type { DestinationJournal } from "./destination_journal.ts";
import type { DestinationVm, PageSink } from "./ports.ts";
import type { Waiter } from "./waiter.ts";

/** See the module. */
export class IncomingSide {
  readonly #vm: DestinationVm;
  readonly #journal: DestinationJournal;
  readonly #waiter: Waiter;
  #opening: Promise<PageSink> | null = null;
  #sink: PageSink | null = null;
  #touched = false;

  /** Opens nothing yet; `waiter` tells whether it may still be opened. */
  constructor(parts: { vm: DestinationVm; journal: DestinationJournal; waiter: Waiter }) {
    this.#vm = parts.vm;
    this.#journal = parts.journal;
    this.#waiter = parts.waiter;
  }

  /** A byte may have reached QEMU: it cannot take another migration. */
  get touched(): boolean {
    return this.#touched;
  }

  /** The journal first, then QEMU. @throws what the waiter was interrupted with, or what went wrong */
  open(candidate: Candidate, setup: Uint8Array): Promise<PageSink> {
    return this.#opening = this.#open(candidate, setup);
  }

  /** Resolves when it is open, or will not be: it must not be opened behind anybody's back. */
  async settled(): Promise<void> {
    await this.#opening?.catch(() => {});
  }

  /** Nothing lands any more. */
  close(): void {
    this.#sink?.close();
  }

  async #open(candidate: Candidate, setup: Uint8Array): Promise<PageSink> {
    await this.#journal.open(candidate);
    this.#waiter.check();
    const sink = this.#sink = await this.#vm.open();
    this.#waiter.check();
    this.#touched = true;
    await sink.setup(setup);
    return sink;
  }
}
