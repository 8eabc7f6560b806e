/**
 * The switchover at the destination: FINISH is checked, the VM loaded, and run once the source has said RELEASE; and
 * the ways out of it.
 *
 * @see PROTOCOL.md sections 7.1 and 7.2
 * @module
 */

import type { Candidate } from "./candidate.ts";
import type { DestinationDialogue } from "./destination_dialogue.ts";
import type { Heard } from "./destination_heard.ts";
import type { DestinationJournal } from "./destination_journal.ts";
import type { DestinationOptions } from "./destination_options.ts";
import type { Place } from "./destination_place.ts";
import { DestinationWatch } from "./destination_watch.ts";
import { MigrationError } from "./errors.ts";
import { abortMessage, messageOf, unknownOutcome } from "./failure.ts";
import { unlessHung } from "./hang.ts";
import type { IncomingSide } from "./incoming_side.ts";
import type { FinishMessage } from "./messages.ts";
import type { MigrationResult } from "./result.ts";
import { type DestinationState, destinationTransitions, StateMachine } from "./states.ts";

/** Between two tries of `cont`, in milliseconds: an image lock goes when the source's process does. */
const RETRY_MS = 200;

/** What a takeover works with. */
export interface TakeoverParts {
  place: Place;
  heard: Heard;
  journal: DestinationJournal;
  incoming: IncomingSide;
  dialogue: DestinationDialogue;
}

/** Moves the destination's machine: {@linkcode load}, {@linkcode takeOver}, and {@linkcode leave} when either throws. */
export class Takeover {
  readonly #options: DestinationOptions;
  readonly #place: Place;
  readonly #heard: Heard;
  readonly #journal: DestinationJournal;
  readonly #incoming: IncomingSide;
  readonly #dialogue: DestinationDialogue;
  readonly #watch: DestinationWatch;
  readonly #machine: StateMachine<DestinationState>;
  #lastState: DestinationState = "listening";
  #loadedOnce = false;
  #destinationState: MigrationResult["destinationState"] = null;

  /** Begins in `listening`. */
  constructor(options: DestinationOptions, parts: TakeoverParts) {
    this.#options = options;
    this.#place = parts.place;
    this.#heard = parts.heard;
    this.#journal = parts.journal;
    this.#incoming = parts.incoming;
    this.#dialogue = parts.dialogue;
    this.#watch = new DestinationWatch({ ...parts, vm: options.vm });
    this.#machine = new StateMachine<DestinationState>("listening", {
      transitions: destinationTransitions,
      entered: options.entered,
    });
  }

  /** Where the migration is. */
  get state(): DestinationState {
    return this.#machine.state;
  }

  /** The same, before how it ended. */
  get lastState(): DestinationState {
    return this.#lastState;
  }

  /** Where the VM stands here; null where nothing was loaded. */
  get destinationState(): MigrationResult["destinationState"] {
    return this.#destinationState;
  }

  /** QEMU was given EOF, or was about to be. */
  get loadedOnce(): boolean {
    return this.#loadedOnce;
  }

  // ---- the steps ----

  /** Step 2. @throws MigrationError when the VM cannot be loaded, or must not be */
  async load(candidate: Candidate): Promise<void> {
    const { waiter } = this.#heard;
    await this.#enter("receiving");
    const finish = await waiter.until(() => this.#heard.finish);
    const { queue } = candidate;
    if (!isWhatCame(finish, candidate) || queue.state === null) {
      throw new MigrationError(
        "protocol",
        "Cannot load the VM: what came is not what the source says it sent",
      );
    }
    await this.#enter("loading");
    waiter.check();
    // From the first byte of EOF on no timer and no Ctrl-C discards: only the source's word, or QEMU's failure.
    waiter.shield();
    this.#loadedOnce = true;
    let hung = false;
    try {
      hung = await unlessHung(queue.sink!.load(queue.state), {
        waiter,
        clock: this.#options.clock,
        unwanted: () =>
          this.#heard.dismissed !== null || this.#heard.lost !== null || this.#heard.stopAsked,
      }) === "hung";
    } catch (error) {
      // What runs was loaded whole: it is as if somebody ran it a moment later.
      if (!this.#watch.ran || this.#heard.gone) return await this.#notLoaded(error);
    }
    if (hung) throw await this.#hangs();
    try {
      await this.#journal.append("loaded");
    } catch (error) {
      return await this.#refuse(error);
    }
    await this.#enter("loaded");
    // Whoever asked for the end meanwhile must not be released: the source goes on instead.
    if (!this.#heard.stopAsked) this.#dialogue.sayAgain();
  }

  /**
   * An error alone lets nothing go: QEMU may have loaded all the same, and even run. Only one that is seen to hold nothing
   * is ended; any other waits for the source's word.
   */
  async #notLoaded(error: unknown): Promise<void> {
    if (this.#watch.ran || !await this.#watch.holdsNothing()) await this.#refuse(error);
    throw error;
  }

  /** On the source's word it is ended, in the end by force; without it this may be the only copy. @returns the error to leave with */
  async #hangs(): Promise<MigrationError> {
    const { dismissed } = this.#heard;
    if (dismissed !== null) return await this.#mustStay() ?? dismissed;
    await this.#keep("unknown");
    return unknownOutcome(new Error("the destination's QEMU hangs while it loads the VM"));
  }

  /** Somebody else runs it. */
  async vmRan(): Promise<void> {
    await this.#watch.journalRan().catch((error) => this.#note(messageOf(error)));
  }

  /**
   * The VM went on at the source (`ran`), or is about to: alone nobody may run this copy. What ran there no RELEASE takes
   * back.
   */
  async journalWentOn({ ran = false } = {}): Promise<void> {
    await this.#journal.appendSourceWentOn(ran ? { sourceRan: true } : {}).catch((error) =>
      this.#note(
        `The VM may run at the source, and the journal does not say so (${
          messageOf(error)
        }): never run \`recover\` here without the source`,
      )
    );
  }

  /** Steps 4 and 5, after {@linkcode load}. @throws MigrationError when the VM does not run here */
  async takeOver(candidate: Candidate): Promise<void> {
    const heard = this.#heard;
    const { before } = candidate.admitted.offer;
    await heard.waiter.until(() =>
      heard.released || heard.dismissed || heard.gone || heard.lost || heard.stopAsked
    );
    const { dismissed } = heard;
    if (dismissed !== null) throw await this.#mustStay() ?? dismissed;
    if (heard.gone) {
      const error = await this.#gone();
      if (this.state === "unknown") throw error;
      return await this.#refuse(error);
    }
    if (!heard.released) {
      await this.#keep();
      throw new MigrationError(
        "unknownOutcome",
        `Cannot know whether the VM may run here: ${
          heard.stopAsked ? "receiving was cancelled" : "the connection is lost"
        } after it was loaded`,
        { cause: heard.lost },
      );
    }
    await this.#enter("taking");
    // RELEASE of a `recover` that found its QEMU gone waits for an answer.
    if (heard.sourceWentOn) throw await this.#wentOnThere({ asked: true });
    const resumedAtMs = await this.#run(candidate);
    const announced = before === "running" ? this.#options.vm.announce() : Promise.resolve();
    this.#destinationState = before;
    // The VM runs: a full disk changes nothing about that.
    await this.#journal.append("running").catch((error) => this.#note(messageOf(error)));
    // A connection that comes meanwhile is told, too.
    this.#dialogue.ran(resumedAtMs);
    await this.#enter("running");
    this.#dialogue.sayAgain();
    await announced;
    await heard.waiter.until(() => heard.done || heard.lost || heard.stopAsked);
  }

  /**
   * After EOF, without a way to `taking`: says so, and discards when the source says so too. Without its word a copy
   * that is still there stays: it may be the only one.
   */
  async #refuse(error: unknown): Promise<never> {
    const heard = this.#heard;
    await this.#enter("refusing");
    if (heard.gone && this.#watch.ran) throw await this.#gone(error);
    this.#dialogue.refuse(abortMessage(error));
    this.#dialogue.sayAgain();
    await heard.waiter.until(() => heard.dismissed || heard.lost || heard.stopAsked);
    if (heard.gone && this.#watch.ran) throw await this.#gone(error);
    if (heard.dismissed === null && !heard.gone) {
      await this.#keep();
      throw new MigrationError("unknownOutcome", `Cannot take the VM: ${messageOf(error)}`, {
        cause: error,
      });
    }
    throw await this.#mustStay() ?? error;
  }

  /**
   * DISCARD or ABORT came. Who says DISCARD would run it now: a copy that ran here is newer than one that did not there.
   * @returns the error to leave with; null when it may go
   */
  async #mustStay(): Promise<MigrationError | null> {
    const { dismissed } = this.#heard;
    if (dismissed === null || this.#ranThere || !this.#watch.ran) return null;
    await this.#keep();
    return new MigrationError("unknownOutcome", "Cannot discard the VM: it ran here", {
      cause: dismissed,
    });
  }

  /** Who says ABORT has seen its VM run, if it did before. */
  get #ranThere(): boolean {
    const { dismissed, discarded } = this.#heard;
    const { before } = this.#place.bound!.admitted.offer;
    return dismissed !== null && !discarded && before === "running";
  }

  /**
   * Journal `taking`, then `cont`, again and again while either fails; never discards unasked: this may be
   * the only copy. @returns the monotonic ms of RESUME
   */
  async #run(candidate: Candidate): Promise<number> {
    const { vm, clock } = this.#options;
    const heard = this.#heard;
    const { before, limits } = candidate.admitted.offer;
    const untilMs = clock.now() + limits.maxStopMs;
    let failure: unknown = null;
    let told = false;
    for (;;) {
      if (told && heard.dismissed === null) {
        // RELEASE has come since DISCARD.
        told = false;
        await this.#journal.append("taking").catch((error) => this.#note(messageOf(error)));
      }
      let letGo = false;
      let left = false;
      const { dismissed } = heard;
      if (heard.sourceWentOn) throw await this.#wentOnThere({ asked: false });
      try {
        // RELEASE may have come meanwhile.
        letGo = dismissed !== null && await this.#watch.neverRan() &&
          heard.dismissed !== null;
        if (!letGo) {
          if (!this.#journal.taken) await this.#journal.append("taking");
          const runs = before === "running";
          left = runs ? await this.#watch.hasLeft() : await this.#watch.stoodAndLeft(before);
          // The disk and QEMU may have taken a while.
          if (heard.sourceWentOn || heard.dismissed !== dismissed) continue;
          if (!left) return runs ? await vm.run() : clock.now();
        }
      } catch (error) {
        if (heard.gone) throw await this.#gone(error);
        failure = error;
        if (this.state !== "stuck") {
          await this.#enter("stuck");
          this.#dialogue.refuse({ ...abortMessage(error), code: "cannotRun" });
          this.#dialogue.sayAgain();
        }
        if (heard.dismissed !== null && !told) {
          told = this.#journal.taken;
          await this.journalWentOn();
        }
        if (clock.now() >= untilMs || heard.stopAsked) {
          await this.#keep();
          throw new MigrationError("unknownOutcome", `Cannot run the VM: ${messageOf(error)}`, {
            cause: error,
          });
        }
        const pause = Promise.withResolvers<void>();
        clock.timer(RETRY_MS, pause.resolve);
        await pause.promise;
      }
      if (letGo) throw failure ?? heard.dismissed;
      if (left) {
        await this.#keep();
        throw new MigrationError(
          "unknownOutcome",
          "Cannot run the VM: somebody ran it here, and it was moved on by another migration",
        );
      }
    }
  }

  /** It runs here no more: it goes when the source's word comes. @returns the error to leave with */
  async #wentOnThere({ asked }: { asked: boolean }): Promise<MigrationError> {
    const heard = this.#heard;
    const text = "it went on at the source, as `recover` there says";
    if (this.state !== "stuck") await this.#enter("stuck");
    this.#dialogue.refuse({ type: "ABORT", code: "vm", text });
    // Unasked, `recover` would take it for the answer to what it says.
    if (asked) this.#dialogue.sayAgain();
    await heard.waiter.until(() => heard.dismissed || heard.lost || heard.stopAsked || heard.gone);
    if (heard.gone) return await this.#gone();
    const { dismissed } = heard;
    if (dismissed !== null && await this.#watch.neverRan().catch(() => false)) return dismissed;
    await this.#keep();
    return new MigrationError("unknownOutcome", `Cannot run the VM: ${text}`);
  }

  /**
   * Our QEMU is gone. One that was seen to run took memory with it that nobody else has: no copy may be taken for the
   * VM without somebody's word, and the journal must not say that it never ran. @returns the error to leave with
   */
  async #gone(cause?: unknown): Promise<MigrationError> {
    const text = "the destination's QEMU is gone";
    if (!this.#watch.ran) {
      return new MigrationError("vm", `Cannot run the VM: ${text}`, { cause });
    }
    await this.vmRan();
    this.#destinationState = "unknown";
    if (this.state !== "unknown") await this.#enter("unknown");
    return new MigrationError("unknownOutcome", `Cannot go on: the VM ran here, and ${text}`, {
      cause,
    });
  }

  /** The copy stays: it may be the only one, and nobody here can know. */
  async #keep(stands: "paused" | "unknown" = "paused"): Promise<void> {
    const { ran } = this.#watch;
    if (ran) await this.vmRan();
    this.#destinationState = ran ? "unknown" : stands;
    await this.#enter("unknown");
  }

  // ---- the ways out ----

  /** Ends our side after `error`: discards what may be discarded, and says so. @returns `error`, or what is worse */
  async leave(error: unknown): Promise<unknown> {
    const { vm } = this.#options;
    const heard = this.#heard;
    const note = (cause: unknown) => this.#note(messageOf(cause));
    if (this.state === "unknown" || this.state === "running") return error;
    await this.#incoming.settled();
    if (this.state === "listening" || (this.state === "receiving" && !this.#incoming.touched)) {
      this.#dialogue.abort(error);
      await vm.restore().catch(note);
      if (this.#journal.isOpen) await this.#journal.append("discarded").catch(() => {});
      await this.#enter("failed");
      return error;
    }
    if (
      this.state in { loaded: 1, taking: 1, stuck: 1 } && heard.dismissed === null && !heard.gone
    ) {
      await this.#enter("unknown");
      return error;
    }
    if (heard.dismissed === null) this.#dialogue.abort(error);
    await this.#enter("discarding");
    this.#incoming.close();
    try {
      await vm.quit();
    } catch (cause) {
      // It is still there, and alone nobody may run it.
      await this.journalWentOn();
      if (this.#loadedOnce) {
        await this.#keep("unknown");
        return unknownOutcome(cause);
      }
      note(cause);
      return error;
    }
    // Somebody's `cont` was faster.
    if (this.#watch.ran && !this.#ranThere) return await this.#gone(error);
    // One that is gone, and was seen never to have run, never will: a disk that takes no line changes nothing about that.
    await this.#journal.append("discarded").catch(note);
    await this.#enter("discarded");
    this.#destinationState = "discarded";
    this.#dialogue.sayAgain();
    return error;
  }

  async #enter(state: DestinationState): Promise<void> {
    if (!(state in { discarding: 1, discarded: 1, failed: 1, unknown: 1 })) this.#lastState = state;
    await this.#machine.enter(state);
  }

  #note(text: string): void {
    const migrationId = this.#place.bound?.admitted.migrationId ?? null;
    this.#options.onNote?.({ text, migrationId });
  }
}

/** What the source says it sent, and what was counted here. */
function isWhatCame(finish: FinishMessage, { link, queue }: Candidate): boolean {
  const { lanes, records, pages, damaged } = finish;
  const { count, sha256 } = link.damaged.digest();
  return lanes.length === 1 && lanes[0]!.lane === 0 &&
    lanes[0]!.sequence === link.nextSequence - 1 &&
    records === link.records && pages === queue.pages &&
    damaged.count === count && damaged.sha256 === sha256;
}
