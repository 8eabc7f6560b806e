/**
 * The two sides of `recover` meet over RECOVER (PROTOCOL.md section 7.4): one dials, the other listens; each says its
 * STATUS, then the source's side asks.
 *
 * @module
 */

import { acceptLoop } from "./accepting.ts";
import { Admission, type Recovering } from "./admission.ts";
import type { Connection } from "./connection.ts";
import { MigrationError } from "./errors.ts";
import { messageOf } from "./failure.ts";
import type { Message, StatusMessage } from "./messages.ts";
import { connect, dialled, NO_PSK, RECOVER } from "./opening.ts";
import { pause } from "./pause.ts";
import type {
  DestinationJournalState,
  SourceJournalState,
  Transport,
  TransportListener,
} from "./ports.ts";
import type { RecoveryLog } from "./recovery_log.ts";
import type { RecoveryOptions } from "./recovery_options.ts";

/** How long the other side may take to be reached, or to come where it is declared dead, in milliseconds. */
const REACH_MS = 5_000;
/** Between two dials, in milliseconds. */
const RETRY_MS = 250;
/** How long an act of the other side may take, in milliseconds. */
const ACT_MS = 60_000;

/** One side's end of the meeting. */
export class Meeting implements Disposable {
  readonly #options: RecoveryOptions;
  readonly #log: RecoveryLog<SourceJournalState | DestinationJournalState>;
  #connection: Connection | null = null;
  /** Why the other side cannot be taken for dead; null while nothing speaks against it. */
  #alive: string | null = null;

  /** Meets nobody yet. `log` is that of this side. */
  constructor(
    options: RecoveryOptions,
    log: RecoveryLog<SourceJournalState | DestinationJournalState>,
  ) {
    this.#options = options;
    this.#log = log;
  }

  /** Whether the other side was met. */
  get met(): boolean {
    return this.#connection !== null;
  }

  /**
   * Meets the other side and exchanges STATUS.
   *
   * @returns what it said; null when nobody is to be met
   * @throws {MigrationError} `interrupted` by the operator; `refused` when it was the same side
   */
  async meet(): Promise<StatusMessage | null> {
    const { meet, side, declareDead, signal } = this.#options;
    const status = "dial" in meet
      ? await this.#dial(meet.dial)
      : await this.#listen(meet.listener, declareDead ? REACH_MS : null);
    if (signal.aborted) {
      throw new MigrationError("interrupted", "Cannot go on: recover was cancelled");
    }
    if (status?.side === side) {
      throw new MigrationError(
        "refused",
        `Cannot settle this: both sides say that they were the ${side}`,
      );
    }
    return status;
  }

  /**
   * Its host is up: whether it answers, does not know us, or hangs, it is not for us to say that it is dead.
   *
   * @throws {MigrationError} `refused` when anything of the other side was seen
   */
  checkDead(): void {
    if (this.#alive === null) return;
    const other = this.#options.side === "source" ? "destination" : "source";
    throw new MigrationError("refused", `Cannot take the ${other} for dead: ${this.#alive}`, {
      hint:
        "run `recover` without --declare-dead; if it is dead all the same, somebody replays it: listen where only you can dial",
    });
  }

  /** Says `message`, if somebody was met. */
  send(message: Message): void {
    this.#connection?.send(message);
  }

  /** Says `message` and waits for one of `answers`. @throws {MigrationError} `unknownOutcome` when another comes, or none */
  async ask(message: Message, answers: readonly Message["type"][]): Promise<Message> {
    this.send(message);
    for (let next; (next = await this.next()) !== null;) {
      if (answers.includes(next.type)) return next;
      if (next.type === "RUNNING" && message.type === "DISCARD") {
        throw new MigrationError(
          "unknownOutcome",
          "Cannot discard the destination's copy: it runs",
          { hint: "run `recover` again" },
        );
      }
      if (next.type === "ABORT") {
        throw new MigrationError(
          "unknownOutcome",
          `Cannot settle this yet: the destination says: ${next.text}`,
          { hint: "mend what it says there, then run `recover` again" },
        );
      }
    }
    throw new MigrationError(
      "unknownOutcome",
      `Cannot know what became of ${message.type}: the connection was lost`,
      { hint: "run `recover` again" },
    );
  }

  /** Waits for what it says next; null when it says nothing any more, or for too long. */
  async next(): Promise<Message | null> {
    const connection = this.#connection;
    return connection === null ? null : await this.#nextOf(connection);
  }

  /** Tells the other side that this one has done all that it will do. */
  async leave(): Promise<void> {
    this.send({ type: "DONE" });
    await this.#connection?.finish(1_000);
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.#connection?.[Symbol.dispose]();
  }

  async #dial(dial: () => Promise<Transport>): Promise<StatusMessage | null> {
    const { clock, signal } = this.#options;
    const untilMs = clock.now() + REACH_MS;
    let why = "the other side does not answer";
    while (clock.now() < untilMs && !signal.aborted) {
      const tries = new AbortController();
      const stop = () => tries.abort();
      const timer = clock.timer(REACH_MS, stop);
      signal.addEventListener("abort", stop);
      try {
        const transport = await dialled(dial(), tries.signal);
        this.#alive = "something listens there that does not accept this side";
        const status = await this.#greet(transport);
        if (status !== null) return status;
      } catch (error) {
        why = messageOf(error);
      } finally {
        timer.clear();
        signal.removeEventListener("abort", stop);
      }
      await pause(RETRY_MS, this.#options);
    }
    this.#log.note(why);
    return null;
  }

  async #greet(transport: Transport): Promise<StatusMessage | null> {
    const { identity, peerKey, clock, id } = this.#options;
    const status = await this.#status();
    const { connection } = await connect(transport, {
      identity,
      remotePublic: peerKey,
      migrationId: fromHex(id),
      clock,
      kind: RECOVER,
      psk: NO_PSK,
      onCut: () => {},
    });
    connection.send(status);
    const answer = await this.#nextOf(connection);
    if (answer?.type === "STATUS") return this.#meets(connection, answer);
    connection[Symbol.dispose]();
    return null;
  }

  async #listen(listener: TransportListener, forMs: number | null): Promise<StatusMessage | null> {
    const { identity, peerKey, clock, signal, id } = this.#options;
    const isOurs = (migrationId: string) => {
      if (migrationId !== id) return false;
      // Message 1 names its key: whatever it wants, it lives, unless somebody replays one.
      this.#alive ??= "its agent dials this side, or somebody who has recorded how it did";
      return true;
    };
    const admission = new Admission({
      identity,
      allowed: [peerKey],
      clock,
      joinKey: (migrationId) => {
        isOurs(migrationId);
        return null;
      },
      mayRecover: isOurs,
    });
    const found = Promise.withResolvers<Recovering | null>();
    let taken = false;
    const letIn = async (transport: Transport) => {
      const admitted = await admission.admit(transport);
      if (admitted === null) return;
      if (!isOurs(admitted.migrationId) || admitted.kind !== RECOVER || taken) {
        return admitted.connection[Symbol.dispose]();
      }
      taken = true;
      found.resolve(admitted);
    };
    // Side by side: a silent connection keeps nobody out.
    const accepting = acceptLoop(listener, {
      clock,
      onTransport: (transport) => void letIn(transport),
    });
    const stop = () => accepting.close();
    const timer = forMs === null ? null : clock.timer(forMs, stop);
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    // Closed: nobody came in time, or the operator ended it.
    accepting.ended.then(() => found.resolve(null));
    try {
      const admitted = await found.promise;
      if (admitted === null) return null;
      const { connection, status } = admitted;
      this.#meets(connection, status);
      connection.send(await this.#status());
      return status;
    } finally {
      timer?.clear();
      signal.removeEventListener("abort", stop);
      accepting.close();
      admission.close();
      await accepting.ended;
    }
  }

  #meets(connection: Connection, status: StatusMessage): StatusMessage {
    this.#connection = connection;
    this.#alive = "it answers";
    return status;
  }

  /** As it is now, not when the waiting began. */
  async #status(): Promise<StatusMessage> {
    const { vm, side } = this.#options;
    const { runState, migration } = await vm.status();
    return { type: "STATUS", side, journal: this.#log.last, runState, migration };
  }

  async #nextOf(connection: Connection): Promise<Message | null> {
    const { clock, signal } = this.#options;
    const stop = () => connection[Symbol.dispose]();
    const timer = clock.timer(ACT_MS, stop);
    signal.addEventListener("abort", stop);
    try {
      return (await connection.nextMessage())?.message ?? null;
    } catch {
      return null;
    } finally {
      timer.clear();
      signal.removeEventListener("abort", stop);
    }
  }
}

function fromHex(id: string): Uint8Array {
  return Uint8Array.from(
    { length: id.length / 2 },
    (_, i) => parseInt(id.slice(2 * i, 2 * i + 2), 16),
  );
}
