/**
 * The destination's side of `recover`: it reports, discards on DISCARD, and runs the VM only on RELEASE or on the
 * operator's word (PROTOCOL.md section 7.4).
 *
 * @module
 */

import { MigrationError } from "./errors.ts";
import { messageOf } from "./failure.ts";
import type { Message } from "./messages.ts";
import { pause } from "./pause.ts";
import type { DestinationJournalState, StateBefore } from "./ports.ts";
import { RecoveryLog } from "./recovery_log.ts";
import { Meeting } from "./recovery_meeting.ts";
import type { RecoveryOptions } from "./recovery_options.ts";
import {
  type DestinationStanding,
  destinationStanding,
  saysWentOn,
  type VmStatus,
} from "./recovery_standing.ts";
import { destinationWords, unlessGone } from "./recovery_words.ts";

/** How long QEMU may take to load what it got, in milliseconds. */
const LOADING_MS = 60_000;
/** Between two looks at it, in milliseconds. */
const LOOK_MS = 250;

/** RUNNING, of a VM whose RESUME nobody saw. */
const RUNNING: Message = { type: "RUNNING", sinceResumeUs: 0, cpuMs: { agent: 0, qemu: null } };

/** Why the copy cannot run, and whether it is known that it never did. */
interface RunFailure {
  text: string;
  neverRan: boolean;
}

/** Settles one migration from the destination's side, once. */
export class DestinationRecovery implements Disposable {
  /** What it says and writes. */
  readonly log: RecoveryLog<DestinationJournalState>;
  readonly #options: RecoveryOptions;
  readonly #meeting: Meeting;
  /** Never known from here. */
  readonly sourceState = null;
  /** Where the VM stands here; null before it was looked at. */
  destinationState: string | null = null;

  /** Does nothing yet. */
  constructor(options: RecoveryOptions) {
    this.#options = options;
    this.log = new RecoveryLog(options);
    this.#meeting = new Meeting(options, this.log);
    options.vm.onRun = () => void this.#appendRanEarly();
  }

  /**
   * Finds out where the VM is, and does what is left to do.
   *
   * @throws {MigrationError} when it cannot be settled; whatever QEMU or the journal throws
   */
  async settle(): Promise<void> {
    const { vm, entries, declareDead, dryRun } = this.#options;
    const standing = await this.#loadedOrNot();
    const { runState } = await vm.status();
    this.destinationState = runState;
    this.log.note(
      `destination, here: ${
        this.log.last === "discarded" ? "discarded its copy" : destinationWords[standing]
      }${unlessGone(runState)}; its journal says ${this.log.last}`,
    );
    if (dryRun) {
      const alone = standing === "taking" && !this.log.sourceWentOn
        ? ", and runs the VM if nobody answers"
        : "";
      return this.log.note(
        `so: it does what \`recover\` at the source says${alone}; dry run: nothing was changed`,
      );
    }
    const discarded = this.log.last === "discarded";
    await this.#catchUp(standing);
    const source = await this.#meeting.meet();
    if (declareDead) this.#meeting.checkDead();
    if (source !== null) return await this.#obey(source);
    if (declareDead) return await this.#takeOver(standing);
    if (standing === "running") {
      const left = runState === "running" ? "is here" : "came here, and may have gone on since";
      this.log.note(`so: the VM ${left}`);
      return this.#checkReleased();
    }
    if (standing === "neverRan") {
      // What a QEMU holds whose copy was discarded came later.
      const end = runState === "gone" || discarded ? "" : "; this QEMU can be ended";
      return this.log.note(`so: the VM is at the source, or wherever that one went${end}`);
    }
    // It was released to this side, and only this side's word could have taken that back.
    if (standing === "taking" && !this.log.sourceWentOn) return await this.#run();
    // Not since `loaded`: the source may have gone on while this side was loading.
    const oath = `has not run since it stopped for this migration, after ${entries[0]!.time}`;
    throw new MigrationError(
      "unknownOutcome",
      "Cannot settle this from here: the source does not answer",
      {
        hint: standing === "loaded" || standing === "taking"
          ? `run \`recover\` there as well. If its QEMU is dead for good *and the VM ${oath}*: once more here with --declare-dead source; if only the first is sure: QMP \`quit\` here`
          : "run `recover` there as well",
      },
    );
  }

  /** Leaves the other side. */
  [Symbol.dispose](): void {
    this.#meeting[Symbol.dispose]();
  }

  /** With its agent gone QEMU has all that it will get: what it still loads it will have loaded soon, or not at all. */
  async #loadedOrNot(): Promise<DestinationStanding> {
    const { vm, clock, signal } = this.#options;
    const untilMs = clock.now() + LOADING_MS;
    for (;;) {
      const status = await vm.status();
      const loading = status.runState === "inmigrate" && status.migration === "active";
      if (!loading || clock.now() > untilMs || signal.aborted) {
        return this.#standingOf(status);
      }
      await pause(LOOK_MS, { clock, signal });
    }
  }

  /** What the journal missed when its agent died. */
  async #catchUp(standing: DestinationStanding): Promise<void> {
    // What was heard since says more.
    if (standing === "loaded") await this.#appendBehindOrNote(["open"], "loaded");
    if (standing === "running") await this.#appendSeen();
    if (
      standing === "neverRan" && this.log.last !== "discarded" &&
      (await this.#options.vm.status()).runState === "gone"
    ) {
      await this.#appendOrNote("discarded");
    }
  }

  /** Does what the source says, and nothing else. */
  async #obey(source: VmStatus & { journal: string }): Promise<void> {
    const sourceRan = this.log.sourceRan || saysWentOn(source);
    if (sourceRan && !this.log.sourceRan) {
      // DISCARD, which comes next, is obeyed without it.
      await this.#appendSourceRan().catch((error) => this.log.note(messageOf(error)));
    }
    let failure: RunFailure | null = null;
    for (let next; (next = await this.#meeting.next()) !== null;) {
      // Waiting for the source may have taken an hour.
      const now = await this.#standing();
      switch (next.type) {
        case "RELEASE":
          if ((now === "loaded" || now === "taking") && sourceRan) {
            const text = "its copy is older than what ran at the source since";
            this.#meeting.send({ type: "ABORT", code: "vm", text });
          } else if (now === "loaded" || now === "taking") {
            failure = await this.#tryToRun(now);
            if (failure === null) await this.#sayRunning();
            else this.#meeting.send({ type: "ABORT", code: "cannotRun", text: failure.text });
          } else if (now === "takingGone") {
            const text = "its QEMU died when it was about to run the VM, or had";
            this.#meeting.send({ type: "ABORT", code: "vm", text });
          } else if (now === "running") await this.#sayRunning();
          else {
            if (this.log.last !== "discarded") await this.#discard();
            this.#meeting.send({ type: "DISCARDED" });
          }
          break;
        case "DISCARD":
        case "ABORT":
          // It may be the only copy, or newer than the source's.
          if (now === "running") {
            await this.#appendSeen();
            this.#meeting.send(RUNNING);
          } else if (this.log.last === "discarded") {
            // Whatever its QEMU holds now came later.
            this.#meeting.send({ type: "DISCARDED" });
          } else if (failure === null ? now === "taking" : !failure.neverRan) {
            const text = "the VM may have run here, and stands now: see why, and `cont` it";
            this.#meeting.send({ type: "ABORT", code: "vm", text });
          } else if (failure === null && now === "loaded" && this.#mayBeNewest(source)) {
            const text =
              "somebody ran the VM here, and it may be newer than the source's: QMP `quit` here if it is to go";
            this.#meeting.send({ type: "ABORT", code: "vm", text });
          } else {
            failure = null;
            await this.#discard();
            this.#meeting.send({ type: "DISCARDED" });
          }
          break;
        case "DONE":
          // Said to a copy that runs only once the source's side has journalled that it is here.
          if (now === "running") {
            if (this.log.last !== "running") await this.#appendOrNote("running");
            return;
          }
          return await this.#checkSettled(failure, "the source's side cannot decide either");
        default:
          throw new MigrationError(
            "protocol",
            `Cannot go on: ${next.type} is not for a destination`,
          );
      }
    }
    await this.#checkSettled(failure, "the source went away before it decided");
  }

  /** Alone this side would run what is older by now, and so it would on RELEASE of a source that has ended since. */
  async #appendSourceRan(): Promise<void> {
    const standing = await this.#standing();
    if (standing === "taking") {
      await this.log.append("taking", { sourceWentOn: true, sourceRan: true });
    } else if (standing === "loaded") {
      for (const state of ["loaded", "ranEarly"] as const) {
        await this.log.appendBehind([state], state, { sourceRan: true });
      }
    }
  }

  /** Whether somebody ran the copy before it was released, and the source's VM did not run since, as far as that says. */
  #mayBeNewest({ runState }: VmStatus): boolean {
    const { vm, entries } = this.#options;
    const ran = vm.hasRun || this.log.last === "ranEarly";
    return ran && (entries[0]!["before"] !== "running" || runState === "postmigrate");
  }

  /** It was released, and runs. */
  async #sayRunning(): Promise<void> {
    if (this.log.last !== "running") await this.#appendOrNote("running");
    this.#meeting.send(RUNNING);
  }

  /** The VM is seen to run, or to have left: its QEMU may end, and then only the journal can say that it was here. */
  async #appendSeen(): Promise<void> {
    if (this.log.last === "taking" && !this.log.sourceWentOn) {
      const { vm } = this.#options;
      if ((await vm.status()).runState === "running") await vm.announce();
      await this.#appendOrNote("running");
    }
    await this.#appendRanEarly();
  }

  /** Unless the journal says as much already. */
  async #appendRanEarly(): Promise<void> {
    await this.#appendBehindOrNote(["open", "loaded"], "ranEarly");
  }

  async #appendBehindOrNote(
    behind: readonly DestinationJournalState[],
    state: DestinationJournalState,
  ): Promise<void> {
    await this.log.appendBehind(behind, state).catch((error) => this.log.note(messageOf(error)));
  }

  /** A full disk changes nothing about where the VM is. */
  async #appendOrNote(state: DestinationJournalState): Promise<void> {
    await this.log.append(state).catch((error) => this.log.note(messageOf(error)));
  }

  /** @returns why not; null when it runs */
  async #tryToRun(now: DestinationStanding): Promise<RunFailure | null> {
    try {
      await this.#run();
      return null;
    } catch (error) {
      const { vm } = this.#options;
      const { runState } = await vm.status();
      if (runState === "running") return null;
      // As it was loaded: a `cont` that QEMU refused. One whose answer was lost may have worked for a while.
      const stands = runState in { paused: 1, prelaunch: 1, gone: 1 };
      const neverRan = now === "loaded" && stands && !vm.hasRun;
      return {
        text: messageOf(error),
        neverRan: neverRan && !this.log.states.includes("ranEarly"),
      };
    }
  }

  async #discard(): Promise<void> {
    const { vm } = this.#options;
    const { hasRun } = vm;
    await vm.quit();
    // Somebody's `cont` was faster.
    if (vm.hasRun && !hasRun) {
      throw new MigrationError("unknownOutcome", "Cannot discard the VM: it ran before it ended");
    }
    // One that is gone runs no more, whatever the disk takes.
    if (this.log.last !== "discarded") await this.#appendOrNote("discarded");
    this.destinationState = "discarded";
    this.log.note("the copy here was discarded: the VM is at the source, or went on from there");
  }

  /** @throws MigrationError `unknownOutcome` when the copy, which runs or has left, was not released as far as is known here */
  #checkReleased(): void {
    if (this.log.last === "taking" ? !this.log.sourceWentOn : this.log.last === "running") return;
    throw new MigrationError(
      "unknownOutcome",
      "Cannot settle this from here: the copy runs, or ran, and was not released as far as this side knows",
      {
        hint:
          "run `recover` at the source; if the VM runs there as well: QMP `stop` to both; if its QEMU is dead for good *and the VM has not run there since it stopped*: once more here with --declare-dead source",
      },
    );
  }

  /** @throws MigrationError `unknownOutcome` while this side holds what somebody may have to run */
  async #checkSettled(failure: RunFailure | null, why: string): Promise<void> {
    const now = await this.#standing();
    if (failure !== null && now !== "running") {
      throw new MigrationError("unknownOutcome", `Cannot run the VM here: ${failure.text}`, {
        hint: "mend what QEMU says, then run `recover` on both hosts again",
      });
    }
    if (now === "running") return this.#checkReleased();
    if (now === "neverRan" || this.destinationState === "discarded") return;
    throw new MigrationError("unknownOutcome", `Cannot settle this: ${why}`, {
      hint: "see what it says there; run `recover` on both hosts again",
    });
  }

  async #standing(): Promise<DestinationStanding> {
    return this.#standingOf(await this.#options.vm.status());
  }

  #standingOf(status: VmStatus): DestinationStanding {
    const { before } = this.#options.entries[0]!;
    const { last } = this.log;
    // The line may still be on its way, or not be written: a full disk, a dry run.
    const ran = this.#options.vm.hasRun && (last === "open" || last === "loaded");
    return destinationStanding(status, {
      journal: ran ? "ranEarly" : last,
      before: before as StateBefore,
    });
  }

  /** On the operator's word. */
  async #takeOver(standing: DestinationStanding): Promise<void> {
    if (standing === "running") {
      if (this.log.last !== "running") {
        await this.log.append("running", { declaredDead: "source" });
      }
      return this.log.note("so: the VM is here already");
    }
    if (standing !== "loaded" && standing !== "taking") {
      const what = destinationWords[standing];
      throw new MigrationError("refused", `Cannot run the VM here: this side ${what}`, {
        hint: "only a copy that was loaded whole can run",
      });
    }
    await this.#run({ declaredDead: "source" });
  }

  async #run(facts: Record<string, unknown> = {}): Promise<void> {
    const { vm, entries } = this.#options;
    // Meeting the other side may have taken an hour.
    const now = await this.#standing();
    if (now !== "loaded" && now !== "taking") throw cannotRun(now);
    // It was released anew where the line says that the VM went on at the source.
    if (this.log.last !== "taking" || this.log.sourceWentOn) await this.log.append("taking", facts);
    // So may the disk.
    const status = await vm.status();
    const then = this.#standingOf(status);
    if (then !== "taking" && status.runState !== "running") throw cannotRun(then);
    if (entries[0]!["before"] === "running" && status.runState !== "running") await vm.resume();
    await vm.announce();
    await this.log.append("running");
    this.destinationState = String(entries[0]!["before"]);
    this.log.note(`the VM ${this.destinationState === "running" ? "runs" : "is"} here`);
  }
}

function cannotRun(standing: DestinationStanding): MigrationError {
  const text = `Cannot run the VM here: this side ${destinationWords[standing]}`;
  return new MigrationError("unknownOutcome", text, { hint: "run `recover` again" });
}
