/**
 * The source's side of `recover`: it decides where the VM is, and has that done (PROTOCOL.md section 7.4).
 *
 * @module
 */

import { MigrationError } from "./errors.ts";
import { messageOf } from "./failure.ts";
import type { Message } from "./messages.ts";
import { pause } from "./pause.ts";
import type {
  DestinationJournalState,
  MigrationCounters,
  SourceJournalState,
  StateBefore,
} from "./ports.ts";
import { RecoveryLog } from "./recovery_log.ts";
import { Meeting } from "./recovery_meeting.ts";
import type { RecoveryOptions } from "./recovery_options.ts";
import { RAN_AND_LOST, type Verdict, verdict } from "./recovery_rules.ts";
import {
  type DestinationStanding,
  destinationStanding,
  mayRunThere,
  ranHereSince,
  type SourceRecord,
  type SourceStanding,
  sourceStanding,
  wentOnFrom,
} from "./recovery_standing.ts";
import { destinationWords, sourceWords, unlessGone, verdictWords } from "./recovery_words.ts";

/** How long QEMU may take to leave the migration when its agent is gone, in milliseconds. */
const LEAVING_MS = 60_000;
/** Between two looks at it, in milliseconds. */
const LOOK_MS = 250;

/** Settles one migration from the source's side, once. */
export class SourceRecovery implements Disposable {
  /** What it says and writes. */
  readonly log: RecoveryLog<SourceJournalState>;
  readonly #options: RecoveryOptions;
  readonly #meeting: Meeting;
  /** Where the VM stands here; null before it was looked at. */
  sourceState: string | null = null;
  /** Where it stands over there, as far as this side knows. */
  destinationState: string | null = null;

  /** Does nothing yet. */
  constructor(options: RecoveryOptions) {
    this.#options = options;
    this.log = new RecoveryLog(options);
    this.#meeting = new Meeting(options, this.log);
    options.vm.onRun = () => void this.#vmRan();
  }

  /**
   * Finds out where the VM is, and does what is left to do.
   *
   * @throws {MigrationError} when it cannot be settled; whatever QEMU or the journal throws
   */
  async settle(): Promise<void> {
    const { vm, dryRun, declareDead = false } = this.#options;
    const before = await this.#standing();
    if (wentOnFrom(before, this.#record())) await this.#vmRan();
    const { runState } = await vm.status();
    this.sourceState = runState;
    this.log.note(
      `source, here: ${sourceWords[before]}${
        unlessGone(runState)
      }; its journal says ${this.log.last}`,
    );
    const status = await this.#meeting.meet();
    // It may have taken an hour.
    const standing = await this.#standing();
    if (standing !== before) this.log.note(`source, here: now ${sourceWords[standing]}`);
    if (wentOnFrom(standing, this.#record())) await this.#vmRan();
    const destination = status === null ? "unreachable" : destinationStanding(status, {
      journal: status.journal as DestinationJournalState,
      before: this.#before,
    });
    this.log.note(
      `destination: ${destinationWords[destination]}${
        status === null ? "" : `${unlessGone(status.runState)}; its journal says ${status.journal}`
      }`,
    );
    // A side that answers is not dead.
    if (declareDead && destination !== "takingGone") this.#meeting.checkDead();
    const decided = verdict(standing, destination, {
      record: this.#record(),
      declared: declareDead,
    });
    this.log.note(`so: ${verdictWords(decided)}`);
    // Without DONE: the other side goes on waiting.
    if (dryRun) return this.log.note("dry run: nothing was changed");
    await this.#carryOut(decided, destination);
    await this.#meeting.leave();
  }

  /** Leaves the other side. */
  [Symbol.dispose](): void {
    this.#meeting[Symbol.dispose]();
  }

  async #carryOut(decided: Verdict, destination: DestinationStanding): Promise<void> {
    switch (decided.act) {
      case "discard":
        await this.#discard();
        await this.#appendAborted();
        return this.log.note("the destination holds nothing of the VM");
      case "release": {
        // What is heard now may be newer than what was seen.
        await this.#checkNotRun();
        // Before every RELEASE, also the second: a crash in between must find it.
        await this.log.append("released");
        await this.#checkNotRun();
        const answer = await this.#meeting.ask(
          { type: "RELEASE" },
          ["RUNNING", "DISCARDED", "ABORT"],
        );
        if (answer.type !== "RUNNING") return await this.#wayBack(answer);
        return await this.#over();
      }
      case "done":
        return await this.#over();
      case "resume":
        // A copy that is still there goes first.
        if (this.#meeting.met) await this.#discard();
        else this.destinationState = "unknown";
        return await this.#resume(
          destination === "unreachable" || destination === "takingGone"
            ? { declaredDead: "destination" }
            : {},
        );
      case "settled":
        // It is here, or went on from here: no copy may be released any more, whatever was said before.
        await this.#appendAborted(
          mayRunThere(this.log.states) ? { declaredDead: "destination" } : {},
        );
        return;
      case "lost":
        throw new MigrationError("vm", `Cannot recover the VM: ${decided.text}`);
      case "unknown":
        throw new MigrationError("unknownOutcome", `Cannot know where the VM is: ${decided.text}`, {
          hint: decided.hint,
        });
      case "conflict":
        throw conflict(`${decided.text}. Nothing was changed`);
    }
  }

  async #discard(): Promise<void> {
    await this.#meeting.ask({ type: "DISCARD" }, ["DISCARDED"]);
    this.destinationState = "discarded";
  }

  /** The destination cannot run it, or has nothing to run: the VM goes on here, if it is *seen* to be here. */
  async #wayBack(answer: Message): Promise<void> {
    const text = answer.type === "ABORT" ? `says: ${answer.text}` : "discarded its copy";
    this.log.note(`the destination ${text}`);
    if (
      await this.#standing() !== "postmigrate" ||
      (answer.type === "ABORT" && answer.code !== "cannotRun")
    ) {
      throw new MigrationError(
        "unknownOutcome",
        `Cannot run the VM at the destination: it ${text}`,
        { hint: "mend what it says there, then run `recover` again" },
      );
    }
    if (answer.type === "ABORT") {
      const { type } = await this.#meeting.ask({ type: "DISCARD" }, ["DISCARDED", "RUNNING"]);
      if (type === "RUNNING") return await this.#over();
    }
    this.destinationState = "discarded";
    await this.#resume();
  }

  /** Journal `aborted` first: from the moment on in which `cont` may have been taken, no copy may be released any more. */
  async #resume(facts: Record<string, unknown> = {}): Promise<void> {
    const before = this.#before;
    // Discarding may have taken a while. Of one that is gone no line may say that it went on.
    await this.#checkStands();
    // Whatever ends it, or us, before it is seen to go on: nobody knows then whether it did.
    const stopped = before === "running" ? { stopped: "it is about to go on" } : {};
    const isSaid = this.log.stopped && Object.keys(facts).length === 0;
    if (!isSaid) await this.#appendAborted({ ...facts, ...stopped });
    try {
      // The disk may have taken a while, too.
      await this.#checkStands();
      if (before === "running") await this.#options.vm.resume();
    } catch (cause) {
      await this.#appendStopped(messageOf(cause)).catch(() => {});
      if (cause instanceof MigrationError) throw cause;
      throw new MigrationError(
        "unknownOutcome",
        `Cannot run the VM at the source again: ${messageOf(cause)}`,
        { hint: "mend what QEMU says, then run `recover` here again", cause },
      );
    }
    if (this.log.stopped) {
      await this.#appendAborted().catch((error) =>
        this.log.note(
          `The VM goes on at the source, and the journal does not say so (${
            messageOf(error)
          }): run \`recover\` here again before its QEMU ends; never run the copy over there`,
        )
      );
    }
    this.sourceState = before === "running" ? "running" : "postmigrate";
    this.log.note(
      before === "running"
        ? "the VM runs at the source"
        : "the VM stands at the source: `cont` runs it",
    );
  }

  /** Until it goes on this is not settled, unless it did. */
  async #appendStopped(stopped: string): Promise<void> {
    if (this.#options.vm.hasRun) await this.#appendAborted();
    else await this.log.append("aborted", { stopped });
  }

  /** @throws {MigrationError} `unknownOutcome` when it stands no more as this migration left it */
  async #checkStands(): Promise<void> {
    const standing = await this.#standing();
    const { hasRun } = this.#options.vm;
    if (standing === "postmigrate" && !hasRun) return;
    if (hasRun) {
      // What is in postmigrate behind this went on in another migration.
      await this.#vmRan(["released", "aborted"]);
    }
    throw new MigrationError(
      "unknownOutcome",
      `Cannot run the VM at the source again: ${
        hasRun ? "somebody has run it" : sourceWords[standing]
      }`,
      { hint: "run `recover` again" },
    );
  }

  /** It runs over there: the source's journal ends, and its QEMU too, unless that has served another migration since. */
  async #over(): Promise<void> {
    this.destinationState = this.#before;
    // The answer may have taken a while, and somebody may have run it here meanwhile.
    const standing = await this.#standing();
    if (standing === "here" || standing === "reset") {
      throw conflict("it runs at the destination, and the source's QEMU holds it");
    }
    if (!this.log.states.includes("done")) {
      if (ranHereSince(this.#record().states)) {
        // One that is gone is in nobody's way any more.
        if (standing !== "gone") {
          throw conflict("it runs at the destination, and somebody has run it at the source");
        }
        this.log.note(RAN_AND_LOST);
      }
      await this.log.append("done");
      if (this.#options.vm.hasRun && standing !== "gone") {
        throw conflict("it runs at the destination, and somebody has run it at the source");
      }
    }
    if (standing === "postmigrate" && !this.#options.vm.hasRun) {
      await this.#options.vm.quit();
      this.sourceState = "quit";
    }
    this.log.note("the VM is at the destination");
  }

  /** Nobody is released what somebody runs here, or has. @throws {MigrationError} `unknownOutcome` */
  async #checkNotRun(): Promise<void> {
    const standing = await this.#standing();
    const { hasRun } = this.#options.vm;
    if (!hasRun && (standing === "postmigrate" || standing === "gone")) return;
    if (hasRun || standing === "here") await this.#vmRan();
    throw new MigrationError(
      "unknownOutcome",
      `Cannot release the VM: now ${sourceWords[standing]}`,
      { hint: "run `recover` again" },
    );
  }

  /** Unless the journal says it, or more, already. */
  async #appendAborted(facts: Record<string, unknown> = {}): Promise<void> {
    const said = this.log.last in { aborted: 1, ran: 1 } && !mayRunThere(this.log.states) &&
      !this.log.stopped;
    if (!said) await this.log.append("aborted", facts);
  }

  /** Somebody else runs it, or has: no copy may be released any more, whatever becomes of it. */
  async #vmRan(behind: readonly SourceJournalState[] = ["released"]): Promise<void> {
    await this.log.appendBehind(behind, "ranHere").catch((error) =>
      this.log.note(messageOf(error))
    );
  }

  get #before(): StateBefore {
    return this.#options.entries[0]!["before"] as StateBefore;
  }

  #record(): SourceRecord {
    const releasing = this.#options.entries.findLast((entry) => entry.state === "releasing");
    // The line may still be on its way, or not be written: a full disk, a dry run.
    const ran = this.#options.vm.hasRun && this.log.last === "released";
    return {
      states: ran ? [...this.log.states, "ranHere"] : this.log.states,
      counters: (releasing?.["counters"] ?? null) as MigrationCounters | null,
      stopped: this.log.stopped,
    };
  }

  /** QEMU in finish-migrate is on its way: its agent's socket is closed. */
  async #standing(): Promise<SourceStanding> {
    const { vm, clock, signal } = this.#options;
    const untilMs = clock.now() + LEAVING_MS;
    for (;;) {
      const standing = sourceStanding(await vm.status(), this.#record());
      if (standing !== "waiting" || clock.now() > untilMs || signal.aborted) return standing;
      await pause(LOOK_MS, { clock, signal });
    }
  }
}

function conflict(text: string): MigrationError {
  return new MigrationError("unknownOutcome", `Cannot settle this: ${text}`, {
    hint: "this cannot happen by the rules: stop both VMs (QMP `stop`) and look at both journals",
  });
}
