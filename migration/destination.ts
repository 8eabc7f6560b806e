/**
 * The destination's machine: lets one source in, lands what it verified, takes over (the paper's Fig. 10;
 * PROTOCOL.md sections 2 to 7).
 *
 * Its VM runs only after FINISH was checked, everything is loaded, and the source has said RELEASE.
 *
 * @module
 */

import type { Connection } from "./connection.ts";
import { type Admitted, equal, type Joining, type Recovering } from "./admission.ts";
import { Candidate } from "./candidate.ts";
import { Door } from "./destination_door.ts";
import type { DestinationLinkEvents } from "./destination_link.ts";
import type { DestinationOptions } from "./destination_options.ts";
import { Place } from "./destination_place.ts";
import { destinationResult } from "./destination_result.ts";
import { MigrationError } from "./errors.ts";
import { abortMessage, journalError, messageOf } from "./failure.ts";
import { encodeKey } from "./identity.ts";
import type { AbortMessage, AcceptMessage, FinishMessage, Message } from "./messages.ts";
import { SILENCE_RECOVER_MS } from "./limits.ts";
import { quiet } from "./observers.ts";
import type { DestinationJournalState, Journal, PageSink, StateBefore, VmEnd } from "./ports.ts";
import type { Profile } from "./profile.ts";
import { profiles } from "./profiles.ts";
import type { RecordContent } from "./record_content.ts";
import type { MigrationResult } from "./result.ts";
import { SpacedNotes } from "./spaced_notes.ts";
import { type DestinationState, destinationTransitions, StateMachine } from "./states.ts";
import { Waiter } from "./waiter.ts";

/** A migration's destination. One instance takes one VM, once. */
export class Destination {
  readonly #options: DestinationOptions;
  readonly #profile: Profile;
  readonly #machine: StateMachine<DestinationState>;
  readonly #waiter = new Waiter();
  readonly #place = new Place();
  readonly #door: Door;
  readonly #startedAtMs: number;
  #opening: Promise<PageSink> | null = null;
  #sink: PageSink | null = null;
  #journal: Journal | null = null;
  /** A byte may have reached QEMU: it cannot take another migration. */
  #touched = false;
  #finish: FinishMessage | null = null;
  #loadedOnce = false;
  /** The source has not heard yet that its copy was discarded. */
  #lingering = false;
  #released = false;
  /** Journal `taking` is written. */
  #taken = false;
  /** DISCARD or ABORT came. */
  #dismissed: AbortMessage | { type: "DISCARD" } | null = null;
  #doneSaid = false;
  #cut: MigrationError | null = null;
  #stopAsked = false;
  #gone = false;
  #resumedAtMs: number | null = null;
  #journalState: DestinationJournalState = "open";
  /** What ABORT says, in `refusing` and `stuck`. */
  #refusal: AbortMessage | null = null;
  #destinationState: MigrationResult["destinationState"] = null;
  #lastState: DestinationState = "listening";
  #tampered = false;
  /** Records that were damaged: they may be many. */
  readonly #mistakes: SpacedNotes;

  /** Listens to nobody yet. */
  constructor(options: DestinationOptions) {
    this.#options = { ...options, onNote: quiet(options.onNote) };
    this.#profile = profiles[options.profile ?? "sealed"];
    this.#startedAtMs = options.clock.now();
    this.#mistakes = new SpacedNotes(options.clock);
    this.#door = new Door(this.#options, {
      profile: this.#profile,
      place: this.#place,
      events: {
        onAccepted: (admitted, answer) => this.#newCandidate(admitted, answer),
        onJoin: (joining) => this.#join(joining),
        onRecover: (recovering) => this.#answerRecover(recovering),
      },
    });
    this.#machine = new StateMachine<DestinationState>("listening", {
      transitions: destinationTransitions,
      entered: options.entered,
    });
  }

  /** Where the migration is. */
  get state(): DestinationState {
    return this.#machine.state;
  }

  /** The id of the migration that is bound; null before. */
  get id(): string | null {
    return this.#place.bound?.admitted.migrationId ?? null;
  }

  /** Guest bytes landed so far. */
  get landedBytes(): number {
    return this.#place.candidate?.queue.bytes ?? 0;
  }

  /** Takes one VM. Never throws for what may happen to a migration: the result says how it ended. */
  async run(): Promise<MigrationResult> {
    const { vm, signal } = this.#options;
    const stop = () => {
      this.#stopAsked = true;
      this.#interrupt(new MigrationError("interrupted", "Cannot go on: receiving was cancelled"));
    };
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    vm.onEnd = (end) => this.#vmEnded(end);
    this.#door.open();
    let failure: unknown = null;
    try {
      await this.#waiter.until(() => this.#place.bound);
      await this.#receive();
      await this.#takeOver();
    } catch (error) {
      failure = error;
      this.#place.close();
      await this.#leave(error).catch((worse) => this.#note(messageOf(worse), this.id));
    } finally {
      this.#place.close();
      signal.removeEventListener("abort", stop);
      vm.onEnd = null;
      await this.#linger();
      this.#door.close();
      await this.#place.candidate?.link.finish(1_000);
      await this.#door.ended();
      this.#place[Symbol.dispose]();
      this.#sink?.close();
      this.#journal?.close();
    }
    return this.#result(failure);
  }

  // ---- who is let in ----

  #newCandidate(
    admitted: Admitted,
    answer: { accept: AcceptMessage; acceptBytes: Uint8Array },
  ): Candidate {
    const { registry, clock, vm } = this.#options;
    const candidate: Candidate = new Candidate({
      admitted,
      ...answer,
      profile: this.#profile,
      registry,
      clock,
      ownBlocks: vm.facts.blocks,
      onSetup: (setup) => this.#open(setup),
      events: this.#eventsOf(() => candidate),
    });
    return candidate;
  }

  #eventsOf(candidate: () => Candidate): DestinationLinkEvents {
    const migrationId = () => candidate().admitted.migrationId;
    return {
      onRecord: (record) => this.#land(candidate(), record),
      onMessage: (message) => this.#handle(candidate(), message),
      onMistake: (sequence) => this.#mistake(sequence),
      onCut: (error) => {
        // Nobody is told any more, unless the one that waits to be told has only come and gone.
        if (this.#doneSaid || this.state === "discarded") return this.#lingering;
        this.#note(error.message, migrationId());
        // One that is not bound may join again as well, unless another takes its place meanwhile.
        return this.#place.candidate === candidate();
      },
      onJoined: () => {
        this.#note("The source has joined again", migrationId());
        this.#sayAgain();
        this.#waiter.wake();
      },
      onFault: (error) => {
        if (this.#place.bound !== null) this.#interrupt(error);
        else this.#place.giveUp(candidate().admitted);
      },
      onLost: (error) => {
        if (this.#place.bound === null) return this.#place.giveUp(candidate().admitted);
        this.#cut = error;
        this.#interrupt(error);
      },
    };
  }

  /** Says that a record was damaged, but not once for each where they are many. */
  #mistake(sequence: number): void {
    const count = this.#mistakes.count();
    if (count === 0) return;
    this.#note(
      count === 1
        ? `Record ${sequence} was damaged on the way`
        : `${count} more records were damaged on the way, the last is record ${sequence}`,
      this.id,
    );
  }

  /** `recover` at the source. */
  async #answerRecover({ connection, status, migrationId }: Recovering): Promise<void> {
    if (status.side !== "source") return connection[Symbol.dispose]();
    const candidate = this.#place.bound!;
    const { link } = candidate;
    candidate.recover();
    if (!await link.replace(connection)) return;
    // What is being loaded will be loaded, or fail: only then is there something to report.
    let runState: string;
    do {
      await this.#leftLoading(connection);
      runState = await this.#options.vm.status().catch(() => "unknown");
      // Another one may have come, and closed this one.
      if (connection.closed) return;
    } while (this.state === "loading");
    connection.send({
      type: "STATUS",
      side: "destination",
      journal: this.#journalState,
      runState,
      migration: this.#loadedOnce && runState !== "gone" ? "completed" : null,
    });
    this.#note("The source recovers", migrationId);
    await link.serve(connection, { silenceMs: SILENCE_RECOVER_MS });
  }

  async #leftLoading(connection: Connection): Promise<void> {
    const { clock } = this.#options;
    while (this.state === "loading" && !connection.closed) {
      const { promise, resolve } = Promise.withResolvers<void>();
      clock.timer(RETRY_MS / 10, resolve);
      await promise;
    }
  }

  async #join({ connection, resume }: Joining): Promise<void> {
    const { candidate } = this.#place;
    // Its handshake may have begun before a RECOVER ended the join key.
    if (candidate === null || candidate.recovered) return connection[Symbol.dispose]();
    await candidate.link.join(connection, resume);
  }

  /** Says what the state wants said, after a step and on every new connection. All of it is idempotent. */
  #sayAgain(): void {
    const candidate = this.#place.bound;
    if (candidate === null) return;
    const { link, queue } = candidate;
    switch (this.state) {
      case "loaded":
        return link.send({ type: "LOADED", pages: queue.pages, records: link.records });
      case "running":
        return this.#sayRunning();
      case "refusing":
      case "stuck":
        if (this.#refusal !== null) link.send(this.#refusal);
        return;
      case "discarded":
        link.send({ type: "DISCARDED" });
        if (link.connected) this.#lingering = false;
    }
  }

  #send(message: Message): void {
    this.#place.bound?.link.send(message);
  }

  /** A copy that was discarded after EOF: the source may wait to hear of it, on another connection. */
  async #linger(): Promise<void> {
    const link = this.#place.bound?.link;
    if (this.state !== "discarded" || !this.#loadedOnce || link === undefined) return;
    const onOver = () => {
      this.#lingering = false;
      this.#waiter.wake();
    };
    this.#lingering = !link.connected;
    link.waitForAnother(onOver);
    await this.#waiter.until(() => !this.#lingering || this.#stopAsked || this.#cut !== null)
      .catch(() => {});
  }

  // ---- what comes from the source ----

  #land(candidate: Candidate, record: RecordContent): void | Promise<void> {
    if (this.#place.closed) return;
    if (this.#place.bound === null) {
      this.#place.bind(candidate);
      this.#waiter.wake();
    }
    return candidate.land(record);
  }

  #handle(candidate: Candidate, message: Message): void {
    if (this.#place.bound === null && message.type !== "PING") {
      // Whatever it says before the first record opened ends this connection, and nothing else.
      throw new MigrationError("protocol", `Cannot go on: ${message.type} came before a record`);
    }
    switch (message.type) {
      case "FINISH":
        candidate.link.checkDue(message.lanes);
        // Nothing was outstanding when it was said: a record that comes now is somebody else's.
        candidate.link.refuseRecords();
        this.#finish = message;
        // It was loaded already, and LOADED got lost.
        if (this.state === "loaded") this.#sayAgain();
        break;
      case "RELEASE":
        if (this.state in { listening: 1, receiving: 1, loading: 1 }) {
          throw new MigrationError("protocol", "Cannot go on: RELEASE came before LOADED");
        }
        this.#released = true;
        if (this.state in { refusing: 1, stuck: 1, running: 1, discarded: 1 }) this.#sayAgain();
        break;
      case "DONE":
        // Over RECOVER it may also mean that the source's side could not decide.
        this.#doneSaid = this.state === "running";
        break;
      case "DISCARD":
      case "ABORT":
        // It may be the only copy, and it runs; or it is gone already.
        if (this.state in { running: 1, discarded: 1 }) {
          this.#sayAgain();
          break;
        }
        if (message.type === "ABORT" && message.code === "tampering") this.#tampered = true;
        this.#dismissed = message;
        this.#interrupt(
          new MigrationError(
            this.#tampered ? "tampering" : "interrupted",
            message.type === "DISCARD"
              ? "Cannot go on: the source took the VM back"
              : `Cannot go on: the source gave up: ${message.text}`,
          ),
        );
        break;
      default:
        throw new MigrationError(
          "protocol",
          `Cannot go on: ${message.type} is not for a destination`,
        );
    }
    this.#waiter.wake();
  }

  // ---- the switchover ----

  /** SETUP is whole: the journal first, then QEMU's incoming side. */
  #open(setup: Uint8Array): Promise<PageSink> {
    return this.#opening = this.#openVm(setup);
  }

  async #openVm(setup: Uint8Array): Promise<PageSink> {
    const { vm, journals, clock, allowed } = this.#options;
    const { admitted, accept } = this.#place.bound!;
    const peer = allowed.find(({ publicKey }) => equal(publicKey, admitted.publicKey))!;
    try {
      this.#journal = await journals.create(admitted.migrationId, "destination", {
        state: "open",
        time: clock.date().toISOString(),
        version: 1,
        id: admitted.migrationId,
        side: "destination",
        vm: {
          name: admitted.offer.name,
          uuid: admitted.offer.uuid,
          memoryBytes: admitted.offer.memoryBytes,
        },
        ...this.#options.journalFacts,
        qemu: vm.facts.process,
        before: admitted.offer.before,
        peer: { name: peer.name, publicKey: encodeKey(peer.publicKey) },
        suites: accept.suites,
      });
    } catch (cause) {
      throw journalError(cause);
    }
    this.#waiter.check();
    const sink = this.#sink = await vm.open();
    this.#waiter.check();
    this.#touched = true;
    await sink.setup(setup);
    return sink;
  }

  async #receive(): Promise<void> {
    await this.#enter("receiving");
    const finish = await this.#waiter.until(() => this.#finish);
    const { link, queue } = this.#place.bound!;
    const { count, sha256 } = link.damaged.digest();
    if (
      finish.lanes.length !== 1 || finish.lanes[0]!.lane !== 0 ||
      finish.lanes[0]!.sequence !== link.nextSequence - 1 ||
      finish.records !== link.records || finish.pages !== queue.pages || queue.state === null ||
      finish.damaged.count !== count || finish.damaged.sha256 !== sha256
    ) {
      throw new MigrationError(
        "protocol",
        "Cannot load the VM: what came is not what the source says it sent",
      );
    }
    await this.#enter("loading");
    this.#waiter.check();
    // From the first byte of EOF on no timer and no Ctrl-C discards: only the source's word, or QEMU's failure.
    this.#waiter.shield();
    this.#loadedOnce = true;
    await queue.sink!.load(queue.state);
    try {
      await this.#append({ state: "loaded" });
    } catch (error) {
      return await this.#refuse(error);
    }
    await this.#enter("loaded");
    // Whoever asked for the end meanwhile must not be released: the source goes on instead.
    if (!this.#stopAsked) this.#sayAgain();
  }

  async #takeOver(): Promise<void> {
    await this.#waiter.until(() =>
      this.#released || this.#dismissed || this.#gone || this.#cut || this.#stopAsked
    );
    if (this.#dismissed !== null) throw dismissal(this.#dismissed);
    if (this.#gone) {
      return await this.#refuse(
        new MigrationError("vm", "Cannot run the VM: the destination's QEMU is gone"),
      );
    }
    if (!this.#released) {
      this.#destinationState = "paused";
      await this.#enter("unknown");
      throw new MigrationError(
        "unknownOutcome",
        `Cannot know whether the VM may run here: ${
          this.#stopAsked ? "receiving was cancelled" : "the connection is lost"
        } after it was loaded`,
        { cause: this.#cut },
      );
    }
    await this.#enter("taking");
    const resumedAtMs = await this.#run();
    const announced = this.#before === "running" ? this.#options.vm.announce() : Promise.resolve();
    this.#destinationState = this.#before;
    // The VM runs: a full disk changes nothing about that.
    await this.#append({ state: "running" }).catch((error) =>
      this.#note(messageOf(error), this.id)
    );
    await this.#enter("running");
    this.#resumedAtMs = resumedAtMs;
    this.#sayRunning();
    await announced;
    await this.#waiter.until(() => this.#doneSaid || this.#cut || this.#stopAsked);
  }

  /**
   * After EOF, without a way to `taking`: says so, and discards when the source says so too. Without its word a copy
   * that is still there stays: it may be the only one.
   */
  async #refuse(error: unknown): Promise<never> {
    await this.#enter("refusing");
    this.#send(this.#refusal = abortMessage(error));
    await this.#waiter.until(() => this.#dismissed || this.#cut || this.#stopAsked);
    if (this.#dismissed === null && !this.#gone) {
      this.#destinationState = "paused";
      await this.#enter("unknown");
      throw new MigrationError("unknownOutcome", `Cannot take the VM: ${messageOf(error)}`, {
        cause: error,
      });
    }
    throw error;
  }

  /**
   * Journal `taking`, then `cont`, again and again while either fails; never discards unasked: this may be
   * the only copy. @returns the monotonic ms of RESUME
   */
  async #run(): Promise<number> {
    const { vm, clock } = this.#options;
    const { offer } = this.#place.bound!.admitted;
    const untilMs = clock.now() + offer.limits.maxStopMs;
    let failure: unknown = null;
    for (;;) {
      let letGo = false;
      try {
        letGo = this.#dismissed !== null && await this.#neverRan();
        if (!letGo) {
          if (!this.#taken) await this.#append({ state: "taking" });
          this.#taken = true;
          if (this.#before === "running") return await vm.run();
          if (!this.#gone) return clock.now();
          throw new Error("its process is gone");
        }
      } catch (error) {
        if (this.#gone) {
          throw new MigrationError("vm", "Cannot run the VM: the destination's QEMU is gone", {
            cause: error,
          });
        }
        failure = error;
        if (this.state !== "stuck") {
          await this.#enter("stuck");
          this.#send(this.#refusal = { ...abortMessage(error), code: "cannotRun" });
        }
        if (clock.now() >= untilMs || this.#stopAsked) {
          this.#destinationState = "paused";
          await this.#enter("unknown");
          throw new MigrationError("unknownOutcome", `Cannot run the VM: ${messageOf(error)}`, {
            cause: error,
          });
        }
        const pause = Promise.withResolvers<void>();
        clock.timer(RETRY_MS, pause.resolve);
        await pause.promise;
      }
      if (letGo) throw failure ?? dismissal(this.#dismissed!);
    }
  }

  /** A `cont` whose answer was lost may have worked: a copy is let go only when it is seen not to run. Of one that is gone, `run` knows. */
  async #neverRan(): Promise<boolean> {
    if (!this.#taken) return true;
    return !this.#gone && !(await this.#options.vm.status() in { running: 1, gone: 1 });
  }

  #sayRunning(): void {
    const { vm, clock, agentCpuSeconds } = this.#options;
    const qemuSeconds = vm.cpuSeconds();
    this.#send({
      type: "RUNNING",
      sinceResumeUs: Math.max(0, Math.round((clock.now() - this.#resumedAtMs!) * 1000)),
      cpuMs: {
        agent: Math.round(agentCpuSeconds() * 1000),
        qemu: qemuSeconds === null ? null : Math.round(qemuSeconds * 1000),
      },
    });
  }

  get #before(): StateBefore {
    return this.#place.bound!.admitted.offer.before;
  }

  // ---- the ways out ----

  /** Ends our side after `error`: discards what may be discarded, and says so. */
  async #leave(error: unknown): Promise<void> {
    const { vm } = this.#options;
    if (this.state === "unknown" || this.state === "running") return;
    // An incoming side that is just being opened must not be opened behind our back.
    await this.#opening?.catch(() => {});
    if (this.state === "listening" || (this.state === "receiving" && !this.#touched)) {
      this.#sayAbort(error);
      await vm.restore();
      if (this.#journal !== null) await this.#append({ state: "discarded" }).catch(() => {});
      return await this.#enter("failed");
    }
    if (
      this.state in { loaded: 1, taking: 1, stuck: 1 } && this.#dismissed === null && !this.#gone
    ) {
      return await this.#enter("unknown");
    }
    if (this.#dismissed === null) this.#sayAbort(error);
    await this.#enter("discarding");
    this.#sink?.close();
    await vm.quit();
    try {
      await this.#append({ state: "discarded" });
    } catch (cause) {
      // A QEMU that is gone under a journal before `taking` has not run: that says the same.
      if (this.#taken) throw cause;
      this.#note(messageOf(cause), this.id);
    }
    await this.#enter("discarded");
    this.#destinationState = "discarded";
    this.#sayAgain();
  }

  #sayAbort(error: unknown): void {
    this.#send(abortMessage(error));
  }

  #interrupt(reason: MigrationError): void {
    this.#waiter.interrupt(reason);
  }

  #vmEnded(end: VmEnd): void {
    if (end.kind === "gone") this.#gone = true;
    const text = end.kind === "gone" ? "its process is gone" : end.text;
    this.#interrupt(
      new MigrationError("vm", `Cannot go on: the destination's QEMU failed: ${text}`),
    );
  }

  async #enter(state: DestinationState): Promise<void> {
    if (!(state in { discarding: 1, discarded: 1, failed: 1, unknown: 1 })) this.#lastState = state;
    await this.#machine.enter(state);
  }

  async #append(entry: { state: "loaded" | "taking" | "running" | "discarded" }): Promise<void> {
    try {
      const time = this.#options.clock.date().toISOString();
      const hits = this.#place.bound?.link.hits ?? [];
      const audit = hits.length > 0 && (entry.state === "running" || entry.state === "discarded")
        ? { mistakes: this.#place.bound!.link.damaged.count, hits }
        : {};
      await this.#journal?.append({ time, ...audit, ...entry });
      this.#journalState = entry.state;
    } catch (cause) {
      throw journalError(cause);
    }
  }

  #note(text: string, migrationId: string | null): void {
    this.#options.onNote?.({ text, migrationId });
  }

  #result(failure: unknown): MigrationResult {
    return destinationResult({
      options: this.#options,
      profile: this.#profile.id,
      startedAtMs: this.#startedAtMs,
      failure,
      arrived: this.#place.bound?.arrived() ?? null,
      tampered: this.#tampered,
      destinationState: this.#destinationState,
      lastState: this.#lastState,
      notes: this.#door.probe?.notes ?? [],
    });
  }
}

/** Between two tries of `cont`, in milliseconds: an image lock goes when the source's process does. */
const RETRY_MS = 200;

function dismissal(message: AbortMessage | { type: "DISCARD" }): MigrationError {
  if (message.type === "DISCARD") {
    return new MigrationError("interrupted", "Cannot go on: the source took the VM back");
  }
  return new MigrationError(
    message.code === "tampering" ? "tampering" : "interrupted",
    `Cannot go on: the source gave up: ${message.text}`,
  );
}
