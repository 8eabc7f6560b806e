/**
 * The source's part of the switchover, steps 2 to 5 of PROTOCOL.md section 7.1: from FINISH to RUNNING, and the way
 * back once SHUT(0) was said.
 *
 * Before SHUT(0) whatever fails is thrown, and the VM runs on here; after it only the destination's word brings it
 * back. A QEMU that dies once its stream is read leaves one way: forward.
 *
 * @module
 */

import { MigrationError } from "./errors.ts";
import { asError, messageOf, unknownOutcome } from "./failure.ts";
import { unlessHung } from "./hang.ts";
import type { SourceDialogue } from "./source_dialogue.ts";
import type { SourceJournal } from "./source_journal.ts";
import type { SourceLink } from "./source_link.ts";
import type { SourceOptions } from "./source_options.ts";
import type { SourceSteps } from "./source_steps.ts";
import { SourceWatch, type StandsNow } from "./source_watch.ts";
import type { SourceState } from "./states.ts";
import type { StopBudget } from "./stop_budget.ts";
import type { TamperAlarm } from "./tamper_alarm.ts";
import type { Waiter } from "./waiter.ts";
import type { Whereabouts } from "./whereabouts.ts";

/** Between two RELEASEs to a destination that cannot run the VM yet, in milliseconds. */
const RELEASE_AGAIN_MS = 200;
/** Between two questions to a QEMU that does not answer, in milliseconds. */
const ASK_AGAIN_MS = 200;

/** What a {@linkcode SourceSwitchover} works with. */
export interface SwitchoverParts {
  options: Pick<SourceOptions, "vm" | "clock" | "limits" | "signal" | "keepSource">;
  waiter: Waiter;
  steps: SourceSteps;
  journal: SourceJournal;
  budget: StopBudget;
  alarm: TamperAlarm;
  link: Pick<SourceLink, "connected" | "vmReleased">;
  dialogue: SourceDialogue;
  whereabouts: Whereabouts;
}

/** See the module. */
export class SourceSwitchover implements Disposable {
  readonly #options: SwitchoverParts["options"];
  readonly #waiter: Waiter;
  readonly #steps: SourceSteps;
  readonly #journal: SourceJournal;
  readonly #budget: StopBudget;
  readonly #alarm: TamperAlarm;
  readonly #link: SwitchoverParts["link"];
  readonly #dialogue: SourceDialogue;
  readonly #whereabouts: Whereabouts;
  /** The operator's wish to end it, after the release: it can only end the waiting. */
  #givenUp: MigrationError | null = null;
  /** Until the operator's wish to end it counts, where forward was the only way. */
  #patience: { clear(): void } | null = null;
  #qemuSeconds: number | null = null;
  /** For somebody else's hand. */
  readonly #watch: SourceWatch;

  constructor(parts: SwitchoverParts) {
    this.#options = parts.options;
    this.#waiter = parts.waiter;
    this.#steps = parts.steps;
    this.#journal = parts.journal;
    this.#budget = parts.budget;
    this.#alarm = parts.alarm;
    this.#link = parts.link;
    this.#dialogue = parts.dialogue;
    this.#whereabouts = parts.whereabouts;
    this.#watch = new SourceWatch({ ...parts, vm: parts.options.vm });
  }

  /** CPU seconds of QEMU before it was ended; null when it was not. */
  get qemuSeconds(): number | null {
    return this.#qemuSeconds;
  }

  /** Nobody waits any longer for what the destination says: the outcome is unknown, unless it has said it. */
  giveUp(reason: MigrationError): void {
    this.#givenUp = reason;
  }

  /** Ends its timer. */
  [Symbol.dispose](): void {
    this.#patience?.clear();
  }

  /** Says again what the state wants said, on a new connection: the VM may have been run or reset meanwhile. */
  sayAgain(): void {
    if (this.#steps.state === "discarding") void this.#sayDiscard();
    else if (this.#steps.state === "released") void this.#sayRelease();
    else this.#dialogue.sayAgain();
  }

  /** Somebody else runs the VM here. */
  async vmRan(): Promise<void> {
    this.#waiter.wake();
    await this.#watch.look();
    this.#waiter.wake();
  }

  /**
   * Waits while the migration can still be aborted; when QEMU is gone after its stream was read to the end
   * it can never resume, so `released` is journalled at once and forward is the only way.
   *
   * @throws what the waiting was interrupted with; `unknownOutcome` when both are dead
   */
  async forwardIfGone(condition: () => boolean): Promise<void> {
    if (!this.#journal.released) {
      await this.#waiter.until(() => condition() || this.#whereabouts.gone);
      if (!this.#whereabouts.gone) return;
      await this.goForward();
    }
    await this.#outcomeKnown(() => condition() || this.#dialogue.refusal !== null);
    if (condition()) return;
    // Both are dead, or the copy over there waits for somebody to look at it.
    await this.#steps.enter("unknown");
    throw unknownOutcome(new Error(this.#dialogue.refusal!.text));
  }

  /** QEMU is gone, and everything of it is read. @throws MigrationError `journal`, and nothing has changed */
  async goForward(): Promise<void> {
    await this.#journal.append({ state: "released", sourceGone: true });
    this.#whereabouts.seenGone();
    this.#waiter.shield();
    // What waits for the administrator's word waits no longer.
    this.#alarm.goOn();
    this.#budget.end();
    this.#waitWithin();
  }

  /** Who asked for the end before waits for the way forward for as long as it may be without a connection, and no longer. */
  #waitWithin(): void {
    const { signal, clock, limits } = this.#options;
    if (!signal.aborted) return;
    this.#patience = clock.timer(limits.reconnectMs, () => {
      this.giveUp(new MigrationError("interrupted", "Cannot go on: the migration was cancelled"));
      this.#waiter.wake();
    });
  }

  /** Steps 2 to 5. @throws what it failed with; where the state is `finishing` or `releasing` it can still be aborted */
  async handOver(): Promise<void> {
    const { vm } = this.#options;
    if (this.#steps.state !== "finishing") await this.#steps.enter("finishing");
    this.#dialogue.finish();
    await this.forwardIfGone(() => this.#dialogue.loaded !== null);
    if (!this.#journal.released) {
      await this.#steps.enter("releasing");
      // While the wire is cut nobody could take the VM, and here it can still run again.
      await this.forwardIfGone(() => this.#link.connected);
    }
    if (!this.#journal.released) {
      await this.#journal.append({ state: "releasing", counters: await vm.counters() });
      this.#waiter.check();
      this.#waiter.shield();
      const end = await this.#shut().catch(asError);
      if (end instanceof Error) {
        // SHUT(0) may have been read: neither may run before somebody has looked.
        await this.#steps.enter("unknown");
        throw unknownOutcome(end);
      }
      if (end === "resumed") {
        throw new MigrationError("vm", "Cannot release the VM: it runs again at the source", {
          hint: "somebody cancelled the migration in QEMU; start it again",
        });
      }
      if (end === "gone") this.#whereabouts.seenGone();
      else this.#whereabouts.source = "postmigrate";
      try {
        await this.#journal.append({ state: "released" });
      } catch (error) {
        // Without the line no RELEASE may be said: the destination discards, the VM goes on here.
        if (end === "stopped") return await this.#wayBack(error);
        await this.#steps.enter("unknown");
        throw unknownOutcome(error);
      }
    }
    await this.#steps.enter("released");
    await this.#release();
  }

  /** SHUT(0), and what came of it. @throws also when QEMU hangs, and nobody wants to wait for it any more */
  async #shut(): Promise<"stopped" | "gone" | "resumed"> {
    const { vm, clock } = this.#options;
    const end = await unlessHung(vm.release(), {
      waiter: this.#waiter,
      clock,
      unwanted: () => this.#dialogue.lost !== null || this.#givenUp !== null,
    });
    if (end === "hung") throw this.#dialogue.lost ?? this.#givenUp;
    return end;
  }

  /** RELEASE, until the VM runs over there; the way back if it cannot. */
  async #release(): Promise<void> {
    const { vm } = this.#options;
    const dialogue = this.#dialogue;
    this.#link.vmReleased();
    // It was seen to stand still a moment ago.
    if (!this.#watch.ran) dialogue.release();
    for (;;) {
      await this.#outcomeKnown(() =>
        dialogue.running !== null || dialogue.refusal !== null || dialogue.discarded ||
        this.#watch.ran || this.#watch.reset
      );
      if (dialogue.running !== null) break;
      if (dialogue.discarded) {
        return await this.#return(
          new MigrationError("vm", "Cannot run the VM at the destination: it discarded its copy"),
        );
      }
      const refusal = dialogue.takeRefusal();
      const error = new MigrationError(
        "vm",
        `Cannot run the VM at the destination: ${
          refusal?.text ?? "somebody has run it at the source"
        }`,
      );
      const standing = this.#runsHere ? "ran" : await this.#watch.look();
      // Whoever waits for a QEMU that does not answer can be told to stop waiting.
      const ended = this.#dialogue.lost ?? this.#givenUp;
      if (standing === "silent" && ended !== null) {
        await this.#steps.enter("unknown");
        throw unknownOutcome(ended);
      }
      if (standing === "ranAndGone") throw await this.#ranAndGone();
      if (standing === "reset") throw await this.#wasReset();
      // One that somebody runs here must not run there as well: RELEASE is not said again.
      if (standing === "still" || standing === "ran") return await this.#wayBack(error);
      // Who cannot run it yet may still; from anybody else nothing more will come.
      if (standing === "gone" && refusal !== null && refusal.code !== "cannotRun") {
        await this.#steps.enter("failed");
        throw unknownOutcome(error);
      }
      // It tries again by itself: an answer to each of its answers would only keep both busy.
      await this.#pause(RELEASE_AGAIN_MS);
      await this.#sayRelease();
    }
    this.#whereabouts.destination = vm.before;
    await this.#checkStands();
    await this.#done();
  }

  /** Again: only of a VM that is seen to stand still, or to be gone without having run. */
  async #sayRelease(): Promise<void> {
    const standing = await this.#look("released");
    if (standing === "still" || standing === "gone") this.#dialogue.release();
    this.#waiter.wake();
  }

  /** The VM runs over there, and must not run here as well. @throws MigrationError `unknownOutcome` when it may */
  async #checkStands(): Promise<void> {
    if (this.#whereabouts.gone && !this.#watch.ran) return;
    if (await this.#watch.look() === "reset") throw await this.#wasReset();
    if (!this.#watch.ran) return;
    this.#whereabouts.source = "unknown";
    await this.#steps.enter("unknown");
    throw new MigrationError(
      "unknownOutcome",
      "Cannot end the migration: the VM runs at the destination, and somebody has run it at the source",
      { hint: "somebody meddled with it: stop both VMs (QMP `stop`), and end the older one" },
    );
  }

  /** The VM runs over there: nothing that fails from here on changes that. */
  async #done(): Promise<void> {
    const { vm, keepSource = false } = this.#options;
    const { doubts } = this.#whereabouts;
    await this.#steps.enter("done");
    await this.#journal.append({ state: "done" }).catch((error) => doubts.push(messageOf(error)));
    this.#dialogue.done();
    if (this.#watch.ran) {
      doubts.push(
        "Somebody has run the VM at the source, too: stop both VMs, and end the older one",
      );
      return;
    }
    if (keepSource || this.#whereabouts.gone) return;
    this.#qemuSeconds = vm.cpuSeconds();
    try {
      await vm.quit();
      this.#whereabouts.source = "quit";
    } catch (error) {
      doubts.push(`Cannot end the source's QEMU: ${messageOf(error)}; never \`cont\` it`);
    }
  }

  /** DISCARD, DISCARDED, `cont`: only for a destination that cannot run the VM, or was never told to. */
  async #wayBack(why: unknown): Promise<void> {
    const dialogue = this.#dialogue;
    await this.#steps.enter("discarding");
    // Our own QEMU may have died since it was seen: DISCARD would take the only copy.
    if (!this.#whereabouts.gone) {
      await this.#sayDiscard();
      await this.#outcomeKnown(() =>
        dialogue.discarded || dialogue.running !== null || this.#whereabouts.gone ||
        this.#watch.reset
      );
    }
    if (this.#watch.reset) throw await this.#wasReset();
    if (dialogue.discarded) return await this.#return(why);
    if (!this.#journal.released) {
      await this.#steps.enter("unknown");
      throw unknownOutcome(why);
    }
    if (dialogue.running === null && this.#watch.ran) throw await this.#ranAndGone();
    // It could run after all, or our own QEMU is gone: the only copy is over there.
    await this.#steps.enter("released");
    await this.#release();
  }

  /** Each time only with a QEMU that is seen to hold the VM, or to run it: the other copy may be the only one. */
  async #sayDiscard(): Promise<void> {
    const standing = this.#runsHere ? "ran" : await this.#look("discarding");
    if (standing === "still" || standing === "ran") this.#dialogue.discard();
    this.#waiter.wake();
  }

  /** As was heard, without a question: while its answer is waited for, the other copy may be run as well. */
  get #runsHere(): boolean {
    return this.#watch.ran && !this.#watch.reset && !this.#whereabouts.gone;
  }

  /** Looks until QEMU answers, or nobody needs its answer any more in `state`. */
  async #look(state: SourceState): Promise<StandsNow> {
    for (;;) {
      const standing = await this.#watch.look();
      const over = this.#steps.state !== state || this.#dialogue.running !== null ||
        this.#dialogue.lost !== null || this.#givenUp !== null;
      if (over) return "silent";
      if (standing !== "silent") return standing;
      await this.#pause(ASK_AGAIN_MS);
    }
  }

  /** Its memory is gone, and nobody knows whether it ran before that. @returns the error to leave with */
  async #wasReset(): Promise<MigrationError> {
    if (!this.#whereabouts.gone) this.#whereabouts.source = "prelaunch";
    await this.#steps.enter("unknown");
    return unknownOutcome(new Error("the VM at the source was reset after it had stopped"));
  }

  /** Its memory is gone, and the copy over there is older. @returns the error to leave with */
  async #ranAndGone(): Promise<MigrationError> {
    await this.#steps.enter("unknown");
    return unknownOutcome(
      new Error(
        "somebody has run the VM at the source since it was released, and its QEMU is gone",
      ),
    );
  }

  /** The copy over there is gone: the VM goes on here. */
  async #return(why: unknown): Promise<void> {
    const { vm } = this.#options;
    this.#whereabouts.destination = "discarded";
    await this.#steps.enter("returning");
    const standing = await this.#watch.look();
    if (standing === "reset") throw await this.#wasReset();
    if (standing === "ranAndGone") throw await this.#ranAndGone();
    if (this.#whereabouts.gone) {
      this.#whereabouts.source = "gone";
      await this.#steps.enter("failed");
      throw unknownOutcome(why);
    }
    // One that somebody ran stands as they want it, or where they have moved it to: `cont` would run it twice then.
    if (!this.#watch.ran) {
      if (vm.before === "running") {
        try {
          await vm.resume();
        } catch (cause) {
          await this.#steps.enter("unknown");
          throw new MigrationError(
            "unknownOutcome",
            `Cannot run the VM at the source again: ${messageOf(cause)}`,
            { cause },
          );
        }
      }
      this.#whereabouts.source = vm.before === "running" ? "running" : "postmigrate";
    }
    await this.#journal.appendAborted();
    await this.#steps.enter("aborted");
    throw why;
  }

  /** Waits after the release: a cut, or the operator, ends it with the outcome unknown. */
  async #outcomeKnown(condition: () => boolean): Promise<void> {
    const ended = () => this.#dialogue.lost ?? this.#givenUp;
    await this.#waiter.until(() => condition() || ended() !== null);
    if (condition()) return;
    const why = ended();
    // It may have ended since.
    if (this.#watch.ran) await this.#watch.look();
    await this.#steps.enter("unknown");
    throw unknownOutcome(why);
  }

  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#options.clock.timer(ms, resolve);
    await promise;
  }
}
