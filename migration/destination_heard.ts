/**
 * What a destination has heard: of its source, its QEMU, its operator. Whatever it waits for is said here.
 *
 * @see PROTOCOL.md section 7
 * @module
 */

import { MigrationError } from "./errors.ts";
import type { AbortMessage, FinishMessage, Message } from "./messages.ts";
import type { VmEnd } from "./ports.ts";
import type { DestinationState } from "./states.ts";
import { Waiter } from "./waiter.ts";

/** Facts that are only added to; each wakes who waits, and those that end a migration interrupt it. */
export class Heard {
  readonly waiter = new Waiter();
  #finish: FinishMessage | null = null;
  #released = false;
  #dismissed: MigrationError | null = null;
  #discarded = false;
  #done = false;
  #tampered = false;
  #lost: MigrationError | null = null;
  #gone = false;
  #stopAsked = false;
  #sourceWentOn = false;

  /** The last FINISH. */
  get finish(): FinishMessage | null {
    return this.#finish;
  }

  /** RELEASE came: the source never runs the VM again. */
  get released(): boolean {
    return this.#released;
  }

  /** DISCARD or ABORT came, as what ends the migration, and RELEASE not since DISCARD. */
  get dismissed(): MigrationError | null {
    return this.#dismissed;
  }

  /** It was DISCARD. */
  get discarded(): boolean {
    return this.#discarded;
  }

  /** DONE came while the VM runs here. */
  get done(): boolean {
    return this.#done;
  }

  /** The source gave up because of damage. */
  get tampered(): boolean {
    return this.#tampered;
  }

  /** No connection comes any more, and why. */
  get lost(): MigrationError | null {
    return this.#lost;
  }

  /** Our QEMU is gone. */
  get gone(): boolean {
    return this.#gone;
  }

  /** The source's `recover` has said that its VM went on there. */
  get sourceWentOn(): boolean {
    return this.#sourceWentOn;
  }

  /** See {@linkcode sourceWentOn}. */
  wentOnAtSource(): void {
    this.#sourceWentOn = true;
    this.waiter.wake();
  }

  /** The operator wishes to end it. */
  get stopAsked(): boolean {
    return this.#stopAsked;
  }

  /**
   * The source's word, heard in `state`. @returns whether it asks for what the state has to say, once more
   *
   * @throws MigrationError `protocol` when it cannot be
   */
  hear(message: Message, state: DestinationState): boolean {
    let again = false;
    switch (message.type) {
      case "FINISH":
        this.#finish = message;
        // It was loaded already, and LOADED got lost.
        again = state === "loaded";
        break;
      case "RELEASE":
        if (state in { listening: 1, receiving: 1, loading: 1 }) {
          throw new MigrationError("protocol", "Cannot go on: RELEASE came before LOADED");
        }
        this.#released = true;
        // Said after DISCARD only by a source whose VM has ended since: this may be the only copy.
        if (this.#discarded) this.#dismissed = null;
        this.#discarded = false;
        again = state in { refusing: 1, stuck: 1, running: 1, discarded: 1 };
        break;
      case "DONE":
        // Over RECOVER it may also mean that the source's side could not decide.
        this.#done = state === "running";
        break;
      case "DISCARD":
      case "ABORT":
        // It may be the only copy, and it runs; or it is gone already.
        again = state in { running: 1, discarded: 1 };
        if (again) break;
        if (message.type === "ABORT" && message.code === "tampering") this.#tampered = true;
        this.#dismissed = dismissal(message);
        this.#discarded = message.type === "DISCARD";
        this.waiter.interrupt(this.#dismissed);
        break;
      default:
        throw new MigrationError(
          "protocol",
          `Cannot go on: ${message.type} is not for a destination`,
        );
    }
    this.waiter.wake();
    return again;
  }

  /** The connection is lost for good. */
  lose(error: MigrationError): void {
    this.#lost = error;
    this.waiter.interrupt(error);
  }

  /** The VM left unasked. */
  vmEnded(end: VmEnd): void {
    if (end.kind === "gone") this.#gone = true;
    const text = end.kind === "gone" ? "its process is gone" : end.text;
    this.waiter.interrupt(
      new MigrationError("vm", `Cannot go on: the destination's QEMU failed: ${text}`),
    );
  }

  /** See {@linkcode stopAsked}. */
  stop(): void {
    this.#stopAsked = true;
    this.waiter.interrupt(
      new MigrationError("interrupted", "Cannot go on: receiving was cancelled"),
    );
  }
}

function dismissal(message: AbortMessage | { type: "DISCARD" }): MigrationError {
  if (message.type === "DISCARD") {
    return new MigrationError("interrupted", "Cannot go on: the source took the VM back");
  }
  return new MigrationError(
    message.code === "tampering" ? "tampering" : "interrupted",
    `Cannot go on: the source gave up: ${message.text}`,
  );
}
