/**
 * `recover`: settles where the VM is after a crash (PROTOCOL.md section 7). Asks its own journal and QEMU,
 * then the other side over RECOVER. The source's side decides; the destination reports, discards on
 * DISCARD, and runs only on RELEASE or on the operator's word.
 *
 * @module
 */

import { Admission, type Recovering } from "./admission.ts";
import type { Connection } from "./connection.ts";
import { MigrationError, type MigrationErrorCode } from "./errors.ts";
import { messageOf, unknownOutcome } from "./failure.ts";
import type { Identity } from "./identity.ts";
import type { Message, StatusMessage } from "./messages.ts";
import { connect, dialled, NO_PSK, RECOVER } from "./opening.ts";
import type {
  Clock,
  DestinationJournalState,
  Journal,
  JournalEntry,
  MigrationCounters,
  SourceJournalState,
  StateBefore,
  Transport,
  TransportListener,
} from "./ports.ts";
import {
  type DestinationStanding,
  destinationStanding,
  type SourceRecord,
  type SourceStanding,
  sourceStanding,
  type Verdict,
  verdict,
  type VmStatus,
} from "./recovery_rules.ts";
import { destinationWords, sourceWords, verdictWords } from "./recovery_words.ts";
import type { Outcome } from "./result.ts";

/** A QEMU after a crash of its agent. */
export interface RecoveryVm {
  /** How it stands; run state `gone` when its process is. */
  status(): Promise<VmStatus & { counters: MigrationCounters | null }>;
  /** `cont`; resolves when it runs. @throws with QEMU's words */
  resume(): Promise<void>;
  /** Tells the network where it is now; never throws. */
  announce(): Promise<void>;
  /** Ends it; resolves when its process is gone, at once when it is already. */
  quit(): Promise<void>;
}

/** Everything that `recover` needs. */
export interface RecoveryOptions {
  /** The migration, 32 hex digits. */
  id: string;
  /** Which side this host was. */
  side: "source" | "destination";
  /** This host's VM. */
  vm: RecoveryVm;
  /** What the journal holds: at least `open`. */
  entries: readonly JournalEntry[];
  /** The same journal, to go on with. */
  journal: Journal;
  /** This host's key. */
  identity: Identity;
  /** The other host's public key, as the journal names it. */
  peerKey: Uint8Array;
  /** How the two meet: one dials, the other listens. */
  meet: { dial: () => Promise<Transport> } | { listener: TransportListener };
  /** Time and timers. */
  clock: Clock;
  /** The operator's wish to end it. */
  signal: AbortSignal;
  /** The operator's word that the other side is dead for good, and that its copy did not run since. */
  declareDead?: boolean | undefined;
  /** Explains, changes nothing. */
  dryRun?: boolean | undefined;
  /** Something a person may want to know. */
  onNote?: ((text: string) => void) | undefined;
}

/** What came of it. */
export interface RecoveryResult {
  /** How it ended. */
  outcome: Outcome;
  /** What was found and what was done, in order. */
  notes: string[];
  /** Where the VM stands at the source, as far as this side knows. */
  sourceState: string | null;
  /** Where it stands at the destination. */
  destinationState: string | null;
  /** Null when it is settled. */
  error: MigrationError | null;
}

/** How long the other side may take to answer when it is dialled, in milliseconds. */
const REACH_MS = 5_000;
const RETRY_MS = 250;
/** How long an act of the other side may take, in milliseconds. */
const ACT_MS = 60_000;

/** Settles one migration from this side. Never throws for what may be found: the result says it. */
export async function recover(options: RecoveryOptions): Promise<RecoveryResult> {
  const recovery = new Recovery(options);
  try {
    await (options.side === "source" ? recovery.source() : recovery.destination());
    return recovery.result("completed", null);
  } catch (error) {
    // What cannot be settled stays unknown, whatever stood in the way; only what was found out says more.
    if (!(error instanceof MigrationError)) {
      return recovery.result("unknown", unknownOutcome(error));
    }
    return recovery.result(outcomes[error.code] ?? "unknown", error);
  } finally {
    recovery[Symbol.dispose]();
  }
}

const outcomes: Partial<Record<MigrationErrorCode, Outcome>> = {
  refused: "refused",
  vm: "aborted",
};

/** A meeting with the other side. */
interface Met {
  connection: Connection;
  status: StatusMessage;
}

class Recovery implements Disposable {
  readonly #options: RecoveryOptions;
  readonly #notes: string[] = [];
  readonly #appended: (SourceJournalState | DestinationJournalState)[] = [];
  #met: Met | null = null;
  /** Something listens where the other side should be. */
  #somebodyThere = false;
  #sourceState: string | null = null;
  #destinationState: string | null = null;

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  result(outcome: Outcome, error: MigrationError | null): RecoveryResult {
    return {
      outcome,
      notes: this.#notes,
      sourceState: this.#sourceState,
      destinationState: this.#destinationState,
      error,
    };
  }

  [Symbol.dispose](): void {
    this.#met?.connection[Symbol.dispose]();
  }

  // ---- the source's side: it decides ----

  async source(): Promise<void> {
    const record = this.#record();
    const before = await this.#settledStanding(record);
    const { runState } = await this.#options.vm.status();
    this.#sourceState = runState;
    this.#note(
      `source, here: ${sourceWords[before]}${unlessGone(runState)}; its journal says ${
        record.states.at(-1)
      }`,
    );
    const met = await this.#meet();
    // It may have taken an hour.
    const standing = await this.#settledStanding(record);
    if (standing !== before) this.#note(`source, here: now ${sourceWords[standing]}`);
    const destination = met === null
      ? "unreachable"
      : destinationStanding(met.status, met.status.journal as DestinationJournalState);
    this.#note(
      `destination: ${destinationWords[destination]}${
        met === null
          ? ""
          : `${unlessGone(met.status.runState)}; its journal says ${met.status.journal}`
      }`,
    );
    this.#checkDeclared(destination);
    const decided = verdict(standing, destination, {
      record,
      declared: this.#options.declareDead ?? false,
    });
    this.#note(`so: ${verdictWords(decided)}`);
    // Without DONE: the other side goes on waiting.
    if (this.#options.dryRun) return this.#note("dry run: nothing was changed");
    await this.#carryOut(decided, { standing, destination, before: record.before });
    await this.#leave();
  }

  async #carryOut(
    decided: Verdict,
    known: { standing: SourceStanding; destination: DestinationStanding; before: StateBefore },
  ): Promise<void> {
    switch (decided.act) {
      case "discard":
        await this.#ask({ type: "DISCARD" }, ["DISCARDED"]);
        this.#destinationState = "discarded";
        await this.#appendAborted();
        return this.#note("the VM is at the source; the destination holds nothing of it");
      case "release": {
        // Before every RELEASE, also the second: a crash in between must find it.
        await this.#append("released");
        const answer = await this.#ask({ type: "RELEASE" }, ["RUNNING", "DISCARDED", "ABORT"]);
        if (answer.type !== "RUNNING") return await this.#wayBack(answer, known);
        this.#destinationState = known.before;
        return await this.#over(known.standing);
      }
      case "done":
        this.#destinationState = known.before;
        return await this.#over(known.standing);
      case "resume":
        // A copy that is still there goes first.
        if (this.#met !== null) await this.#ask({ type: "DISCARD" }, ["DISCARDED"]);
        this.#destinationState = this.#met === null ? "unknown" : "discarded";
        return await this.#resume(known.before);
      case "settled":
        if (known.standing === "gone") {
          throw new MigrationError("vm", `Cannot recover the VM: ${decided.text}`);
        }
        // Nobody was told to run it, and now nobody will be.
        if (!this.#states().includes("released")) await this.#appendAborted();
        return;
      case "unknown":
        throw new MigrationError("unknownOutcome", `Cannot know where the VM is: ${decided.text}`, {
          hint: decided.hint,
        });
      case "conflict":
        throw new MigrationError(
          "unknownOutcome",
          `Cannot settle this: ${decided.text}. Nothing was changed`,
          {
            hint:
              "this cannot happen by the rules: stop both VMs (QMP `stop`) and look at both journals",
          },
        );
    }
  }

  /** The destination cannot run it, or has nothing to run: the VM goes on here, if it is *seen* to be here. */
  async #wayBack(
    answer: Message,
    known: { standing: SourceStanding; before: StateBefore },
  ): Promise<void> {
    const text = answer.type === "ABORT" ? `says: ${answer.text}` : "discarded its copy";
    this.#note(`the destination ${text}`);
    if (
      await this.#settledStanding(this.#record()) !== "postmigrate" ||
      (answer.type === "ABORT" && answer.code !== "cannotRun")
    ) {
      throw new MigrationError(
        "unknownOutcome",
        `Cannot run the VM at the destination: it ${text}`,
        { hint: "mend what it says there, then run `recover` again" },
      );
    }
    if (answer.type === "ABORT") {
      const { type } = await this.#ask({ type: "DISCARD" }, ["DISCARDED", "RUNNING"]);
      if (type === "RUNNING") {
        this.#destinationState = known.before;
        return await this.#over(known.standing);
      }
    }
    this.#destinationState = "discarded";
    await this.#resume(known.before);
  }

  async #resume(before: StateBefore): Promise<void> {
    if (before === "running") {
      try {
        await this.#options.vm.resume();
      } catch (cause) {
        throw new MigrationError(
          "unknownOutcome",
          `Cannot run the VM at the source again: ${messageOf(cause)}`,
          { cause },
        );
      }
    }
    this.#sourceState = before === "running" ? "running" : "postmigrate";
    await this.#appendAborted();
    this.#note(
      before === "running"
        ? "the VM runs at the source"
        : "the VM stands at the source: `cont` runs it",
    );
  }

  /** It runs over there: the source's journal ends, its QEMU too. */
  async #over(standing: SourceStanding): Promise<void> {
    if (!this.#states().includes("done")) await this.#append("done");
    if (standing !== "gone") {
      await this.#options.vm.quit();
      this.#sourceState = "quit";
    }
    this.#note("the VM is at the destination");
  }

  async #appendAborted(): Promise<void> {
    if (this.#states().at(-1) !== "aborted") await this.#append("aborted");
  }

  #record(): SourceRecord {
    const { entries } = this.#options;
    const releasing = entries.findLast((entry) => entry.state === "releasing");
    return {
      states: this.#states() as SourceJournalState[],
      before: entries[0]!["before"] as StateBefore,
      counters: (releasing?.["counters"] ?? null) as MigrationCounters | null,
    };
  }

  /** QEMU in finish-migrate is on its way: its agent's socket is closed. */
  async #settledStanding(record: SourceRecord): Promise<SourceStanding> {
    const { vm, clock } = this.#options;
    const untilMs = clock.now() + ACT_MS;
    for (;;) {
      const standing = sourceStanding(await vm.status(), record);
      if (standing !== "waiting" || clock.now() > untilMs) return standing;
      await this.#pause(RETRY_MS);
    }
  }

  /** A side that answers is not dead. */
  #checkDeclared(destination: DestinationStanding): void {
    if (!this.#options.declareDead || destination === "takingGone") return;
    if (destination !== "unreachable") throw notDead("destination", "it answers");
    this.#checkNobodyThere("destination");
  }

  /** Its host is up: whether it does not know us, or hangs, it is not for us to say that it is dead. */
  #checkNobodyThere(side: "source" | "destination"): void {
    if (this.#somebodyThere) {
      throw notDead(side, "something listens there that does not accept this side");
    }
  }

  // ---- the destination's side ----

  async destination(): Promise<void> {
    const { vm, entries, declareDead, dryRun } = this.#options;
    let standing = await this.#loadedOrNot();
    const { runState } = await vm.status();
    this.#destinationState = runState;
    this.#note(
      `destination, here: ${destinationWords[standing]}${unlessGone(runState)}; its journal says ${
        entries.at(-1)!.state
      }`,
    );
    if (dryRun) {
      return this.#note(
        "so: it does what `recover` at the source says; dry run: nothing was changed",
      );
    }
    standing = await this.#catchUp(standing);
    const met = await this.#meet();
    if (met === null) {
      if (declareDead) {
        this.#checkNobodyThere("source");
        return await this.#takeOver(standing);
      }
      if (standing === "running") return this.#note("so: the VM is here");
      if (standing === "neverRan") {
        const end = runState === "gone" ? "" : "; this QEMU can be ended";
        return this.#note(`so: the VM is at the source, or wherever that one went${end}`);
      }
      // It was released to this side, and only this side's word could have taken that back.
      if (standing === "taking") return await this.#run();
      throw new MigrationError(
        "unknownOutcome",
        "Cannot settle this from here: the source does not answer",
        {
          hint: standing === "loaded"
            ? `run \`recover\` there as well. If its QEMU is dead for good *and has not run since ${
              this.#timeOf("loaded")
            }*: once more here with --declare-dead source; if only the first is sure: QMP \`quit\` here`
            : "run `recover` there as well",
        },
      );
    }
    if (declareDead) throw notDead("source", "it answers");
    await this.#obey(met);
  }

  /** With its agent gone QEMU has all that it will get: what it still loads it will have loaded soon, or not at all. */
  async #loadedOrNot(): Promise<DestinationStanding> {
    const { vm, entries, clock } = this.#options;
    const untilMs = clock.now() + ACT_MS;
    for (;;) {
      const status = await vm.status();
      const loading = status.runState === "inmigrate" && status.migration === "active";
      if (!loading || clock.now() > untilMs) {
        return destinationStanding(status, entries.at(-1)!.state as DestinationJournalState);
      }
      await this.#pause(RETRY_MS);
    }
  }

  /** What the journal missed when its agent died. */
  async #catchUp(standing: DestinationStanding): Promise<DestinationStanding> {
    const last = this.#states().at(-1);
    if (standing === "loaded" && last === "open") await this.#append("loaded");
    if (
      standing === "neverRan" && last !== "discarded" &&
      (await this.#options.vm.status()).runState === "gone"
    ) {
      await this.#append("discarded");
    }
    return standing;
  }

  /** Does what the source says, and nothing else. */
  async #obey({ connection }: Met): Promise<void> {
    const running: Message = {
      type: "RUNNING",
      sinceResumeUs: 0,
      cpuMs: { agent: 0, qemu: null },
    };
    /** Why it cannot run, and whether it is known that it never did. */
    let failure: { text: string; neverRan: boolean } | null = null;
    for (let next; (next = await this.#next(connection)) !== null;) {
      // Waiting for the source may have taken an hour.
      const now = await this.#standing();
      switch (next.type) {
        case "RELEASE":
          if (now === "loaded" || now === "taking") {
            failure = await this.#tryToRun(now);
            connection.send(
              failure === null ? running : { type: "ABORT", code: "cannotRun", text: failure.text },
            );
          } else if (now === "takingGone") {
            const text = "its QEMU died when it was about to run the VM";
            connection.send({ type: "ABORT", code: "vm", text });
          } else connection.send(now === "running" ? running : { type: "DISCARDED" });
          break;
        case "DISCARD":
        case "ABORT":
          // It may be the only copy, or newer than the source's.
          if (now === "running") connection.send(running);
          else if (now === "taking" && failure?.neverRan !== true) {
            const text = "the VM may have run here, and stands now: see why, and `cont` it";
            connection.send({ type: "ABORT", code: "vm", text });
          } else {
            failure = null;
            await this.#discard();
            connection.send({ type: "DISCARDED" });
          }
          break;
        case "DONE":
          return this.#checkSettled(failure, "the source's side cannot decide either");
        default:
          throw new MigrationError(
            "protocol",
            `Cannot go on: ${next.type} is not for a destination`,
          );
      }
    }
    await this.#checkSettled(failure, "the source went away before it decided");
  }

  /** @returns why not; null when it runs */
  async #tryToRun(
    now: DestinationStanding,
  ): Promise<{ text: string; neverRan: boolean } | null> {
    try {
      await this.#run();
      return null;
    } catch (error) {
      const { runState } = await this.#options.vm.status();
      if (runState === "running") return null;
      // As it was loaded: a `cont` that QEMU refused.
      const stands = runState === "paused" || runState === "prelaunch";
      return { text: messageOf(error), neverRan: now === "loaded" && stands };
    }
  }

  async #discard(): Promise<void> {
    await this.#options.vm.quit();
    if (this.#states().at(-1) !== "discarded") await this.#append("discarded");
    this.#destinationState = "discarded";
    this.#note("the copy here was discarded: the VM is at the source");
  }

  /** @throws MigrationError `unknownOutcome` while this side holds what somebody may have to run */
  async #checkSettled(failure: { text: string } | null, why: string): Promise<void> {
    const now = await this.#standing();
    if (failure !== null && now !== "running") {
      throw new MigrationError("unknownOutcome", `Cannot run the VM here: ${failure.text}`, {
        hint: "mend what QEMU says, then run `recover` on both hosts again",
      });
    }
    if (now !== "loaded" && now !== "taking" && now !== "takingGone") return;
    throw new MigrationError("unknownOutcome", `Cannot settle this: ${why}`, {
      hint: "see what it says there; run `recover` on both hosts again",
    });
  }

  async #standing(): Promise<DestinationStanding> {
    return destinationStanding(
      await this.#options.vm.status(),
      this.#states().at(-1) as DestinationJournalState,
    );
  }

  async #takeOver(standing: DestinationStanding): Promise<void> {
    if (standing === "running") return this.#note("so: the VM is here already");
    if (standing !== "loaded" && standing !== "taking") {
      const what = destinationWords[standing];
      throw new MigrationError("refused", `Cannot run the VM here: this side ${what}`, {
        hint: "only a copy that was loaded whole can run",
      });
    }
    await this.#run({ declaredDead: "source" });
  }

  async #run(note: Record<string, unknown> = {}): Promise<void> {
    const { vm, entries } = this.#options;
    if (this.#states().at(-1) !== "taking") await this.#append("taking", note);
    if (entries[0]!["before"] === "running" && (await vm.status()).runState !== "running") {
      await vm.resume();
    }
    await vm.announce();
    await this.#append("running");
    this.#destinationState = String(entries[0]!["before"]);
    this.#note(`the VM ${this.#destinationState === "running" ? "runs" : "is"} here`);
  }

  // ---- both ----

  /** Meets the other side and exchanges STATUS; null when it cannot be reached. */
  async #meet(): Promise<Met | null> {
    const { meet, side, declareDead, signal } = this.#options;
    const met = "dial" in meet
      ? await this.#dial(meet.dial)
      : await this.#listen(meet.listener, declareDead ? REACH_MS : null);
    if (signal.aborted) {
      met?.connection[Symbol.dispose]();
      throw new MigrationError("interrupted", "Cannot go on: recover was cancelled");
    }
    if (met !== null && met.status.side === side) {
      met.connection[Symbol.dispose]();
      throw new MigrationError(
        "refused",
        `Cannot settle this: both sides say that they were the ${side}`,
      );
    }
    return this.#met = met;
  }

  /** As it is now, not when the waiting began. */
  async #status(): Promise<StatusMessage> {
    const { runState, migration } = await this.#options.vm.status();
    const { side } = this.#options;
    return { type: "STATUS", side, journal: this.#states().at(-1)!, runState, migration };
  }

  async #dial(dial: () => Promise<Transport>): Promise<Met | null> {
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
        this.#somebodyThere = true;
        const met = await this.#greet(transport);
        if (met !== null) return met;
      } catch (error) {
        why = messageOf(error);
      } finally {
        timer.clear();
        signal.removeEventListener("abort", stop);
      }
      await this.#pause(RETRY_MS);
    }
    this.#note(why);
    return null;
  }

  async #greet(transport: Transport): Promise<Met | null> {
    const { identity, peerKey, clock } = this.#options;
    const { connection } = await connect(transport, {
      identity,
      remotePublic: peerKey,
      migrationId: fromHex(this.#options.id),
      clock,
      kind: RECOVER,
      psk: NO_PSK,
      onCut: () => {},
    });
    connection.send(await this.#status());
    const answer = await this.#next(connection);
    if (answer?.type === "STATUS") return { connection, status: answer };
    connection[Symbol.dispose]();
    return null;
  }

  async #listen(listener: TransportListener, forMs: number | null): Promise<Met | null> {
    const { identity, peerKey, clock, signal, id } = this.#options;
    const admission = new Admission({
      identity,
      allowed: [peerKey],
      clock,
      joinKey: () => null,
      mayRecover: (migrationId) => migrationId === id,
    });
    const stop = () => listener.close();
    const timer = forMs === null ? null : clock.timer(forMs, stop);
    signal.addEventListener("abort", stop);
    const found = Promise.withResolvers<Recovering | null>();
    let taken = false;
    const letIn = async (transport: Transport) => {
      const admitted = await admission.admit(transport);
      if (admitted === null) return;
      if (admitted.kind !== RECOVER || taken) return admitted.connection[Symbol.dispose]();
      taken = true;
      found.resolve(admitted);
    };
    // Side by side: a silent connection keeps nobody out.
    const accepting = async () => {
      for (;;) void letIn(await listener.accept());
    };
    // Closed: nobody came in time, or the operator ended it.
    accepting().catch(() => found.resolve(null));
    try {
      const admitted = await found.promise;
      if (admitted === null) return null;
      admitted.connection.send(await this.#status());
      return { connection: admitted.connection, status: admitted.status };
    } finally {
      timer?.clear();
      signal.removeEventListener("abort", stop);
      admission.close();
    }
  }

  /** Says `message` and waits for one of `answers`. */
  async #ask(message: Message, answers: readonly Message["type"][]): Promise<Message> {
    const { connection } = this.#met!;
    connection.send(message);
    for (let next; (next = await this.#next(connection)) !== null;) {
      if (answers.includes(next.type)) return next;
      if (next.type === "RUNNING" && message.type === "DISCARD") {
        throw new MigrationError(
          "unknownOutcome",
          "Cannot discard the destination's copy: it runs",
          {
            hint: "run `recover` again",
          },
        );
      }
      if (next.type === "ABORT") {
        throw new MigrationError(
          "unknownOutcome",
          `Cannot settle this yet: the destination says: ${next.text}`,
          {
            hint: "mend what it says there, then run `recover` again",
          },
        );
      }
    }
    throw new MigrationError(
      "unknownOutcome",
      `Cannot know what became of ${message.type}: the connection was lost`,
      {
        hint: "run `recover` again",
      },
    );
  }

  async #next(connection: Connection): Promise<Message | null> {
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

  async #leave(): Promise<void> {
    this.#met?.connection.send({ type: "DONE" });
    await this.#met?.connection.finish(1_000);
  }

  #states(): (SourceJournalState | DestinationJournalState)[] {
    return [...this.#options.entries.map((entry) => entry.state), ...this.#appended];
  }

  #timeOf(state: string): string {
    return this.#options.entries.findLast((entry) => entry.state === state)?.time ??
      "the copy was loaded";
  }

  async #append(
    state: SourceJournalState | DestinationJournalState,
    note: Record<string, unknown> = {},
  ): Promise<void> {
    const time = this.#options.clock.date().toISOString();
    await this.#options.journal.append({ ...note, state, time, by: "recover" });
    this.#appended.push(state);
  }

  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#options.clock.timer(ms, resolve);
    this.#options.signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    timer.clear();
  }

  #note(text: string): void {
    this.#notes.push(text);
    this.#options.onNote?.(text);
  }
}

function unlessGone(runState: string): string {
  return runState === "gone" ? "" : ` (${runState})`;
}

function notDead(side: "source" | "destination", why: string): MigrationError {
  return new MigrationError("refused", `Cannot take the ${side} for dead: ${why}`, {
    hint: "run `recover` without --declare-dead",
  });
}

function fromHex(id: string): Uint8Array {
  return Uint8Array.from(
    { length: id.length / 2 },
    (_, i) => parseInt(id.slice(2 * i, 2 * i + 2), 16),
  );
}
