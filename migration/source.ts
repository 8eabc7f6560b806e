/**
 * The source's machine: rounds of pages, then the switchover (the paper's Fig. 9; PROTOCOL.md sections 4 to 7).
 *
 * The VM survives whatever happens here: before SHUT(0) every failure closes QEMU's socket and sees the
 * VM run again; after it, only the destination's word brings it back.
 *
 * @module
 */

import { MigrationError } from "./errors.ts";
import { abortMessage, asError, journalError, messageOf, unknownOutcome } from "./failure.ts";
import { CopyLimits } from "./copy_limits.ts";
import { encodeKey } from "./identity.ts";
import { DISCARD_WAIT_MS } from "./limits.ts";
import type { AbortMessage, Message } from "./messages.ts";
import { quiet } from "./observers.ts";
import type { Opened } from "./opening.ts";
import type { PageStream } from "./page_stream.ts";
import type { Journal, JournalEntry, JournalStore, PageSource, VmEnd } from "./ports.ts";
import { profiles } from "./profiles.ts";
import { commonResult, type MigrationResult } from "./result.ts";
import type { RoundStatistics } from "./rounds.ts";
import { Sending } from "./sending.ts";
import { SourceLink } from "./source_link.ts";
import { joinMigration, openMigration, type SourceConnections } from "./source_opening.ts";
import type { SourceOptions } from "./source_options.ts";
import { sourceResult } from "./source_result.ts";
import { type SourceState, sourceTransitions, StateMachine } from "./states.ts";
import { StopBudget } from "./stop_budget.ts";
import { TamperAlarm } from "./tamper_alarm.ts";
import { Waiter } from "./waiter.ts";

/** A migration's source. One instance moves one VM, once. */
export class Source {
  readonly #options: SourceOptions;
  readonly #machine: StateMachine<SourceState>;
  readonly #waiter = new Waiter();
  readonly #connections: SourceConnections;
  readonly #startedAtMs: number;
  readonly #budget: StopBudget;
  readonly #limits: CopyLimits;
  #opened: Opened | null = null;
  #link: SourceLink | null = null;
  #journal: Journal | null = null;
  #sending: Sending | null = null;
  #alarm: TamperAlarm | null = null;
  #pages: PageSource | null = null;
  #readToEnd = false;
  #gone = false;
  /** Journal `released` is written: forward is the only way. */
  #released = false;
  #cut: MigrationError | null = null;
  /** The operator's wish to end it, after the release: it can only end the waiting. */
  #givenUp: MigrationError | null = null;
  readonly #doubts: string[] = [];
  /** CPU seconds of QEMU before it was ended. */
  #qemuSeconds: number | null = null;
  /** What ABORT says, once the VM is seen to run here. */
  #abortion: AbortMessage | null = null;
  #finishSaid = false;
  #releaseSaid = false;
  #loaded: { pages: number; records: number } | null = null;
  #running: { atMs: number; sinceResumeUs: number } | null = null;
  #refusal: AbortMessage | null = null;
  #discarded = false;
  #firstPageAtMs: number | null = null;
  #sourceState: MigrationResult["sourceState"] = null;
  #destinationState: MigrationResult["destinationState"] = null;
  #lastState: SourceState = "connecting";

  /** Begins nothing yet. */
  constructor(options: SourceOptions) {
    this.#options = {
      ...options,
      onNote: quiet(options.onNote),
      onRound: quiet(options.onRound),
    };
    this.#connections = {
      options,
      profile: profiles[options.profile ?? "sealed"],
      migrationId: crypto.getRandomValues(new Uint8Array(16)),
    };
    this.#startedAtMs = options.clock.now();
    this.#budget = new StopBudget({
      clock: options.clock,
      maxStopMs: options.limits.maxStopMs,
      giveUp: (reason) => this.#interrupt(reason),
    });
    this.#limits = new CopyLimits({
      clock: options.clock,
      vm: options.vm,
      maxRounds: options.maxRounds,
      maxTimeMs: options.maxTimeMs,
      maxStopMs: options.limits.maxStopMs,
      copying: () => this.state in { starting: 1, setup: 1, copying: 1 },
      giveUp: (reason) => this.#interrupt(reason),
    });
    this.#machine = new StateMachine<SourceState>("connecting", {
      transitions: sourceTransitions,
      entered: options.entered,
    });
  }

  /** The migration's id, 32 hex digits. */
  get id(): string {
    return this.#connections.migrationId.toHex();
  }

  /** Where the migration is. */
  get state(): SourceState {
    return this.#machine.state;
  }

  /** Rounds so far, the current one last; empty before the first. */
  get rounds(): RoundStatistics[] {
    return this.#sending?.rounds ?? [];
  }

  /** Bytes that went to the destination so far. */
  get wireBytes(): number {
    return this.#link?.writtenBytes ?? this.#opened?.connection.outbox.writtenBytes ?? 0;
  }

  /** Moves the VM. Never throws for what may happen to a migration: the result says how it ended. */
  async run(): Promise<MigrationResult> {
    const { vm, signal, dryRun } = this.#options;
    const interrupt = () => {
      const reason = signal.reason instanceof MigrationError
        ? signal.reason
        : new MigrationError("interrupted", "Cannot go on: the migration was cancelled");
      if (this.#waiter.shielded) this.#givenUp = reason;
      this.#interrupt(reason);
    };
    signal.addEventListener("abort", interrupt);
    if (signal.aborted) interrupt();
    vm.onEnd = (end) => this.#vmEnded(end);
    let failure: unknown = null;
    try {
      await this.#open();
      if (dryRun) await this.#enter("checked");
      else await this.#migrate();
    } catch (error) {
      failure = error;
      if (this.state === "connecting" || this.state === "offering") {
        await this.#enter("failed");
        if (this.#gone) failure = this.#goneEarly(error);
      }
    } finally {
      signal.removeEventListener("abort", interrupt);
      vm.onEnd = null;
      this.#budget.end();
      this.#limits.end();
      await this.#link?.finish(1_000);
      // One that no link has taken over.
      if (this.#link?.started !== true) await this.#opened?.connection.finish(1_000);
      this.#sending?.[Symbol.dispose]();
      this.#opened?.schedule[Symbol.dispose]();
      this.#journal?.close();
    }
    return this.#result(failure);
  }

  async #open(): Promise<void> {
    this.#opened = await openMigration(this.#connections, {
      waiter: this.#waiter,
      connected: () => this.#enter("offering"),
    });
    this.#waiter.check();
  }

  async #migrate(): Promise<void> {
    try {
      await this.#start();
      await this.#copy();
      await this.#handOver();
    } catch (error) {
      if (
        !(this.state in
          { starting: 1, setup: 1, copying: 1, stopping: 1, finishing: 1, releasing: 1 })
      ) throw error;
      if (await this.#abort(error) === "forward") {
        // Whatever was damaged is still owed: the copy over there is the only one now.
        await this.#mend();
        await this.#handOver();
      }
    }
  }

  // ---- steps 0 and 1: everything up to the last byte of the VM's stream ----

  async #start(): Promise<void> {
    const { vm, registry, journals, clock, live, peer } = this.#options;
    const { connection, accept, schedule } = this.#opened!;
    await this.#enter("starting");
    const link = this.#link = this.#makeLink(schedule.joinKey());
    this.#sending = await Sending.make({
      accept,
      schedule,
      registry,
      profile: this.#connections.profile,
      blocks: vm.facts.blocks,
      window: link.window,
      clock,
      classifier: this.#options.classifier,
    });
    this.#alarm = this.#makeAlarm(this.#sending, link);
    this.#journal = await this.#createJournal(journals, {
      state: "open",
      time: clock.date().toISOString(),
      version: 1,
      id: this.id,
      side: "source",
      vm: { name: vm.facts.name, uuid: vm.facts.uuid, memoryBytes: vm.facts.memoryBytes },
      ...this.#options.journalFacts,
      qemu: vm.facts.process,
      before: vm.before,
      peer: { name: peer.name, publicKey: encodeKey(peer.publicKey) },
      suites: accept.suites,
    });
    if (connection.closed) throw new MigrationError("cut", "Cannot go on: the connection is lost");
    link.start(connection);
    this.#limits.begin(this.#startedAtMs);
    this.#waiter.check();
    this.#pages = await vm.start(live);
    this.#waiter.check();
  }

  async #copy(): Promise<void> {
    const link = this.#link!;
    const { window } = link;
    const stream = this.#sending!.stream((closed, vmStopped) => {
      this.#options.onRound?.(closed);
      this.#limits.roundClosed(closed, vmStopped);
    });
    await this.#enter("setup");
    for (let more = true; more;) {
      more = await this.#read(stream);
      if (this.state === "setup" && stream.setupSealed) await this.#openGate(stream);
      if (this.state === "copying" && stream.hasStopped) await this.#stopping();
      // Nothing lies about while the connection is idle, and a busy one gets whole slabs.
      if (link.idle || window.full) window.flush();
      // While the administrator is asked nothing more is sent that could be damaged.
      if (window.full || this.#alarm!.asking) {
        await this.#waiter.until(() => !window.full && !this.#alarm!.asking);
      } else this.#waiter.check();
    }
    if (this.state !== "stopping") {
      throw new MigrationError("vm", "Cannot migrate the VM: its stream ended before it stopped");
    }
    this.#readToEnd = true;
    stream.end();
    await this.#resend();
    await this.#mend();
  }

  /** The last round sends dirty OR mistake: until everything is acknowledged and nothing is marked (PROTOCOL.md section 5). */
  async #mend(): Promise<void> {
    const { window } = this.#link!;
    do {
      window.flush();
      await this.#forwardIfGone(() => this.#link!.acknowledged >= this.#sending!.lastSequence);
    } while (await this.#resend() || !window.empty);
  }

  /** Sends what is marked by now, a slab at a time, so that the wire is not idle while the next is sealed. @returns whether anything was */
  async #resend(): Promise<boolean> {
    const link = this.#link!;
    for (let any = false;; any = true) {
      link.window.flush();
      void link.drained().then(() => this.#waiter.wake());
      await this.#forwardIfGone(() => link.idle && !link.window.full && !this.#alarm!.asking);
      if (!this.#sending!.repair.resend()) return any;
    }
  }

  async #read(stream: PageStream): Promise<boolean> {
    try {
      return await this.#pages!.next(stream);
    } catch (cause) {
      this.#waiter.check();
      if (cause instanceof MigrationError) throw cause;
      throw new MigrationError("vm", `Cannot read the VM's memory: ${messageOf(cause)}`, { cause });
    }
  }

  /** SETUP is whole: no page is sealed before every byte of it has arrived; a damaged piece was sealed again meanwhile. */
  async #openGate(stream: PageStream): Promise<void> {
    await this.#waiter.until(() =>
      !this.#alarm!.asking && this.#link!.acknowledged >= this.#sending!.lastSequence
    );
    stream.openGate();
    this.#firstPageAtMs = this.#options.clock.now();
    await this.#enter("copying");
  }

  async #stopping(): Promise<void> {
    this.#vmStopped();
    await this.#enter("stopping");
  }

  /** From here on `--max-stop` counts, and silence is noticed sooner. */
  #vmStopped(): void {
    if (this.#budget.stoppedAtMs !== null) return;
    const { vm, clock } = this.#options;
    this.#budget.begin(vm.stoppedAtMs ?? clock.now());
    this.#link!.vmStopped();
  }

  // ---- steps 2 to 5: the switchover ----

  async #handOver(): Promise<void> {
    const { vm, clock } = this.#options;
    if (this.state !== "finishing") await this.#enter("finishing");
    this.#finishSaid = true;
    this.#sayAgain();
    await this.#forwardIfGone(() => this.#loaded !== null);
    if (!this.#released) {
      await this.#enter("releasing");
      // While the wire is cut nobody could take the VM, and here it can still run again.
      await this.#forwardIfGone(() => this.#link!.connected);
    }
    if (!this.#released) {
      await this.#append({ state: "releasing", counters: await vm.counters() });
      this.#waiter.check();
      this.#waiter.shield();
      const end = await vm.release().catch(asError);
      if (end instanceof Error) {
        // SHUT(0) may have been read: neither may run before somebody has looked.
        await this.#enter("unknown");
        throw unknownOutcome(end);
      }
      if (end === "resumed") {
        throw new MigrationError("vm", "Cannot release the VM: it runs again at the source", {
          hint: "somebody cancelled the migration in QEMU; start it again",
        });
      }
      this.#gone ||= end === "gone";
      this.#sourceState = end === "gone" ? "gone" : "postmigrate";
      try {
        await this.#append({ state: "released", time: clock.date().toISOString() });
      } catch (error) {
        // Without the line no RELEASE may be said: the destination discards, the VM goes on here.
        if (end === "stopped") return await this.#wayBack(error);
        await this.#enter("unknown");
        throw unknownOutcome(error);
      }
      this.#released = true;
    }
    await this.#enter("released");
    await this.#release();
  }

  async #release(): Promise<void> {
    const { vm, keepSource, before } = { ...this.#options, before: this.#options.vm.before };
    const link = this.#link!;
    link.vmReleased();
    this.#releaseSaid = true;
    this.#sayAgain();
    for (;;) {
      await this.#outcomeKnown(() =>
        this.#running !== null || this.#refusal !== null || this.#discarded
      );
      if (this.#running !== null) break;
      if (this.#discarded) {
        return await this.#return(
          new MigrationError("vm", "Cannot run the VM at the destination: it discarded its copy"),
        );
      }
      const refusal = this.#refusal!;
      this.#refusal = null;
      const error = new MigrationError(
        "vm",
        `Cannot run the VM at the destination: ${refusal.text}`,
      );
      if (await this.#seenStopped()) return await this.#wayBack(error);
      if (this.#gone && refusal.code !== "cannotRun") {
        await this.#enter("failed");
        throw unknownOutcome(error);
      }
      // It tries again by itself: an answer to each of its answers would only keep both busy.
      await this.#pause(RELEASE_AGAIN_MS);
      link.send({ type: "RELEASE" });
    }
    this.#destinationState = before;
    await this.#enter("done");
    // The VM runs over there: nothing that fails from here on changes that.
    await this.#append({ state: "done" }).catch((error) => this.#doubts.push(messageOf(error)));
    link.send({ type: "DONE" });
    if (keepSource || this.#gone) return;
    this.#qemuSeconds = vm.cpuSeconds();
    try {
      await vm.quit();
      this.#sourceState = "quit";
    } catch (error) {
      this.#doubts.push(`Cannot end the source's QEMU: ${messageOf(error)}; never \`cont\` it`);
    }
  }

  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#options.clock.timer(ms, resolve);
    await promise;
  }

  /** Only a QEMU that is *seen* to hold the VM lets the other copy go: that may be the only one. */
  async #seenStopped(): Promise<boolean> {
    const state = await this.#options.vm.status().catch(() => null);
    if (state === "gone") {
      this.#gone = true;
      this.#sourceState = "gone";
    }
    return state === "postmigrate";
  }

  /** DISCARD, DISCARDED, `cont`: only for a destination that cannot run the VM, or was never told to. */
  async #wayBack(why: unknown): Promise<void> {
    await this.#enter("discarding");
    // Our own QEMU may have died since it was seen: DISCARD would take the only copy.
    if (!this.#gone) {
      await this.#sayDiscard();
      await this.#outcomeKnown(() => this.#discarded || this.#running !== null || this.#gone);
    }
    if (this.#discarded) return await this.#return(why);
    if (!this.#released) {
      await this.#enter("unknown");
      throw unknownOutcome(why);
    }
    // It could run after all, or our own QEMU is gone: the only copy is over there.
    await this.#enter("released");
    await this.#release();
  }

  /** Each time only with a QEMU that is seen to be there: it may have died since the last time. */
  async #sayDiscard(): Promise<void> {
    const { vm } = this.#options;
    let state: string | null = null;
    const over = () =>
      this.state !== "discarding" || this.#running !== null || this.#cut !== null ||
      this.#givenUp !== null;
    for (; !over(); await this.#pause(ASK_AGAIN_MS)) {
      state = await vm.status().catch(() => null);
      if (state !== null) break;
    }
    if (state === "gone") {
      this.#gone = true;
      this.#sourceState = "gone";
    } else if (state !== null) this.#link!.send({ type: "DISCARD" });
    this.#waiter.wake();
  }

  async #return(why: unknown): Promise<void> {
    const { vm } = this.#options;
    this.#destinationState = "discarded";
    await this.#enter("returning");
    if (this.#gone) {
      this.#sourceState = "gone";
      await this.#enter("failed");
      throw unknownOutcome(why);
    }
    if (vm.before === "running") {
      try {
        await vm.resume();
      } catch (cause) {
        await this.#enter("unknown");
        throw new MigrationError(
          "unknownOutcome",
          `Cannot run the VM at the source again: ${messageOf(cause)}`,
          { cause },
        );
      }
      this.#sourceState = "running";
    } else this.#sourceState = "postmigrate";
    await this.#appendLast("aborted");
    await this.#enter("aborted");
    throw why;
  }

  /**
   * Waits while the migration can still be aborted; when QEMU is gone after its stream was read to the end
   * it can never resume, so `released` is journalled at once and forward is the only way.
   */
  async #forwardIfGone(condition: () => boolean): Promise<void> {
    if (!this.#released) {
      await this.#waiter.until(() => condition() || this.#gone);
      if (!this.#gone) return;
      await this.#goForward();
    }
    await this.#outcomeKnown(() => condition() || this.#refusal !== null);
    if (condition()) return;
    // Both are dead, or the copy over there waits for somebody to look at it.
    await this.#enter("unknown");
    throw unknownOutcome(new Error(this.#refusal!.text));
  }

  async #goForward(): Promise<void> {
    await this.#append({ state: "released", sourceGone: true });
    this.#released = this.#gone = true;
    this.#sourceState = "gone";
    this.#waiter.shield();
    // What waits for the administrator's word waits no longer.
    this.#alarm!.goOn();
    this.#budget.end();
  }

  /** Waits after the release: a cut, or the operator, ends it with the outcome unknown. */
  async #outcomeKnown(condition: () => boolean): Promise<void> {
    await this.#waiter.until(() => condition() || this.#cut !== null || this.#givenUp !== null);
    if (condition()) return;
    await this.#enter("unknown");
    throw unknownOutcome(this.#cut ?? this.#givenUp);
  }

  // ---- the way out before SHUT(0) ----

  /** Closes QEMU's socket, sees the VM run, and only then says ABORT. */
  async #abort(error: unknown): Promise<"forward"> {
    const { vm, clock } = this.#options;
    await this.#enter("aborting");
    this.#budget.end();
    this.#pages?.close();
    const end = await vm.cancel().catch(asError);
    if (end instanceof Error) {
      // Nobody saw it run, so nobody says ABORT.
      await this.#enter("failed");
      throw unknownOutcome(end);
    }
    if (end === "gone") {
      this.#sourceState = "gone";
      if (this.#readToEnd) {
        try {
          await this.#goForward();
        } catch (cause) {
          await this.#enter("failed");
          throw unknownOutcome(cause);
        }
        await this.#enter("finishing");
        return "forward";
      }
      await this.#appendLast("aborted");
      this.#abortion = abortMessage(error);
      this.#sayAgain();
      await this.#enter("failed");
      throw this.#goneEarly(error);
    }
    this.#sourceState = end === "goneAfterResume" ? "gone" : end;
    await this.#appendLast("aborted");
    this.#abortion = abortMessage(error);
    this.#sayAgain();
    const late = clock.timer(DISCARD_WAIT_MS, () => this.#waiter.wake());
    const deadlineMs = clock.now() + DISCARD_WAIT_MS;
    this.#waiter.shield();
    await this.#waiter.until(() =>
      // Where nothing was received yet, nothing was sent that could be discarded.
      this.#link?.started !== true || this.#discarded || this.#cut !== null ||
      clock.now() >= deadlineMs
    );
    late.clear();
    if (this.#discarded) this.#destinationState = "discarded";
    else if (this.#finishSaid) {
      this.#doubts.push(
        "the destination may still hold a stopped copy: end its QEMU (QMP `quit`), and never `cont` it",
      );
    }
    await this.#enter("aborted");
    throw error;
  }

  /** The VM has died here, and nowhere else is enough of it. */
  #goneEarly(cause: unknown): MigrationError {
    this.#sourceState = "gone";
    return new MigrationError(
      "unknownOutcome",
      `Cannot go on: the source's QEMU is gone (${messageOf(cause)})`,
      { hint: "start the VM again here; the destination holds nothing of it", cause },
    );
  }

  // ---- the link ----

  #makeLink(joinKey: Uint8Array): SourceLink {
    const { clock, limits } = this.#options;
    return new SourceLink({
      clock,
      windowBytes: limits.windowBytes,
      reconnectMs: limits.reconnectMs,
      join: (onCut, signal) => joinMigration(this.#connections, { joinKey, onCut, signal }),
      events: {
        onAcknowledged: () => this.#waiter.wake(),
        onMistake: (sequence) => this.#alarm!.damaged(sequence),
        onMessage: (message) => {
          this.#handle(message);
          this.#waiter.wake();
        },
        onPulse: () => {
          // It may stop long before END is read here: a stalled network lies between.
          if (this.#options.vm.stoppedAtMs !== null) this.#vmStopped();
        },
        onCut: (error) => {
          // The destination has ended, as it should.
          if (this.state === "done" || this.state === "returning") return;
          this.#options.onNote?.(`${error.message}; joining again`);
        },
        onJoined: () => {
          this.#options.onNote?.("Joined again");
          if (this.state === "discarding") void this.#sayDiscard();
          else this.#sayAgain();
          this.#waiter.wake();
        },
        onLost: (error) => {
          this.#cut = error;
          this.#interrupt(error);
        },
      },
    });
  }

  /** Says what the state wants said: after a step, and on every new connection. All of it is idempotent. */
  #sayAgain(): void {
    const link = this.#link!;
    switch (this.state) {
      case "finishing":
      case "releasing":
        if (!this.#finishSaid) return;
        return link.send({ type: "FINISH", ...this.#sending!.finish() });
      case "released":
        return link.send({ type: "RELEASE" });
      case "aborting":
        if (this.#abortion !== null) link.send(this.#abortion);
    }
  }

  #makeAlarm(sending: Sending, { window }: SourceLink): TamperAlarm {
    const { clock, onTamper, askTamper } = this.#options;
    return new TamperAlarm({
      clock,
      damaged: (sequence) => sending.damaged(sequence),
      repair: sending.repair,
      flush: () => window.flush(),
      released: () => this.#released,
      onTamper: quiet(onTamper),
      askTamper,
      giveUp: (alarm) => this.#interrupt(alarm),
      answered: () => this.#waiter.wake(),
    });
  }

  #handle(message: Message): void {
    switch (message.type) {
      case "LOADED":
        if (!this.#finishSaid) throw tooEarly(message);
        this.#loaded = { pages: message.pages, records: message.records };
        return;
      case "RUNNING":
        if (!this.#releaseSaid) throw tooEarly(message);
        this.#running ??= {
          atMs: this.#options.clock.now(),
          sinceResumeUs: message.sinceResumeUs,
        };
        return;
      case "DISCARDED":
        this.#discarded = true;
        // Unasked: it was ended over there. In every later state somebody waits for this.
        if (this.state in { starting: 1, setup: 1, copying: 1, stopping: 1, finishing: 1 }) {
          this.#interrupt(
            new MigrationError("vm", "Cannot go on: the destination discarded its copy"),
          );
        }
        return;
      case "ABORT":
        this.#refusal = message;
        this.#interrupt(
          new MigrationError(
            message.code === "tampering" ? "tampering" : "vm",
            `Cannot go on: the destination gave up: ${message.text}`,
          ),
        );
        return;
      default:
        throw new MigrationError("protocol", `Cannot go on: ${message.type} is not for a source`);
    }
  }

  #vmEnded(end: VmEnd): void {
    if (end.kind === "gone") {
      this.#gone = true;
      if (this.#readToEnd) return this.#waiter.wake();
      return this.#interrupt(new MigrationError("vm", "Cannot go on: the source's QEMU is gone"));
    }
    this.#interrupt(
      new MigrationError("vm", `Cannot go on: QEMU ended the migration: ${end.text}`),
    );
  }

  #interrupt(reason: MigrationError): void {
    this.#waiter.interrupt(reason);
    // A read of the VM ends only with its stream; QEMU sees its migration fail, and the VM goes on.
    if (this.state in { setup: 1, copying: 1 } || (this.state === "stopping" && !this.#readToEnd)) {
      this.#pages?.close();
    }
  }

  /** Moves on; what a hook holds while the VM is stopped counts as `holdMs` and nowhere else. */
  async #enter(state: SourceState): Promise<void> {
    const over = this.#budget.pause();
    if (state in WAYS_OUT && !(this.state in WAYS_OUT)) this.#lastState = this.state;
    const held = await this.#machine.enter(state);
    if (state !== "aborting") over?.({ held, goOn: !this.#released });
  }

  async #createJournal(journals: JournalStore, entry: JournalEntry): Promise<Journal> {
    try {
      return await journals.create(this.id, "source", entry);
    } catch (cause) {
      throw journalError(cause);
    }
  }

  async #append(
    entry: { state: "releasing" | "released" | "done" | "aborted"; [key: string]: unknown },
  ): Promise<void> {
    try {
      const time = this.#options.clock.date().toISOString();
      const { mistakes = 0 } = this.#sending?.repair ?? {};
      // The last line tells what was damaged and when, for whoever looks into it.
      const audit = mistakes > 0 && (entry.state === "done" || entry.state === "aborted")
        ? { mistakes, hits: this.#sending?.hits }
        : {};
      await this.#journal!.append({ time, ...audit, ...entry });
    } catch (cause) {
      throw journalError(cause);
    }
  }

  /** The last line of a migration that failed anyway: without it `recover` asks QEMU, which knows. */
  async #appendLast(state: "aborted"): Promise<void> {
    await this.#append({ state }).catch(() => {});
  }

  #result(failure: unknown): MigrationResult {
    const { vm, clock, sensitivity, dryRun, agentCpuSeconds, registry } = this.#options;
    return sourceResult({
      common: commonResult({
        failure,
        accept: this.#opened?.accept ?? null,
        profile: this.#connections.profile.id,
        registry,
        vm,
        sensitivity: sensitivity ?? null,
        agentCpuSeconds,
      }),
      id: this.#journal === null ? null : this.id,
      dryRun: dryRun ?? false,
      before: vm.before,
      qemuSeconds: this.#qemuSeconds,
      times: {
        startedAtMs: this.#startedAtMs,
        firstPageAtMs: this.#firstPageAtMs,
        stoppedAtMs: this.#budget.stoppedAtMs,
        endedAtMs: clock.now(),
      },
      holdMs: this.#budget.holdMs,
      sent: this.#sending,
      wireBytes: this.wireBytes,
      reconnects: this.#link?.reconnects ?? 0,
      loaded: this.#loaded,
      running: this.#running,
      sourceState: this.#sourceState,
      destinationState: this.#destinationState,
      released: this.#released,
      lastState: failure === null ? this.state : this.#lastState,
      doubts: this.#doubts,
    });
  }
}

/** Between two RELEASEs to a destination that cannot run the VM yet, in milliseconds. */
const RELEASE_AGAIN_MS = 200;
/** Between two questions to a QEMU that does not answer, in milliseconds. */
const ASK_AGAIN_MS = 200;

const WAYS_OUT = { aborting: 1, failed: 1, aborted: 1, unknown: 1 };

function tooEarly({ type }: Message): MigrationError {
  return new MigrationError("protocol", `Cannot go on: ${type} came before its time`);
}
