/**
 * What goes to the connection, in order, one write at a time. The engine puts bytes in and never waits for
 * them: it waits for the window instead, so that a stalled connection can always be given up.
 *
 * @module
 */

import type { Clock, Transport } from "./ports.ts";

/** See the module. */
export class Outbox {
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #onCut: (cause: unknown) => void;
  readonly #queue: { bytes: Uint8Array; data: boolean }[] = [];
  #writing = false;
  #closed = false;
  #idleWaiters: (() => void)[] = [];
  #progressAtMs: number;
  #controlBytes = 0;
  /** Bytes that the kernel has taken. */
  writtenBytes = 0;

  constructor(transport: Transport, options: { clock: Clock; onCut: (cause: unknown) => void }) {
    this.#transport = transport;
    this.#clock = options.clock;
    this.#onCut = options.onCut;
    this.#progressAtMs = options.clock.now();
  }

  /** Whether nothing waits to be written; nothing does once it is closed, though a write may still hang. */
  get idle(): boolean {
    return !this.#writing || this.#closed;
  }

  /** Control messages that wait: records are bounded by their window. */
  get controlBytes(): number {
    return this.#controlBytes;
  }

  /** When the kernel last took a byte of data: PINGs do not count, or a dead connection would look alive by them. */
  get progressAtMs(): number {
    return this.#progressAtMs;
  }

  /** Puts `bytes` at the end; they stay untouched by the caller until they are written. `data`: records, not control. */
  put(bytes: Uint8Array, { data = false }: { data?: boolean } = {}): void {
    if (this.#closed) return;
    if (!data) this.#controlBytes += bytes.length;
    this.#queue.push({ bytes, data });
    if (!this.#writing) {
      this.#writing = true;
      void this.#run();
    }
  }

  /** Resolves when everything was written or the connection is lost. */
  async drained(): Promise<void> {
    if (!this.#writing || this.#closed) return;
    await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
  }

  /** Writes nothing more. */
  close(): void {
    this.#closed = true;
    this.#queue.length = 0;
    this.#wake();
  }

  async #run(): Promise<void> {
    try {
      for (let next; (next = this.#queue.shift()) !== undefined;) {
        const { bytes, data } = next;
        for (let from = 0; from < bytes.length;) {
          const count = await this.#transport.write(from === 0 ? bytes : bytes.subarray(from));
          if (this.#closed) return;
          from += count;
          this.writtenBytes += count;
          if (data) this.#progressAtMs = this.#clock.now();
          else this.#controlBytes -= count;
        }
      }
    } catch (cause) {
      if (!this.#closed) {
        this.close();
        this.#onCut(cause);
      }
    } finally {
      this.#writing = false;
      this.#wake();
    }
  }

  #wake(): void {
    const waiters = this.#idleWaiters;
    this.#idleWaiters = [];
    for (const wake of waiters) wake();
  }
}
