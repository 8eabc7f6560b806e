/**
 * The destination's machine: lets one source in, lands what it verified, takes over (the paper's Fig. 10;
 * PROTOCOL.md sections 2 to 7).
 *
 * Its VM runs only after FINISH was checked, everything is loaded, and the source has said RELEASE.
 *
 * @module
 */

import { Admission, type Admitted, equal } from "./admission.ts";
import type { CipherRegistry } from "../ciphers/registry.ts";
import { MigrationError } from "./errors.ts";
import { type Frame, FRAME_DATA } from "./frame.ts";
import { decodeKey, encodeKey, type Identity } from "./identity.ts";
import { deriveMigrationSecret, KeySchedule } from "./key_schedule.ts";
import { LandingQueue } from "./landing_queue.ts";
import { ACK_INTERVAL_BYTES, SILENCE_MS } from "./limits.ts";
import {
  type AbortMessage,
  type AcceptMessage,
  decodeMessage,
  type FinishMessage,
  type Message,
  negotiateSuites,
  type PageClass,
  pageClasses,
  type RefuseMessage,
  type SuiteOffers,
} from "./messages.ts";
import { checkOffer } from "./offer_check.ts";
import type {
  Clock,
  DestinationVm,
  Journal,
  JournalStore,
  LandingProbe,
  PageSink,
  StateBefore,
  TransportListener,
  VmEnd,
} from "./ports.ts";
import { RecordOpener } from "./record_opener.ts";
import { type MigrationResult, outcomeOf } from "./result.ts";
import { journalError, SHA256_OF_NOTHING } from "./source.ts";
import {
  type DestinationState,
  destinationTransitions,
  type EnteredHook,
  StateMachine,
} from "./states.ts";
import { Waiter } from "./waiter.ts";

/** Everything a destination needs. */
export interface DestinationOptions {
  /** The VM that waits. */
  vm: DestinationVm;
  /** Where sources call. */
  listener: TransportListener;
  /** This host's key. */
  identity: Identity;
  /** Public keys that may open a migration, and what the operator calls them. */
  allowed: readonly { publicKey: Uint8Array; name: string }[];
  /** Where suites are found by their ids. */
  registry: CipherRegistry;
  /** Acceptable suites per class. */
  suites: SuiteOffers;
  /** Bytes of damaged records that may be sent again, in all; the smaller of both sides' holds. */
  repairBudgetBytes: number;
  /** Where this side's journal is kept. */
  journals: JournalStore;
  /** Time and timers. */
  clock: Clock;
  /** The operator's wish to end it. */
  signal: AbortSignal;
  /** In the place of the VM's UUID; the source has to be given the same. */
  vmId?: string | undefined;
  /** Called at each state; the migration waits for it. */
  entered?: EnteredHook<DestinationState> | undefined;
  /** Something a person may want to know; the machine goes on listening. */
  onNote?: ((note: { text: string; migrationId: string | null }) => void) | undefined;
  /** CPU seconds of this process so far. */
  agentCpuSeconds: () => number;
}

/** A migration that was accepted; bound once its first record has opened. */
interface Candidate {
  admitted: Admitted;
  accept: AcceptMessage;
  schedule: KeySchedule;
  opener: RecordOpener;
  queue: LandingQueue;
  /** Records opened, and found damaged. */
  records: number;
  mistakes: number;
  acknowledged: number;
  unacknowledgedBytes: number;
  ackTimer: { clear(): void } | null;
  /** A landing is waited for: nothing is read meanwhile, so that silence says nothing. */
  landing: boolean;
}

/** A migration's destination. One instance takes one VM, once. */
export class Destination {
  readonly #options: DestinationOptions;
  readonly #machine: StateMachine<DestinationState>;
  readonly #waiter = new Waiter();
  readonly #admission: Admission;
  readonly #startedAtMs: number;
  #probe: LandingProbe | null = null;
  /** Who has the place of the one migration: set together with the decision to say ACCEPT. */
  #claim: Admitted | null = null;
  /** That of the claim, once its keys are derived. */
  #candidate: Candidate | null = null;
  #bound = false;
  /** Over, however it went: nobody is let in, nothing more lands. */
  #leaving = false;
  #opening: Promise<PageSink> | null = null;
  #sink: PageSink | null = null;
  #journal: Journal | null = null;
  /** A byte may have reached QEMU: it cannot take another migration. */
  #touched = false;
  #finish: FinishMessage | null = null;
  #released = false;
  /** Journal `taking` is written. */
  #taken = false;
  /** DISCARD or ABORT came. */
  #dismissed: AbortMessage | { type: "DISCARD" } | null = null;
  #doneSaid = false;
  #cut: MigrationError | null = null;
  #stopAsked = false;
  #gone = false;
  #silence: { clear(): void } | null = null;
  #destinationState: MigrationResult["destinationState"] = null;
  #lastState: DestinationState = "listening";
  #tampered = false;

  /** Listens to nobody yet. */
  constructor(options: DestinationOptions) {
    this.#options = options;
    this.#startedAtMs = options.clock.now();
    this.#admission = new Admission({
      identity: options.identity,
      allowed: options.allowed.map((peer) => peer.publicKey),
      clock: options.clock,
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
    return this.#bound ? this.#candidate!.admitted.migrationId : null;
  }

  /** Guest bytes landed so far. */
  get landedBytes(): number {
    return this.#candidate?.queue.bytes ?? 0;
  }

  /** Takes one VM. Never throws for what may happen to a migration: the result says how it ended. */
  async run(): Promise<MigrationResult> {
    const { vm, signal, listener } = this.#options;
    const stop = () => {
      this.#stopAsked = true;
      this.#interrupt(new MigrationError("interrupted", "Cannot go on: receiving was cancelled"));
    };
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    vm.onEnd = (end) => this.#vmEnded(end);
    const accepting = this.#accept();
    let failure: unknown = null;
    try {
      await this.#waiter.until(() => this.#bound);
      await this.#receive();
      await this.#takeOver();
    } catch (error) {
      failure = error;
      this.#leaving = true;
      await this.#leave(error).catch((worse) => this.#note(messageOf(worse), this.id));
    } finally {
      this.#leaving = true;
      signal.removeEventListener("abort", stop);
      vm.onEnd = null;
      this.#silence?.clear();
      listener.close();
      this.#admission.close();
      await this.#candidate?.admitted.connection.finish(1_000);
      await accepting;
      if (this.#candidate !== null) dropCandidate(this.#candidate);
      this.#sink?.close();
      this.#journal?.close();
    }
    return this.#result(failure);
  }

  // ---- letting a source in ----

  async #accept(): Promise<void> {
    const { listener } = this.#options;
    const serving = new Set<Promise<void>>();
    try {
      for (;;) {
        const transport = await listener.accept();
        const one = this.#serve(transport).catch(() => {}).finally(() => serving.delete(one));
        serving.add(one);
      }
    } catch {
      // The listener was closed.
    }
    await Promise.all(serving);
  }

  /** One connection, from its first byte to its last. */
  async #serve(transport: Awaited<ReturnType<TransportListener["accept"]>>): Promise<void> {
    const admitted = await this.#admission.admit(transport);
    if (admitted === null) {
      return this.#note("A connection did not prove an allowed key, and was dropped", null);
    }
    try {
      await this.#converse(admitted);
    } catch (error) {
      this.#note(messageOf(error), admitted.migrationId);
      if (this.#claim === admitted && !this.#bound) this.#giveUpClaim(admitted);
    } finally {
      // Who has the place ends its connection in its own time.
      if (this.#claim !== admitted) admitted.connection[Symbol.dispose]();
    }
  }

  async #converse(admitted: Admitted): Promise<void> {
    const { connection, offer, migrationId } = admitted;
    const answer = await this.#answer(admitted);
    if (answer.type === "REFUSE") {
      connection.send(answer);
      this.#note(`Refused: ${answer.text}`, migrationId);
      return await connection.finish(1_000);
    }
    const acceptBytes = connection.send(answer);
    if (offer.dryRun) {
      this.#note("Answered a dry run", migrationId);
      return await connection.finish(1_000);
    }
    const candidate = await this.#newCandidate(admitted, answer, acceptBytes);
    if (this.#claim !== admitted || this.#leaving) return dropCandidate(candidate);
    this.#candidate = candidate;
    this.#watchSilence(candidate);
    await this.#read(candidate);
  }

  async #answer(admitted: Admitted): Promise<AcceptMessage | RefuseMessage> {
    const { vm, journals, suites, registry, vmId, repairBudgetBytes } = this.#options;
    const { offer, migrationId, publicKey } = admitted;
    const checked = checkOffer(offer, { facts: vm.facts, vmId });
    if (checked.refusal !== null) return checked.refusal;
    const chosen = negotiateSuites(offer.suites, suites);
    for (const pageClass of pageClasses) {
      if (chosen[pageClass] === null) {
        return refuse(
          "policy",
          `no cipher suite for pages of class ${pageClass} is acceptable to both sides`,
        );
      }
    }
    if (await journals.has(migrationId, "destination")) {
      return refuse("state", "this host has seen this migration before");
    }
    if (offer.dryRun) {
      try {
        await journals.check();
      } catch (error) {
        return refuse("state", messageOf(error));
      }
    }
    try {
      this.#probe ??= await vm.probe();
    } catch (error) {
      return refuse("landing", messageOf(error));
    }
    // Asked last, with nothing awaited after it: two sources cannot both be let in.
    const other = this.#claim;
    if (this.#bound || (other !== null && !equal(other.publicKey, publicKey))) {
      return refuse("busy", "another migration is under way here");
    }
    if (this.#leaving) return refuse("state", "this side is about to end");
    if (!offer.dryRun) {
      if (other !== null) this.#giveUpClaim(other);
      this.#claim = admitted;
    }
    return {
      type: "ACCEPT",
      suites: chosen as Record<PageClass, string>,
      landing: this.#probe.landing,
      backend: registry.get(chosen.user!).backend,
      notes: this.#probe.notes,
      warnings: checked.warnings,
      limits: {
        ...offer.limits,
        repairBudgetBytes: Math.min(offer.limits.repairBudgetBytes, repairBudgetBytes),
      },
      qemuVersion: vm.facts.qemuVersion,
      destinationRandom: encodeKey(crypto.getRandomValues(new Uint8Array(32))),
    };
  }

  /** Nothing is bound: the place is free again. */
  #giveUpClaim(claim: Admitted): void {
    this.#claim = null;
    claim.connection[Symbol.dispose]();
    if (this.#candidate === null) return;
    this.#silence?.clear();
    dropCandidate(this.#candidate);
    this.#candidate = null;
  }

  async #newCandidate(
    admitted: Admitted,
    accept: AcceptMessage,
    acceptBytes: Uint8Array,
  ): Promise<Candidate> {
    const { registry } = this.#options;
    const secret = await deriveMigrationSecret({
      handshakeHash: admitted.handshakeHash,
      sourceRandom: decodeKey(admitted.offer.sourceRandom),
      destinationRandom: decodeKey(accept.destinationRandom),
      offerBytes: admitted.offerBytes,
      acceptBytes,
    });
    const schedule = new KeySchedule(secret);
    const ids = [...new Set(pageClasses.map((pageClass) => accept.suites[pageClass]))];
    const opener = new RecordOpener({
      schedule,
      suites: ids.map((id) => registry.get(id)),
      lane: 0,
      blocks: admitted.offer.blocks,
    });
    const own = this.#options.vm.facts.blocks.map((block) => block.name);
    const blockOf = admitted.offer.blocks.map((block) => own.indexOf(block.name));
    return {
      admitted,
      accept,
      schedule,
      opener,
      queue: new LandingQueue({ blockOf, onSetup: (setup) => this.#open(setup) }),
      records: 0,
      mistakes: 0,
      acknowledged: 0,
      unacknowledgedBytes: 0,
      ackTimer: null,
      landing: false,
    };
  }

  // ---- what comes from the source ----

  async #read(candidate: Candidate): Promise<void> {
    const { connection } = candidate.admitted;
    const { clock } = this.#options;
    try {
      for (;;) {
        let busySinceMs = clock.now();
        for (let frame: Frame | null; (frame = connection.reader.next()) !== null;) {
          const waits = this.#frame(candidate, frame);
          if (waits === undefined && clock.now() - busySinceMs < BUSY_MS) continue;
          candidate.landing = true;
          // Memory that is touched for the first time is slow: the source hears that we are at it.
          await (waits ?? this.#breathe(candidate));
          candidate.landing = false;
          busySinceMs = connection.lastReadAtMs = clock.now();
        }
        this.#scheduleAck(candidate);
        if (!await connection.reader.fill()) break;
        connection.lastReadAtMs = clock.now();
      }
      this.#lost(candidate, null);
    } catch (error) {
      this.#lost(candidate, error);
    }
  }

  /** Lets timers, writes and signals have their turn. */
  async #breathe(candidate: Candidate): Promise<void> {
    this.#ack(candidate);
    const turn = Promise.withResolvers<void>();
    this.#options.clock.timer(0, turn.resolve);
    await turn.promise;
  }

  #frame(candidate: Candidate, frame: Frame): void | Promise<void> {
    if (frame.kind !== FRAME_DATA) {
      const bytes = candidate.admitted.connection.open(frame);
      if (bytes !== null) this.#handle(candidate, decodeMessage(bytes));
      return;
    }
    if (this.#finish !== null) {
      throw new MigrationError("protocol", "Cannot go on: a record came after FINISH");
    }
    const record = candidate.opener.open(frame.payload);
    if (record.type === "mistake") {
      candidate.mistakes++;
      // Always before the ACK that covers it.
      candidate.admitted.connection.send({
        type: "MISTAKE",
        lane: 0,
        sequence: candidate.opener.nextSequence - 1,
      });
    } else candidate.records++;
    candidate.unacknowledgedBytes += frame.payload.length;
    // Until repair is built a mistake ends the migration: what comes after it can have gaps, and lands nowhere.
    if (this.#leaving || candidate.mistakes > 0) return;
    if (!this.#bound) this.#bind(candidate);
    try {
      const landing = candidate.queue.land(record);
      if (landing !== undefined) {
        return landing.then(() => this.#ackIfDue(candidate), rethrowAsOurs);
      }
    } catch (error) {
      rethrowAsOurs(error);
    }
    this.#ackIfDue(candidate);
  }

  #bind(candidate: Candidate): void {
    if (this.#candidate !== candidate || this.#leaving) {
      throw new MigrationError(
        "protocol",
        "Cannot go on: another connection took this one's place",
      );
    }
    this.#bound = true;
    this.#waiter.wake();
  }

  #handle(candidate: Candidate, message: Message): void {
    if (!this.#bound && message.type !== "PING") {
      // Whatever it says before the first record opened ends this connection, and nothing else.
      throw new MigrationError("protocol", `Cannot go on: ${message.type} came before a record`);
    }
    switch (message.type) {
      case "PING": {
        const due = candidate.opener.nextSequence;
        if (
          message.lanes.length !== 1 || message.lanes[0]!.lane !== 0 ||
          message.lanes[0]!.sequence + 1 !== due
        ) {
          throw new MigrationError(
            "protocol",
            `Cannot go on: record ${due} is due, the source sent others`,
          );
        }
        candidate.admitted.connection.send({ type: "PONG", nonce: message.nonce });
        return;
      }
      case "FINISH":
        this.#finish = message;
        break;
      case "RELEASE":
        if (!(this.state in { loaded: 1, refusing: 1, taking: 1, stuck: 1, running: 1 })) {
          throw new MigrationError("protocol", "Cannot go on: RELEASE came before LOADED");
        }
        this.#released = true;
        break;
      case "DONE":
        this.#doneSaid = true;
        break;
      case "DISCARD":
      case "ABORT":
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

  #lost(candidate: Candidate, cause: unknown): void {
    if (this.#candidate !== candidate) return;
    if (!this.#bound) {
      this.#note("The connection was lost before the first record", candidate.admitted.migrationId);
      return this.#giveUpClaim(candidate.admitted);
    }
    if (cause instanceof MigrationError && cause.code in { vm: 1, journal: 1, interrupted: 1 }) {
      // Our own side failed: the connection is good, and the source is told.
      return this.#interrupt(cause);
    }
    candidate.admitted.connection[Symbol.dispose]();
    // JOIN comes in here: wait for the source to dial again, within the reconnect budget.
    this.#cut = cause instanceof MigrationError
      ? cause
      : new MigrationError("cut", "Cannot go on: the connection to the source is lost", { cause });
    this.#interrupt(this.#cut);
  }

  #ackIfDue(candidate: Candidate): void {
    if (candidate.unacknowledgedBytes >= ACK_INTERVAL_BYTES) this.#ack(candidate);
  }

  /** The input is drained: says so, but not once for each of many small reads. */
  #scheduleAck(candidate: Candidate): void {
    const processed = candidate.opener.nextSequence - 1;
    if (candidate.ackTimer !== null || candidate.acknowledged === processed) return;
    candidate.ackTimer = this.#options.clock.timer(1, () => {
      candidate.ackTimer = null;
      this.#ack(candidate);
    });
  }

  #ack(candidate: Candidate): void {
    const sequence = candidate.opener.nextSequence - 1;
    if (sequence === candidate.acknowledged) return;
    candidate.acknowledged = sequence;
    candidate.unacknowledgedBytes = 0;
    candidate.admitted.connection.send({ type: "ACK", lane: 0, sequence });
  }

  #watchSilence(candidate: Candidate): void {
    const { clock } = this.#options;
    this.#silence = clock.timer(SILENCE_MS / 4, () => {
      const { connection } = candidate.admitted;
      if (connection.closed) return;
      const silentMs = clock.now() - connection.lastReadAtMs;
      if (candidate.landing || silentMs <= SILENCE_MS) return this.#watchSilence(candidate);
      this.#lost(
        candidate,
        new MigrationError(
          "cut",
          `Cannot go on: the source was silent for ${Math.round(silentMs)} ms`,
        ),
      );
    });
  }

  // ---- the switchover ----

  /** SETUP is whole: the journal first, then QEMU's incoming side. */
  #open(setup: Uint8Array): Promise<PageSink> {
    return this.#opening = this.#openVm(setup);
  }

  async #openVm(setup: Uint8Array): Promise<PageSink> {
    const { vm, journals, clock, allowed } = this.#options;
    const { admitted, accept } = this.#candidate!;
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
    const { opener, queue, records, mistakes } = this.#candidate!;
    if (
      finish.lanes.length !== 1 || finish.lanes[0]!.lane !== 0 ||
      finish.lanes[0]!.sequence !== opener.nextSequence - 1 ||
      finish.records !== records || finish.pages !== queue.pages || queue.state === null ||
      mistakes !== 0 || finish.damaged.count !== 0 ||
      finish.damaged.sha256 !== SHA256_OF_NOTHING
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
    await queue.sink!.load(queue.state);
    try {
      await this.#append({ state: "loaded" });
    } catch (error) {
      return await this.#refuse(error);
    }
    await this.#enter("loaded");
    this.#candidate!.admitted.connection.send({
      type: "LOADED",
      pages: queue.pages,
      records,
    });
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
    this.#sayRunning(resumedAtMs);
    await announced;
    await this.#waiter.until(() => this.#doneSaid || this.#cut || this.#stopAsked);
  }

  /**
   * After EOF, without a way to `taking`: says so, and discards when the source says so too. Without its word a copy
   * that is still there stays: it may be the only one.
   */
  async #refuse(error: unknown): Promise<never> {
    await this.#enter("refusing");
    this.#sayAbort(error);
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
    const { connection, offer } = this.#candidate!.admitted;
    const untilMs = clock.now() + offer.limits.maxStopMs;
    let failure: unknown = null;
    for (;;) {
      if (this.#dismissed !== null) throw failure ?? dismissal(this.#dismissed);
      try {
        if (!this.#taken) await this.#append({ state: "taking" });
        this.#taken = true;
        if (this.#before === "running") return await vm.run();
        if (!this.#gone) return clock.now();
        throw new Error("its process is gone");
      } catch (error) {
        if (this.#gone) {
          throw new MigrationError("vm", "Cannot run the VM: the destination's QEMU is gone", {
            cause: error,
          });
        }
        failure = error;
        if (this.state !== "stuck") {
          await this.#enter("stuck");
          connection.send({
            type: "ABORT",
            code: "cannotRun",
            text: messageOf(error).slice(0, 500),
          });
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
    }
  }

  #sayRunning(resumedAtMs: number): void {
    const { vm, clock, agentCpuSeconds } = this.#options;
    const qemuSeconds = vm.cpuSeconds();
    this.#candidate!.admitted.connection.send({
      type: "RUNNING",
      sinceResumeUs: Math.max(0, Math.round((clock.now() - resumedAtMs) * 1000)),
      cpuMs: {
        agent: Math.round(agentCpuSeconds() * 1000),
        qemu: qemuSeconds === null ? null : Math.round(qemuSeconds * 1000),
      },
    });
  }

  get #before(): StateBefore {
    return this.#candidate!.admitted.offer.before;
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
    this.#candidate?.admitted.connection.send({ type: "DISCARDED" });
  }

  #sayAbort(error: unknown): void {
    if (!this.#bound) return;
    const code = error instanceof MigrationError ? error.code : "vm";
    const codes: Record<string, AbortMessage["code"]> = {
      tampering: "tampering",
      interrupted: "interrupted",
      timeout: "timeout",
      protocol: "protocol",
    };
    this.#candidate!.admitted.connection.send({
      type: "ABORT",
      code: codes[code] ?? "vm",
      text: messageOf(error).slice(0, 500),
    });
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
      await this.#journal?.append({ time: this.#options.clock.date().toISOString(), ...entry });
    } catch (cause) {
      throw journalError(cause);
    }
  }

  #note(text: string, migrationId: string | null): void {
    this.#options.onNote?.({ text, migrationId });
  }

  #result(failure: unknown): MigrationResult {
    const { vm, clock, agentCpuSeconds, registry } = this.#options;
    const candidate = this.#bound ? this.#candidate : null;
    const error = failure === null
      ? null
      : failure instanceof MigrationError
      ? failure
      : new MigrationError("vm", messageOf(failure), { cause: failure });
    const outcome = error === null ? "completed" : outcomeOf(error.code);
    const offer = candidate?.admitted.offer;
    const mistakes = candidate?.mistakes ?? 0;
    return {
      // Damage that we saw ourselves is the reason, also when the source went away over it.
      outcome: outcome === "aborted" && mistakes > 0 ? "tampered" : outcome,
      id: this.id,
      side: "destination",
      dryRun: false,
      profile: "sealed",
      suites: candidate?.accept.suites ?? null,
      suite: candidate?.accept.suites.user ?? null,
      landing: candidate?.accept.landing ?? null,
      backend: candidate === null ? null : registry.get(candidate.accept.suites.user).backend,
      vm: {
        name: vm.facts.name,
        uuid: vm.facts.uuid,
        memoryBytes: vm.facts.memoryBytes,
        sensitivity: offer?.sensitivity ?? null,
      },
      rounds: null,
      setupMs: null,
      totalMs: clock.now() - this.#startedAtMs,
      downtimeMs: null,
      holdMs: 0,
      bytes: { guest: candidate?.queue.bytes ?? 0, wire: 0 },
      mistakes: { detected: mistakes, repaired: 0 },
      reconnects: 0,
      cpuSeconds: { agent: agentCpuSeconds(), qemu: vm.cpuSeconds() },
      verified: { pages: candidate?.queue.pages ?? 0, records: candidate?.records ?? 0 },
      sourceState: null,
      destinationState: this.#destinationState,
      lastState: this.#lastState,
      notes: this.#probe?.notes ?? [],
      warnings: candidate?.accept.warnings ?? [],
      error: error === null
        ? null
        : { code: error.code, message: error.message, hint: error.hint ?? null },
    };
  }
}

/** How long records may land without a break, in milliseconds: less than any silence that counts as a cut. */
const BUSY_MS = 100;

/** Between two tries of `cont`, in milliseconds: an image lock goes when the source's process does. */
const RETRY_MS = 200;

function refuse(code: RefuseMessage["code"], text: string): RefuseMessage {
  return { type: "REFUSE", code, text, hint: null };
}

function dropCandidate(candidate: Candidate): void {
  candidate.ackTimer?.clear();
  candidate.admitted.connection[Symbol.dispose]();
  candidate.opener[Symbol.dispose]();
  candidate.schedule[Symbol.dispose]();
}

/** A failed landing is our own side's fault; a record out of place is the other's. */
function rethrowAsOurs(cause: unknown): never {
  if (cause instanceof MigrationError) throw cause;
  throw new MigrationError("vm", `Cannot land in the VM: ${messageOf(cause)}`, { cause });
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

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
