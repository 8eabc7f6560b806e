/**
 * What a vCPU's thread and its owner share: a few words of memory.
 *
 * @module
 */

/** Heartbeats that are kept; a reader who looks once a second misses none at 1 ms. */
const MAX_BEATS = 4096;

/** Its microseconds fit into a word. */
const MAX_PACE_MS = 3_600_000;

/** Words of 32 bits. */
const STOP = 0, RUNNING = 1, BEATS = 2, PACE_US = 3, UNASKED = 4;
/** A multiple of 8: times follow. */
const HEADER_BYTES = 24;

/** A heartbeat of the guest. */
export interface Beat {
  /** What the guest wrote. */
  value: number;
  /** When, in milliseconds of `performance.timeOrigin + performance.now()`: comparable between threads. */
  atMs: number;
}

/** The shared words. */
export class VcpuControl {
  /** To be handed to the other side. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #times: Float64Array;
  readonly #values: Uint32Array;

  constructor(
    buffer: SharedArrayBuffer = new SharedArrayBuffer(HEADER_BYTES + MAX_BEATS * 12),
  ) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    this.#times = new Float64Array(buffer, HEADER_BYTES, MAX_BEATS);
    this.#values = new Uint32Array(buffer, HEADER_BYTES + MAX_BEATS * 8, MAX_BEATS);
  }

  /** Whether the owner wants the vCPU out of the guest. */
  get stopping(): boolean {
    return Atomics.load(this.#words, STOP) !== 0;
  }

  set stopping(value: boolean) {
    Atomics.store(this.#words, STOP, value ? 1 : 0);
    if (value) Atomics.notify(this.#words, STOP);
  }

  /** Whether the thread may touch the vCPU. The owner sets it, the thread clears it. */
  get running(): boolean {
    return Atomics.load(this.#words, RUNNING) !== 0;
  }

  set running(value: boolean) {
    Atomics.store(this.#words, RUNNING, value ? 1 : 0);
    if (!value) Atomics.notify(this.#words, RUNNING);
  }

  /** Whether the last run ended without having been asked to. The owner clears it, the thread sets it before it clears `running`. */
  get endedUnasked(): boolean {
    return Atomics.load(this.#words, UNASKED) !== 0;
  }

  set endedUnasked(value: boolean) {
    Atomics.store(this.#words, UNASKED, value ? 1 : 0);
  }

  /** Milliseconds between heartbeats, at most an hour; 0 lets the guest go on at once. */
  get paceMs(): number {
    return (Atomics.load(this.#words, PACE_US) >>> 0) / 1000;
  }

  set paceMs(value: number) {
    if (!(value >= 0 && value <= MAX_PACE_MS)) {
      throw new RangeError(`Cannot let a guest beat every ${value} ms: 0 to ${MAX_PACE_MS}`);
    }
    Atomics.store(this.#words, PACE_US, Math.round(value * 1000));
  }

  /** Heartbeats since the thread was made. */
  get beatCount(): number {
    return Atomics.load(this.#words, BEATS) >>> 0;
  }

  /** Blocks the calling thread for `ms`, or until the owner wants to stop. */
  sleep(ms: number): void {
    Atomics.wait(this.#words, STOP, 0, ms);
  }

  /** Blocks the calling thread until the vCPU's is out. @returns false when `ms` passed before */
  waitStopped(ms: number): boolean {
    return Atomics.wait(this.#words, RUNNING, 1, ms) !== "timed-out";
  }

  /** Notes a heartbeat: the thread's side. */
  beat(value: number): void {
    const index = Atomics.load(this.#words, BEATS);
    this.#values[index % MAX_BEATS] = value;
    this.#times[index % MAX_BEATS] = performance.timeOrigin + performance.now();
    Atomics.store(this.#words, BEATS, index + 1);
  }

  /** The heartbeats from number `from` on, as far as they are still kept. */
  beats(from = 0): Beat[] {
    const count = this.beatCount;
    const result: Beat[] = [];
    for (let i = Math.max(from, count - MAX_BEATS); i < count; i++) {
      result.push({ value: this.#values[i % MAX_BEATS]!, atMs: this.#times[i % MAX_BEATS]! });
    }
    return result;
  }
}
