/**
 * The destination's end of the wire: frames in order, records opened, acknowledgements and mistakes
 * reported, and the connections that take each other's place (PROTOCOL.md sections 4 to 6).
 *
 * @module
 */

import type { Connection } from "./connection.ts";
import { DamagedSequences } from "./damaged_sequences.ts";
import { MigrationError } from "./errors.ts";
import { type Frame, FRAME_DATA } from "./frame.ts";
import {
  ACK_DELAY_MS,
  ACK_INTERVAL_BYTES,
  ACK_INTERVAL_MS,
  MAX_HITS,
  SILENCE_MS,
} from "./limits.ts";
import { decodeMessage, type LanePosition, type Message, type ResumeMessage } from "./messages.ts";
import type { Clock } from "./ports.ts";
import type { RecordContent } from "./record_content.ts";
import type { RecordOpener } from "./record_opener.ts";

/** How long records may land without a break, in milliseconds: less than any silence that counts as a cut. */
const BUSY_MS = 100;

/** MISTAKEs of a JOIN that are put into the queue at once: each takes some 70 bytes. */
const MISTAKES_AT_ONCE = 1_000;

/** What a link tells its user. */
export interface DestinationLinkEvents {
  /** A record that opened. @throws what cannot be landed; the promise too */
  onRecord(record: RecordContent): void | Promise<void>;
  /** A control message that is not the link's own. @throws MigrationError `protocol` when it cannot be */
  onMessage(message: Message): void;
  /** A record that did not open: it was skipped and reported. */
  onMistake(sequence: number): void;
  /** The connection is cut. @returns whether to wait for another */
  onCut(error: MigrationError): boolean;
  /** Another connection has taken over: say again what the state wants said. */
  onJoined(): void;
  /** Our own side cannot go on; the connection is good. */
  onFault(error: MigrationError): void;
  /** Nobody comes any more: the reconnect budget is used up, or the other side is broken. */
  onLost(error: MigrationError): void;
}

/** See the module. One lane. */
export class DestinationLink implements Disposable {
  /** Damaged records of all connections. */
  readonly damaged: DamagedSequences;
  /** The first of them, with when they were found; what they held only the source knows. */
  readonly hits: { time: string; what: string }[] = [];
  readonly #opener: RecordOpener;
  readonly #clock: Clock;
  readonly #events: DestinationLinkEvents;
  readonly #reconnectMs: number;
  #connection: Connection | null = null;
  /** The one that waits to take over. */
  #next: Connection | null = null;
  /** The attempt of the last RESUME. */
  #attempt = 0;
  #acknowledged = 0;
  #acknowledgedAtMs = 0;
  #unacknowledgedBytes = 0;
  #ackTimer: { clear(): void } | null = null;
  /** A landing that is waited for: nothing is read meanwhile, so that silence says nothing, and nobody takes over. */
  #landing: Promise<void> | null = null;
  #silence: { clear(): void } | null = null;
  #silenceMs: number = SILENCE_MS;
  #waiting: { clear(): void } | null = null;
  #disconnectedMs = 0;
  #readBefore = 0;
  #refusesRecords = false;
  /** Nobody takes over any more. */
  #over = false;
  /** Records that opened. */
  records = 0;
  /** Connections after the first. */
  reconnects = 0;

  constructor(options: {
    opener: RecordOpener;
    budgetBytes: number;
    /** Total time without a connection. */
    reconnectMs: number;
    clock: Clock;
    events: DestinationLinkEvents;
  }) {
    this.#opener = options.opener;
    this.#clock = options.clock;
    this.#events = options.events;
    this.#reconnectMs = options.reconnectMs;
    this.damaged = new DamagedSequences(options.budgetBytes);
  }

  /** Whether there is a connection now. */
  get connected(): boolean {
    return this.#connection !== null;
  }

  /** The sequence that must come next. */
  get nextSequence(): number {
    return this.#opener.nextSequence;
  }

  /** Bytes that came, over all connections. */
  get readBytes(): number {
    return this.#readBefore + (this.#connection?.readBytes ?? 0);
  }

  /** Says a control message; nothing while there is no connection: `onJoined` is the time to say it again. */
  send(message: Message): void {
    this.#connection?.send(message);
  }

  /** FINISH was said: a record that comes now is somebody else's. */
  refuseRecords(): void {
    this.#refusesRecords = true;
  }

  /**
   * A connection that takes over by other means waits until nothing is landing. @returns false when a later one has
   * come meanwhile: this one is closed then
   */
  async replace(connection: Connection): Promise<boolean> {
    if (this.#over) {
      connection[Symbol.dispose]();
      return false;
    }
    this.#waitFor(connection);
    await this.letGo();
    return this.#next === connection;
  }

  /** Reads the first connection, or one that took over, until it ends, is silent for too long, or another takes over. */
  async serve(connection: Connection, { silenceMs = SILENCE_MS } = {}): Promise<void> {
    this.#drop();
    this.#silenceMs = silenceMs;
    this.#adopt(connection);
    await this.#read(connection);
  }

  /**
   * Another connection of the same migration: it takes over once the record in hand is processed. Resolves when it has
   * ended; closes it when it cannot be.
   */
  async join(connection: Connection, resume: ResumeMessage): Promise<void> {
    const { attempt, lanes } = resume;
    const position = lanes.length === 1 && lanes[0]!.lane === 0 ? lanes[0]!.sequence : Infinity;
    if (attempt <= this.#attempt || position >= this.nextSequence) {
      return connection[Symbol.dispose]();
    }
    this.#attempt = attempt;
    if (this.#over) return connection[Symbol.dispose]();
    this.#waitFor(connection);
    await this.letGo();
    // One that came meanwhile is later; and it may be over.
    if (this.#attempt !== attempt || this.#next !== connection) {
      return connection[Symbol.dispose]();
    }
    // Who takes over and then reads nothing is not there either.
    this.waitForAnother(() => this.#events.onLost(lost()));
    let said = 0;
    for (const sequence of this.damaged.above(position)) {
      connection.send({ type: "MISTAKE", lane: 0, sequence });
      // Not more than may wait to be written.
      if (++said % MISTAKES_AT_ONCE === 0) await connection.outbox.drained();
    }
    if (this.#next !== connection) return connection[Symbol.dispose]();
    this.#acknowledged = this.nextSequence - 1;
    connection.send({ type: "HAVE", lanes: [{ lane: 0, sequence: this.nextSequence }] });
    this.reconnects++;
    this.#adopt(connection);
    this.#events.onJoined();
    await this.#read(connection);
  }

  /** Listens to the connection of now no more; what it carried half was never processed. Resolves when nothing is landing. */
  async letGo(): Promise<void> {
    this.#drop();
    await this.#landing?.catch(() => {});
  }

  /** Counts time without a connection from now on, if there is none; `onOver` is called when the budget is used up. */
  waitForAnother(onOver: () => void): void {
    if (this.#connection === null && this.#waiting === null) this.#wait(onOver);
  }

  /** FINISH and PING say what was sent last. @throws MigrationError `cut` when frames were put in or taken out: another connection puts that right */
  checkDue(lanes: readonly LanePosition[]): void {
    if (
      lanes.length === 1 && lanes[0]!.lane === 0 && lanes[0]!.sequence + 1 === this.nextSequence
    ) return;
    throw new MigrationError(
      "cut",
      `Cannot go on: record ${this.nextSequence} is due, the source sent others`,
    );
  }

  /** Writes what waits, for at most `withinMs`, and closes. */
  async finish(withinMs: number): Promise<void> {
    this.#over = true;
    this.#next?.[Symbol.dispose]();
    this.#next = null;
    this.#clearTimers();
    await this.#connection?.finish(withinMs);
  }

  /** Closes the connection and wipes the keys. */
  [Symbol.dispose](): void {
    this.#over = true;
    this.#drop();
    this.#next?.[Symbol.dispose]();
    this.#next = null;
    this.#clearTimers();
    this.#opener[Symbol.dispose]();
  }

  /** One may wait to take over, whoever else has dialled: each holds a buffer. */
  #waitFor(connection: Connection): void {
    this.#next?.[Symbol.dispose]();
    this.#next = connection;
  }

  #adopt(connection: Connection): void {
    this.#next = null;
    this.#waiting?.clear();
    this.#connection = connection;
    this.#watchSilence(connection);
  }

  #drop(): void {
    const connection = this.#connection;
    if (connection === null) return;
    this.#connection = null;
    this.#readBefore += connection.readBytes;
    this.#silence?.clear();
    connection[Symbol.dispose]();
  }

  #clearTimers(): void {
    this.#ackTimer?.clear();
    this.#silence?.clear();
    this.#waiting?.clear();
  }

  // ---- frames ----

  async #read(connection: Connection): Promise<void> {
    try {
      for (;;) {
        let busySinceMs = this.#clock.now();
        let frame: Frame | null;
        while (this.#connection === connection && (frame = connection.reader.next()) !== null) {
          const landing = this.#frame(connection, frame);
          if (landing === undefined && this.#clock.now() - busySinceMs < BUSY_MS) continue;
          // Memory that is touched for the first time is slow: the source hears that we are at it.
          this.#landing = landing ?? this.#breathe();
          try {
            await this.#landing;
          } finally {
            this.#landing = null;
          }
          busySinceMs = connection.lastReadAtMs = this.#clock.now();
        }
        if (this.#connection !== connection) return;
        this.#scheduleAck();
        if (!await connection.reader.fill()) break;
        connection.lastReadAtMs = this.#clock.now();
      }
      this.#ended(connection, null);
    } catch (cause) {
      this.#ended(connection, cause);
    }
  }

  /** Lets timers, writes and signals have their turn. */
  async #breathe(): Promise<void> {
    this.#ack();
    const turn = Promise.withResolvers<void>();
    this.#clock.timer(0, turn.resolve);
    await turn.promise;
  }

  #frame(connection: Connection, frame: Frame): void | Promise<void> {
    if (frame.kind !== FRAME_DATA) {
      const bytes = connection.open(frame);
      if (bytes !== null) this.#message(decodeMessage(bytes));
      return;
    }
    if (this.#refusesRecords) {
      throw new MigrationError("cut", "Cannot go on: a record came after FINISH");
    }
    const record = this.#opener.open(frame.payload);
    this.#unacknowledgedBytes += frame.payload.length;
    if (record.type === "mistake") {
      this.#mistake(frame.header.length + frame.payload.length);
      return this.#ackIfDue();
    }
    this.records++;
    // The source waits for these two to arrive: SETUP before it sends a page, STATE with the VM stopped.
    const urgent = record.type === "setup" || record.type === "state";
    const landing = this.#events.onRecord(record);
    if (landing !== undefined) return landing.then(() => urgent ? this.#ack() : this.#ackIfDue());
    if (urgent) this.#ack();
    else this.#ackIfDue();
  }

  #message(message: Message): void {
    if (message.type !== "PING") return this.#events.onMessage(message);
    this.checkDue(message.lanes);
    this.send({ type: "PONG", nonce: message.nonce });
  }

  #mistake(sealedBytes: number): void {
    const sequence = this.nextSequence - 1;
    // Always before the ACK that covers it.
    this.send({ type: "MISTAKE", lane: 0, sequence });
    if (this.hits.length < MAX_HITS) {
      this.hits.push({ time: this.#clock.date().toISOString(), what: `record ${sequence}` });
    }
    this.#events.onMistake(sequence);
    this.damaged.add(sequence, sealedBytes);
  }

  #ackIfDue(): void {
    const late = this.#clock.now() - this.#acknowledgedAtMs >= ACK_INTERVAL_MS;
    if (late || this.#unacknowledgedBytes >= ACK_INTERVAL_BYTES) this.#ack();
  }

  /** The input is drained: says so, but not once for each of many small reads. */
  #scheduleAck(): void {
    if (this.#ackTimer !== null || this.#acknowledged === this.nextSequence - 1) return;
    this.#ackTimer = this.#clock.timer(ACK_DELAY_MS, () => {
      this.#ackTimer = null;
      this.#ack();
    });
  }

  #ack(): void {
    const sequence = this.nextSequence - 1;
    if (sequence === this.#acknowledged) return;
    this.#acknowledged = sequence;
    this.#acknowledgedAtMs = this.#clock.now();
    this.#unacknowledgedBytes = 0;
    this.send({ type: "ACK", lane: 0, sequence });
  }

  // ---- cuts ----

  #ended(connection: Connection, cause: unknown): void {
    const error = cause instanceof MigrationError ? cause : lost(cause);
    // Also of a landing that another connection waits for: it is about to say that it has landed.
    if (error.code in { vm: 1, journal: 1, interrupted: 1, tampering: 1 }) {
      return this.#events.onFault(error);
    }
    if (this.#connection !== connection) return;
    this.#drop();
    const waits = this.#events.onCut(error);
    // Authentic nonsense will not get better on another connection.
    if (error.code !== "cut") return this.#events.onLost(error);
    if (waits) this.#wait(() => this.#events.onLost(error));
  }

  /** Counts time without a connection against the budget. */
  #wait(onOver: () => void): void {
    const fromMs = this.#clock.now();
    const timer = this.#clock.timer(Math.max(0, this.#reconnectMs - this.#disconnectedMs), () => {
      end();
      onOver();
    });
    const end = () => {
      timer.clear();
      this.#disconnectedMs += this.#clock.now() - fromMs;
      this.#waiting = null;
    };
    this.#waiting = { clear: end };
  }

  #watchSilence(connection: Connection): void {
    this.#silence?.clear();
    this.#silence = this.#clock.timer(this.#silenceMs / 4, () => {
      if (this.#connection !== connection || connection.closed) return;
      const silentMs = this.#clock.now() - connection.lastReadAtMs;
      if (this.#landing !== null || silentMs <= this.#silenceMs) {
        return this.#watchSilence(connection);
      }
      this.#ended(
        connection,
        new MigrationError(
          "cut",
          `Cannot go on: the source was silent for ${Math.round(silentMs)} ms`,
        ),
      );
    });
  }
}

function lost(cause?: unknown): MigrationError {
  return new MigrationError("cut", "Cannot go on: the connection to the source is lost", { cause });
}
