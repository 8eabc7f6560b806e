/**
 * What source and destination say to each other about the switchover, from FINISH on: each message is said again on
 * every new connection, from the state of whoever says it, and changes nothing when it comes twice.
 *
 * @see PROTOCOL.md sections 6 and 7
 * @module
 */

import { MigrationError } from "./errors.ts";
import type { AbortMessage, FinishMessage, Message } from "./messages.ts";
import type { Clock } from "./ports.ts";
import type { SourceState } from "./states.ts";

/** What a {@linkcode SourceDialogue} works with. */
export interface SourceDialogueOptions {
  clock: Clock;
  /** Where the source is. */
  state: () => SourceState;
  /** Says it; nothing while there is no connection. */
  send: (message: Message) => void;
  /** What FINISH says. */
  finish: () => Omit<FinishMessage, "type">;
  /** The destination has ended it. */
  giveUp: (reason: MigrationError) => void;
}

/** The source's side. See the module. */
export class SourceDialogue {
  readonly #options: SourceDialogueOptions;
  #finishSaid = false;
  #releaseSaid = false;
  /** What ABORT says, once the VM is seen to run here. */
  #abortion: AbortMessage | null = null;
  #loaded: { pages: number; records: number } | null = null;
  #running: { atMs: number; sinceResumeUs: number } | null = null;
  #refusal: AbortMessage | null = null;
  #discarded = false;
  #lost: MigrationError | null = null;

  constructor(options: SourceDialogueOptions) {
    this.#options = options;
  }

  /** LOADED: what the destination authenticated and landed. */
  get loaded(): { pages: number; records: number } | null {
    return this.#loaded;
  }

  /** RUNNING: when it came first, and how long the VM had been running there when it was said. */
  get running(): { atMs: number; sinceResumeUs: number } | null {
    return this.#running;
  }

  /** ABORT: the destination cannot go on. */
  get refusal(): AbortMessage | null {
    return this.#refusal;
  }

  /** DISCARDED: the copy over there is gone. */
  get discarded(): boolean {
    return this.#discarded;
  }

  /** Why nothing more will be heard: the connection is lost for good; null while it is not. */
  get lost(): MigrationError | null {
    return this.#lost;
  }

  /** Whether the destination may have loaded the VM. */
  get finishSaid(): boolean {
    return this.#finishSaid;
  }

  // ---- what we say ----

  /** Everything is sent. */
  finish(): void {
    this.#finishSaid = true;
    this.sayAgain();
  }

  /** The VM is the destination's. */
  release(): void {
    this.#releaseSaid = true;
    this.sayAgain();
  }

  /** The VM is seen to be here, and stays. */
  abort(message: AbortMessage): void {
    this.#abortion = message;
    this.sayAgain();
  }

  /** The copy over there must go. */
  discard(): void {
    this.#options.send({ type: "DISCARD" });
  }

  /** The source has nothing more to do. */
  done(): void {
    this.#options.send({ type: "DONE" });
  }

  /** Says what the state wants said; DISCARD apart, which is not said without looking first. */
  sayAgain(): void {
    const { state, send, finish } = this.#options;
    switch (state()) {
      case "finishing":
      case "releasing":
        if (!this.#finishSaid) return;
        return send({ type: "FINISH", ...finish() });
      case "released":
        return send({ type: "RELEASE" });
      case "aborting":
        if (this.#abortion !== null) send(this.#abortion);
    }
  }

  // ---- what we hear ----

  /** A control message has come. @throws MigrationError `protocol` when it cannot be */
  hear(message: Message): void {
    const { clock, state, giveUp } = this.#options;
    switch (message.type) {
      case "LOADED":
        if (!this.#finishSaid) throw tooEarly(message);
        this.#loaded = { pages: message.pages, records: message.records };
        return;
      case "RUNNING":
        if (!this.#releaseSaid) throw tooEarly(message);
        this.#running ??= { atMs: clock.now(), sinceResumeUs: message.sinceResumeUs };
        return;
      case "DISCARDED":
        this.#discarded = true;
        // Unasked: it was ended over there. In every later state somebody waits for this.
        if (state() in { starting: 1, setup: 1, copying: 1, stopping: 1, finishing: 1 }) {
          giveUp(new MigrationError("vm", "Cannot go on: the destination discarded its copy"));
        }
        return;
      case "ABORT":
        this.#refusal = message;
        return giveUp(
          new MigrationError(
            message.code === "tampering" ? "tampering" : "vm",
            `Cannot go on: the destination gave up: ${message.text}`,
          ),
        );
      default:
        throw new MigrationError("protocol", `Cannot go on: ${message.type} is not for a source`);
    }
  }

  /** The refusal is dealt with: only another one counts. */
  takeRefusal(): AbortMessage | null {
    const refusal = this.#refusal;
    this.#refusal = null;
    return refusal;
  }

  /** The connection is lost for good. */
  breakOff(error: MigrationError): void {
    this.#lost = error;
  }
}

function tooEarly({ type }: Message): MigrationError {
  return new MigrationError("protocol", `Cannot go on: ${type} came before its time`);
}
