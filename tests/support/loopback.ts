/**
 * Connections inside one process, with the manners of TCP: bounded buffers, short reads, short writes, a close that
 * lets the other side read what was sent, and a second close that is an error.
 *
 * @module
 */

import { MigrationError } from "../../migration/errors.ts";
import type { Transport, TransportListener } from "../../migration/ports.ts";
import { Random } from "./random.ts";

/** One direction of a connection. */
class Pipe {
  readonly #capacityBytes: number;
  readonly #chunks: Uint8Array[] = [];
  #bytes = 0;
  #changed = Promise.withResolvers<void>();
  /** Nothing more is written. */
  ended = false;
  /** Nothing more is read. */
  abandoned = false;
  /** Most bytes that ever waited. */
  peakBytes = 0;

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes;
  }

  get room(): number {
    return this.#capacityBytes - this.#bytes;
  }

  get empty(): boolean {
    return this.#bytes === 0;
  }

  changed(): Promise<void> {
    return this.#changed.promise;
  }

  wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  put(bytes: Uint8Array): void {
    this.#chunks.push(bytes.slice());
    this.#bytes += bytes.length;
    this.peakBytes = Math.max(this.peakBytes, this.#bytes);
    this.wake();
  }

  take(into: Uint8Array): number {
    const chunk = this.#chunks[0]!;
    const count = Math.min(into.length, chunk.length);
    into.set(chunk.subarray(0, count));
    if (count === chunk.length) this.#chunks.shift();
    else this.#chunks[0] = chunk.subarray(count);
    this.#bytes -= count;
    this.wake();
    return count;
  }
}

/** One end. */
export class LoopbackEnd implements Transport {
  readonly #in: Pipe;
  readonly #out: Pipe;
  readonly #random: Random;
  #closed = false;
  /** Reads nothing while it is set: a slow or silent program. */
  stalled: Promise<void> | null = null;

  constructor(pipes: { in: Pipe; out: Pipe }, random: Random) {
    this.#in = pipes.in;
    this.#out = pipes.out;
    this.#random = random;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Bytes that came and were not read yet, at most. */
  get peakUnreadBytes(): number {
    return this.#in.peakBytes;
  }

  async read(into: Uint8Array): Promise<number | null> {
    if (into.length === 0) throw new RangeError("Cannot read: there is no room");
    if (this.stalled !== null) await this.stalled;
    for (;;) {
      if (this.#closed) throw new Error("Cannot read: the connection is closed on this side");
      if (!this.#in.empty) return this.#in.take(into.subarray(0, this.#some(into.length)));
      if (this.#in.ended) return null;
      await this.#in.changed();
    }
  }

  async write(bytes: Uint8Array): Promise<number> {
    for (;;) {
      if (this.#closed) throw new Error("Cannot write: the connection is closed on this side");
      if (this.#out.abandoned) throw new Error("Cannot write: broken pipe");
      const room = Math.min(this.#out.room, bytes.length);
      if (room > 0) {
        const count = this.#some(room);
        this.#out.put(bytes.subarray(0, count));
        return count;
      }
      await this.#out.changed();
    }
  }

  close(): void {
    if (this.#closed) throw new Error("Cannot close: the connection is closed already");
    this.#closed = true;
    this.#out.ended = this.#in.abandoned = true;
    this.#out.wake();
    this.#in.wake();
  }

  /** Mostly all of it, sometimes a part. */
  #some(count: number): number {
    return this.#random.oneIn(3) ? 1 + this.#random.below(count) : count;
  }
}

/** What connections are made with. */
export interface LoopbackOptions {
  /** Bytes under way in each direction. */
  capacityBytes?: number;
  seed?: number;
}

/** A connection: both its ends. */
export function loopbackPair(options: LoopbackOptions = {}): [LoopbackEnd, LoopbackEnd] {
  const { capacityBytes = 64 * 1024, seed = 1 } = options;
  const there = new Pipe(capacityBytes);
  const back = new Pipe(capacityBytes);
  const random = new Random(seed);
  return [
    new LoopbackEnd({ in: back, out: there }, random),
    new LoopbackEnd({ in: there, out: back }, random),
  ];
}

/** A listener and the way to reach it. */
export class Loopback implements TransportListener {
  readonly #options: LoopbackOptions;
  readonly #waiting: LoopbackEnd[] = [];
  #changed = Promise.withResolvers<void>();
  #closed = false;

  constructor(options: LoopbackOptions = {}) {
    this.#options = options;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Connects. */
  dial(): LoopbackEnd {
    if (this.#closed) {
      throw new MigrationError("vm", "Cannot reach the destination: connection refused");
    }
    const [here, there] = loopbackPair(this.#options);
    this.#waiting.push(there);
    this.#wake();
    return here;
  }

  async accept(): Promise<Transport> {
    for (;;) {
      if (this.#closed) throw new Error("Cannot accept: the listener is closed");
      const next = this.#waiting.shift();
      if (next !== undefined) return next;
      await this.#changed.promise;
    }
  }

  close(): void {
    if (this.#closed) throw new Error("Cannot close: the listener is closed already");
    this.#closed = true;
    for (const end of this.#waiting) end.close();
    this.#wake();
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}
