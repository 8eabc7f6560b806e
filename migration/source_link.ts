/**
 * The source's end of the wire: records in flight, the connection that carries them, and the ones that
 * take its place when it is cut (PROTOCOL.md sections 4 to 6).
 *
 * A cut ends nothing: the link dials again with JOIN and sends the window once more, byte for byte, from
 * what the destination has. Control messages are not sent again; whoever uses the link says them anew
 * from its state when `onJoined` is called.
 *
 * @module
 */

import type { Connection } from "./connection.ts";
import { MigrationError } from "./errors.ts";
import { messageOf } from "./failure.ts";
import {
  JOIN_BACKOFF_MS,
  JOIN_TIMEOUT_MS,
  PING_INTERVAL_MS,
  PING_INTERVAL_STOPPED_MS,
  SILENCE_MS,
  SILENCE_STOPPED_MS,
} from "./limits.ts";
import type { LanePosition, Message } from "./messages.ts";
import type { Clock } from "./ports.ts";
import { SealedWindow, type Slab } from "./window.ts";

/** What a link tells its user. */
export interface SourceLinkEvents {
  /** A control message that is not the link's own. @throws MigrationError `protocol` when it cannot be */
  onMessage(message: Message): void;
  /** Records were acknowledged. */
  onAcknowledged(): void;
  /** Once a second, and four times while the VM is stopped. */
  onPulse(): void;
  /** The destination could not open this record; it may never have been sealed: none up to it is from now on. */
  onMistake(sequence: number): void;
  /** The connection is cut; the link dials again. */
  onCut(error: MigrationError): void;
  /** Another connection has taken over: say again what the state wants said. */
  onJoined(): void;
  /** It is over: the reconnect budget is used up, or the other side is broken or does not know us any more. */
  onLost(error: MigrationError): void;
}

/** See the module. One lane. */
export class SourceLink implements Disposable {
  /** Records in flight; slabs that are flushed go to the connection. */
  readonly window: SealedWindow;
  readonly #clock: Clock;
  readonly #events: SourceLinkEvents;
  readonly #reconnectMs: number;
  /** Dials and proves the join key; who answers has proven it too, and nothing is said yet. */
  readonly #join: (onCut: (cause: unknown) => void, signal: AbortSignal) => Promise<Connection>;
  #connection: Connection | null = null;
  #receiving: Promise<void> = Promise.resolve();
  #joining: Promise<void> = Promise.resolve();
  #pulse: { clear(): void } | null = null;
  #wakePause: (() => void) | null = null;
  /** Ends the try to join that is under way. */
  #trying: AbortController | null = null;
  #pingNonce = 0;
  #started = false;
  #stopped = false;
  #closed = false;
  #putSequence = 0;
  #acknowledged = 0;
  #attempt = 0;
  #disconnectedMs = 0;
  /** Before the next try to join; grows while nothing is acknowledged. */
  #backoffMs = 0;
  #acknowledgedAtCut = -1;
  #writtenBefore = 0;
  /** Connections after the first. */
  reconnects = 0;

  constructor(options: {
    clock: Clock;
    windowBytes: number;
    /** Total time without a connection. */
    reconnectMs: number;
    /** Gives up when `signal` says so. */
    join: (onCut: (cause: unknown) => void, signal: AbortSignal) => Promise<Connection>;
    events: SourceLinkEvents;
  }) {
    this.#clock = options.clock;
    this.#reconnectMs = options.reconnectMs;
    this.#join = options.join;
    this.#events = options.events;
    this.window = new SealedWindow(options.windowBytes, (slab) => this.#put(slab));
  }

  /** Everything up to this sequence was landed or reported. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** Whether there is a connection now. */
  get connected(): boolean {
    return this.#connection !== null;
  }

  /** Whether the connection waits for more to write; also when there is none. */
  get idle(): boolean {
    return this.#connection?.outbox.idle ?? true;
  }

  /** Resolves when {@linkcode idle}. */
  async drained(): Promise<void> {
    await this.#connection?.outbox.drained();
  }

  /** Bytes that the kernel took, over all connections. */
  get writtenBytes(): number {
    return this.#writtenBefore + (this.#connection?.outbox.writtenBytes ?? 0);
  }

  /** Whether it ever had a connection. */
  get started(): boolean {
    return this.#started;
  }

  /** Takes the first connection, right after ACCEPT. */
  start(connection: Connection): void {
    this.#started = true;
    this.#adopt(connection);
  }

  /** Says a control message; nothing while there is no connection: `onJoined` is the time to say it again. */
  send(message: Message): void {
    this.#connection?.send(message);
  }

  /** The VM has stopped: asks more often, and notices silence sooner. */
  vmStopped(): void {
    this.#stopped = true;
    this.#schedulePulse();
  }

  /** The release is over: what follows may take its time. */
  vmReleased(): void {
    this.#stopped = false;
  }

  /** Writes what waits, for at most `withinMs`, and ends. */
  async finish(withinMs: number): Promise<void> {
    const connection = this.#connection;
    this.#close();
    await connection?.finish(withinMs);
    await this.#receiving;
    await this.#joining;
  }

  [Symbol.dispose](): void {
    const connection = this.#connection;
    this.#close();
    connection?.[Symbol.dispose]();
  }

  #close(): void {
    this.#closed = true;
    this.#pulse?.clear();
    this.#wakePause?.();
    this.#trying?.abort();
  }

  #adopt(connection: Connection): void {
    this.#connection = connection;
    this.#receiving = this.#receive(connection);
    this.#schedulePulse();
  }

  #put(slab: Slab): void {
    this.#putSequence = slab.lastSequence;
    this.#connection?.outbox.put(slab.bytes.subarray(0, slab.usedBytes), { data: true });
  }

  // ---- what comes ----

  async #receive(connection: Connection): Promise<void> {
    try {
      for (let next; (next = await connection.nextMessage()) !== null;) this.#handle(next.message);
      this.#cut(connection, null);
    } catch (error) {
      this.#cut(connection, error);
    }
  }

  #handle(message: Message): void {
    switch (message.type) {
      case "ACK":
        this.#checkPosition(message);
        return this.#acknowledge(message.sequence);
      case "MISTAKE":
        if (message.lane !== 0) return this.#checkPosition(message);
        this.#events.onMistake(message.sequence);
        // One that was never sent was used up by a frame that somebody put in; no lower one is due any more.
        this.#putSequence = Math.max(this.#putSequence, message.sequence);
        return;
      case "PONG":
        return;
      default:
        return this.#events.onMessage(message);
    }
  }

  #acknowledge(sequence: number): void {
    this.#acknowledged = Math.max(this.#acknowledged, sequence);
    this.window.acknowledge(sequence);
    this.#events.onAcknowledged();
  }

  #checkPosition({ lane, sequence }: LanePosition): void {
    if (lane === 0 && sequence <= this.#putSequence) return;
    throw new MigrationError(
      "protocol",
      `Cannot go on: record ${sequence} of lane ${lane} was never sent`,
    );
  }

  // ---- cuts ----

  #cut(connection: Connection, cause: unknown): void {
    if (this.#connection !== connection) return;
    this.#connection = null;
    this.#writtenBefore += connection.outbox.writtenBytes;
    connection[Symbol.dispose]();
    if (this.#closed) return;
    const error = cause instanceof MigrationError
      ? cause
      : new MigrationError("cut", "Cannot go on: the connection to the destination is lost", {
        cause,
      });
    // Authentic nonsense will not get better on another connection.
    if (error.code !== "cut") return this.#lost(error);
    this.#events.onCut(error);
    this.#joining = this.#rejoin(error);
  }

  #lost(error: MigrationError): void {
    this.#close();
    this.#events.onLost(error);
  }

  async #rejoin(error: MigrationError): Promise<void> {
    const cutAtMs = this.#clock.now();
    const leftMs = Math.max(0, this.#reconnectMs - this.#disconnectedMs);
    // A network that swallows everything leaves a dial hanging: the budget ends it, too.
    const over = this.#clock.timer(leftMs, () => this.#lost(error));
    // Somebody who cuts each connection at once keeps nobody busy: that is time without one, too.
    if (this.#acknowledged > this.#acknowledgedAtCut) this.#backoffMs = 0;
    this.#acknowledgedAtCut = this.#acknowledged;
    try {
      while (!this.#closed) {
        if (this.#backoffMs > 0) await this.#pauseFor(this.#backoffMs);
        this.#backoffMs = Math.min(
          Math.max(2 * this.#backoffMs, JOIN_BACKOFF_MS.first),
          // What is waited for while the VM is stopped is downtime.
          this.#stopped ? JOIN_BACKOFF_MS.lastStopped : JOIN_BACKOFF_MS.last,
        );
        if (await this.#joinOnce()) return;
      }
    } finally {
      over.clear();
      this.#disconnectedMs += this.#clock.now() - cutAtMs;
    }
  }

  /** @returns whether there is a connection again, or nobody wants one any more */
  async #joinOnce(): Promise<boolean> {
    const tries = this.#trying = new AbortController();
    const timer = this.#clock.timer(JOIN_TIMEOUT_MS, () => tries.abort());
    let connection: Connection | null = null;
    try {
      const next = connection = await this.#join(() => {
        // Before HAVE nothing waits to be written but RESUME: the read below notices.
        if (this.#connection === connection) this.#cut(next, null);
      }, tries.signal);
      if (this.#closed) return true;
      tries.signal.addEventListener("abort", () => next[Symbol.dispose](), { once: true });
      next.send({
        type: "RESUME",
        attempt: ++this.#attempt,
        lanes: [{ lane: 0, sequence: this.#acknowledged }],
      });
      const have = await readHave(next);
      if (this.#closed) return true;
      if (have === null) return false;
      try {
        this.#goOn(next, have);
      } catch (cause) {
        if (this.#closed) return true;
        // Whoever answers next says the same, and our own side fails again.
        this.#lost(
          cause instanceof MigrationError
            ? cause
            : new MigrationError("vm", `Cannot join again: ${messageOf(cause)}`, { cause }),
        );
      }
      return true;
    } catch (failure) {
      // A stranger, or nobody, answered; or what was said broke on the way. Only what somebody who has proven the join
      // key said can end the migration.
      if (!(failure instanceof MigrationError) || failure.code !== "protocol" || this.#closed) {
        return this.#closed;
      }
      this.#lost(failure);
      return true;
    } finally {
      timer.clear();
      this.#trying = null;
      if (this.#connection !== connection) connection?.[Symbol.dispose]();
    }
  }

  /** The destination has everything below `next`, but for `mistakes`. */
  #goOn(connection: Connection, { next, mistakes }: { next: number; mistakes: number[] }): void {
    if (next <= this.#acknowledged) {
      throw new MigrationError(
        "protocol",
        `Cannot join again: record ${next} was acknowledged, and is asked for again`,
      );
    }
    this.reconnects++;
    for (const sequence of mistakes) this.#events.onMistake(sequence);
    // The last one that was used up, by us or by frames that somebody put in.
    const last = Math.max(this.#putSequence, ...mistakes.slice(-1));
    if (next - 1 > last) {
      throw new MigrationError(
        "protocol",
        `Cannot join again: record ${next - 1} was neither sent nor reported as damaged`,
      );
    }
    for (const { bytes, lastSequence } of this.window.framesFrom(next)) {
      connection.outbox.put(bytes, { data: true });
      this.#putSequence = lastSequence;
    }
    this.#putSequence = Math.max(this.#putSequence, next - 1);
    this.#adopt(connection);
    this.#acknowledge(next - 1);
    this.#events.onJoined();
  }

  async #pauseFor(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#clock.timer(ms, resolve);
    this.#wakePause = resolve;
    await promise;
    this.#wakePause = null;
    timer.clear();
  }

  // ---- the pulse ----

  /** Goes on while there is no connection: the VM may stop meanwhile. */
  #schedulePulse(): void {
    this.#pulse?.clear();
    if (this.#closed) return;
    this.#pulse = this.#clock.timer(
      this.#stopped ? PING_INTERVAL_STOPPED_MS : PING_INTERVAL_MS,
      () => {
        this.#events.onPulse();
        if (this.#closed) return;
        this.#ping();
        this.#schedulePulse();
      },
    );
  }

  #ping(): void {
    const connection = this.#connection;
    if (connection === null) return;
    const silentMs = this.#clock.now() -
      Math.max(connection.lastReadAtMs, connection.outbox.progressAtMs);
    if (silentMs > (this.#stopped ? SILENCE_STOPPED_MS : SILENCE_MS)) {
      return this.#cut(
        connection,
        new MigrationError(
          "cut",
          `Cannot go on: the destination was silent for ${Math.round(silentMs)} ms`,
        ),
      );
    }
    connection.send({
      type: "PING",
      nonce: this.#pingNonce++,
      lanes: [{ lane: 0, sequence: this.#putSequence }],
    });
  }
}

/** What the destination answers to RESUME; null when the connection ends before. */
async function readHave(
  connection: Connection,
): Promise<{ next: number; mistakes: number[] } | null> {
  const mistakes: number[] = [];
  for (let answer; (answer = await connection.nextMessage()) !== null;) {
    const { message } = answer;
    if (message.type === "MISTAKE" && message.lane === 0) mistakes.push(message.sequence);
    else if (
      message.type === "HAVE" && message.lanes.length === 1 && message.lanes[0]!.lane === 0
    ) {
      return { next: message.lanes[0]!.sequence, mistakes };
    } else {
      throw new MigrationError(
        "protocol",
        `Cannot join again: ${message.type} came instead of HAVE`,
      );
    }
  }
  return null;
}
