/**
 * The source's machine: rounds of pages, then the switchover (the paper's Fig. 9; PROTOCOL.md sections 4 to 7).
 *
 * The VM survives whatever happens here: before SHUT(0) every failure closes QEMU's socket and sees the
 * VM run again; after it, only the destination's word brings it back.
 *
 * @module
 */

import type { CipherRegistry } from "../ciphers/registry.ts";
import type { Connection } from "./connection.ts";
import { closeTransport, connect, negotiate, type Opened } from "./opening.ts";
import { MigrationError } from "./errors.ts";
import { encodeKey, type Identity } from "./identity.ts";
import {
  DISCARD_WAIT_MS,
  PING_INTERVAL_MS,
  PING_INTERVAL_STOPPED_MS,
  SILENCE_MS,
  SILENCE_STOPPED_MS,
} from "./limits.ts";
import {
  type AbortMessage,
  type Message,
  type MigrationLimits,
  type PageClass,
  pageClasses,
  type RunningMessage,
  type SuiteOffers,
} from "./messages.ts";
import { PageStream } from "./page_stream.ts";
import type {
  Clock,
  Journal,
  JournalEntry,
  JournalStore,
  LiveSettings,
  PageSource,
  SourceVm,
  Transport,
  VmEnd,
} from "./ports.ts";
import { RecordSealer } from "./record_sealer.ts";
import { type MigrationResult, outcomeOf } from "./result.ts";
import { Rounds, type RoundStatistics } from "./rounds.ts";
import { type EnteredHook, type SourceState, sourceTransitions, StateMachine } from "./states.ts";
import { Waiter } from "./waiter.ts";
import { SealedWindow, type Slab } from "./window.ts";

/** Everything a source needs. */
export interface SourceOptions {
  /** The VM that moves. */
  vm: SourceVm;
  /** Connects to the destination. */
  dial: () => Promise<Transport>;
  /** This host's key. */
  identity: Identity;
  /** The destination's public key, and what the operator calls it. */
  peer: { publicKey: Uint8Array; name: string };
  /** Where suites are found by their ids. */
  registry: CipherRegistry;
  /** Acceptable suites per class, best first. */
  suites: SuiteOffers;
  /** Budgets of time and memory. */
  limits: MigrationLimits;
  /** Settings of the live phase. */
  live: LiveSettings;
  /** Where this side's journal is kept. */
  journals: JournalStore;
  /** Time and timers. */
  clock: Clock;
  /** The operator's wish to end it. */
  signal: AbortSignal;
  /** In the place of the VM's UUID; the destination has to be given the same. */
  vmId?: string | undefined;
  /** A word for how sensitive the VM is, for both reports. */
  sensitivity?: string | undefined;
  /** After so many live rounds the VM is stopped as soon as the rest fits into `limits.maxStopMs`. */
  maxRounds?: number | undefined;
  /** The VM must have stopped for the last round by then, or the migration is given up. */
  maxTimeMs?: number | undefined;
  /** Leaves the source's QEMU in `postmigrate` instead of ending it. */
  keepSource?: boolean | undefined;
  /** Makes every check on both ends, and moves nothing. */
  dryRun?: boolean | undefined;
  /** Called at each state; the migration waits for it. */
  entered?: EnteredHook<SourceState> | undefined;
  /** Called when a round is closed. */
  onRound?: ((closed: RoundStatistics) => void) | undefined;
  /** CPU seconds of this process so far. */
  agentCpuSeconds: () => number;
}

/** A migration's source. One instance moves one VM, once. */
export class Source {
  readonly #options: SourceOptions;
  readonly #machine: StateMachine<SourceState>;
  readonly #waiter = new Waiter();
  readonly #id = crypto.getRandomValues(new Uint8Array(16));
  readonly #startedAtMs: number;
  readonly #timers = new Map<"ping" | "maxStop" | "maxTime", { clear(): void }>();
  #opened: Opened | null = null;
  #receiving: Promise<void> | null = null;
  #journal: Journal | null = null;
  #window: SealedWindow | null = null;
  #sealer: RecordSealer | null = null;
  #rounds: Rounds | null = null;
  #pages: PageSource | null = null;
  /** Slabs sealed behind SETUP that wait until all of it is acknowledged; null while the gate is open. */
  #gated: Slab[] | null = null;
  #acknowledged = 0;
  #putSequence = 0;
  #pingNonce = 0;
  #mistakes = 0;
  #readToEnd = false;
  #gone = false;
  /** Journal `released` is written: forward is the only way. */
  #released = false;
  #cut: MigrationError | null = null;
  /** The operator's wish to end it, after the release: it can only end the waiting. */
  #givenUp: MigrationError | null = null;
  readonly #doubts: string[] = [];
  #finishSaid = false;
  #releaseSaid = false;
  #loaded: { pages: number; records: number } | null = null;
  #running: { message: RunningMessage; atMs: number } | null = null;
  #refusal: AbortMessage | null = null;
  #discarded = false;
  #firstPageAtMs: number | null = null;
  #stoppedAtMs: number | null = null;
  #holdMs = 0;
  #sourceState: MigrationResult["sourceState"] = null;
  #destinationState: MigrationResult["destinationState"] = null;
  #lastState: SourceState = "connecting";

  /** Begins nothing yet. */
  constructor(options: SourceOptions) {
    this.#options = options;
    this.#startedAtMs = options.clock.now();
    this.#machine = new StateMachine<SourceState>("connecting", {
      transitions: sourceTransitions,
      entered: options.entered,
    });
  }

  /** The migration's id, 32 hex digits. */
  get id(): string {
    return Array.from(this.#id, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** Where the migration is. */
  get state(): SourceState {
    return this.#machine.state;
  }

  /** Rounds so far, the current one last; empty before the first. */
  get rounds(): RoundStatistics[] {
    return this.#rounds?.all() ?? [];
  }

  /** Bytes that went to the destination so far. */
  get wireBytes(): number {
    return this.#opened?.connection.outbox.writtenBytes ?? 0;
  }

  /** Moves the VM. Never throws for what may happen to a migration: the result says how it ended. */
  async run(): Promise<MigrationResult> {
    const { vm, signal, dryRun } = this.#options;
    const interrupt = () => {
      const reason = new MigrationError("interrupted", "Cannot go on: the migration was cancelled");
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
      if (this.state === "connecting" || this.state === "offering") await this.#enter("failed");
    } finally {
      signal.removeEventListener("abort", interrupt);
      vm.onEnd = null;
      for (const timer of this.#timers.values()) timer.clear();
      await this.#opened?.connection.finish(1_000);
      await this.#receiving;
      this.#sealer?.[Symbol.dispose]();
      this.#opened?.schedule[Symbol.dispose]();
      this.#journal?.close();
    }
    return this.#result(failure);
  }

  async #open(): Promise<void> {
    const options = this.#options;
    const { clock } = options;
    const transport = await this.#dial();
    // Until ACCEPT a waiting read ends only with its connection.
    const closeEarly = () => closeTransport(transport);
    options.signal.addEventListener("abort", closeEarly);
    let connection: Connection | null = null;
    try {
      const connected = await connect(transport, {
        identity: options.identity,
        remotePublic: options.peer.publicKey,
        migrationId: this.#id,
        clock,
        onCut: (cause) => this.#connectionCut(cause),
      });
      connection = connected.connection;
      await this.#enter("offering");
      const { facts, before } = options.vm;
      this.#opened = await negotiate(connection, {
        handshakeHash: connected.handshakeHash,
        clock,
        offer: {
          type: "OFFER",
          uuid: facts.uuid,
          name: facts.name,
          machine: facts.machine,
          qemuVersion: facts.qemuVersion,
          memoryBytes: facts.memoryBytes,
          blocks: facts.blocks,
          capabilities: facts.capabilities,
          vmId: options.vmId ?? null,
          sensitivity: options.sensitivity ?? null,
          before,
          suites: options.suites,
          limits: options.limits,
          dryRun: options.dryRun ?? false,
          sourceRandom: encodeKey(crypto.getRandomValues(new Uint8Array(32))),
        },
      });
    } catch (error) {
      connection?.[Symbol.dispose]();
      closeTransport(transport);
      this.#waiter.check();
      throw error;
    } finally {
      options.signal.removeEventListener("abort", closeEarly);
    }
    this.#waiter.check();
  }

  /** Dials; whoever asks for the end meanwhile does not wait for the network. */
  async #dial(): Promise<Transport> {
    this.#waiter.check();
    const dialled = this.#options.dial();
    try {
      return await Promise.race([dialled, this.#waiter.until<never>(() => null)]);
    } catch (error) {
      dialled.then(closeTransport, () => {});
      throw error;
    }
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
      if (await this.#abort(error) === "forward") await this.#handOver();
    }
  }

  // ---- steps 0 and 1: everything up to the last byte of the VM's stream ----

  async #start(): Promise<void> {
    const { vm, registry, journals, clock, live, peer, limits, maxTimeMs } = this.#options;
    const { connection, accept, schedule } = this.#opened!;
    await this.#enter("starting");
    const ids = [...new Set(pageClasses.map((pageClass) => accept.suites[pageClass]))];
    const suiteOf = Object.fromEntries(
      pageClasses.map((pageClass) => [pageClass, ids.indexOf(accept.suites[pageClass])]),
    ) as Record<PageClass, number>;
    this.#rounds = new Rounds(vm.facts.blocks, clock);
    this.#window = new SealedWindow(limits.windowBytes, (slab) => this.#put(slab));
    this.#sealer = new RecordSealer({
      schedule,
      window: this.#window,
      rounds: this.#rounds,
      lane: 0,
      suites: ids.map((id) => registry.get(id)),
      suiteOf,
    });
    this.#journal = await this.#createJournal(journals, {
      state: "open",
      time: clock.date().toISOString(),
      version: 1,
      id: this.id,
      side: "source",
      vm: { name: vm.facts.name, uuid: vm.facts.uuid, memoryBytes: vm.facts.memoryBytes },
      qemu: vm.facts.process,
      before: vm.before,
      peer: { name: peer.name, publicKey: encodeKey(peer.publicKey) },
      suites: accept.suites,
    });
    this.#receiving = this.#receive();
    this.#schedulePing();
    if (maxTimeMs !== undefined) {
      this.#timers.set(
        "maxTime",
        clock.timer(maxTimeMs - (clock.now() - this.#startedAtMs), () => {
          if (!(this.state in { starting: 1, setup: 1, copying: 1 })) return;
          this.#interrupt(
            new MigrationError(
              "timeout",
              `Cannot finish in ${maxTimeMs} ms: the VM writes faster than it is copied`,
              {
                hint:
                  "raise --max-time, --max-bandwidth or --downtime-limit, or give --auto-converge",
              },
            ),
          );
        }),
      );
    }
    if (connection.closed) throw new MigrationError("cut", "Cannot go on: the connection is lost");
    this.#waiter.check();
    this.#pages = await vm.start(live);
    this.#waiter.check();
  }

  async #copy(): Promise<void> {
    const window = this.#window!;
    const stream = new PageStream({
      sealer: this.#sealer!,
      rounds: this.#rounds!,
      onSetup: () => {
        window.flush();
        this.#gated = [];
      },
      onRound: (closed) => this.#roundClosed(closed),
    });
    await this.#enter("setup");
    for (let more = true; more;) {
      more = await this.#read(stream);
      if (this.state === "setup" && stream.setupSequence > 0) {
        await this.#openGate(stream.setupSequence);
      }
      if (this.state === "copying" && stream.hasStopped) await this.#stopping();
      // Nothing lies about while the connection is idle, and a busy one gets whole slabs.
      if (this.#opened!.connection.outbox.idle || window.full) window.flush();
      if (window.full) await this.#waiter.until(() => !window.full);
      else this.#waiter.check();
    }
    if (this.state !== "stopping") {
      throw new MigrationError("vm", "Cannot migrate the VM: its stream ended before it stopped");
    }
    this.#readToEnd = true;
    stream.end();
    window.flush();
    await this.#forwardIfGone(() => this.#acknowledged >= this.#sealer!.lastSequence);
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

  /** SETUP is whole: no page is sent before every byte of it is acknowledged. */
  async #openGate(setupSequence: number): Promise<void> {
    await this.#waiter.until(() => this.#acknowledged >= setupSequence);
    const gated = this.#gated ?? [];
    this.#gated = null;
    for (const slab of gated) this.#put(slab);
    this.#firstPageAtMs = this.#options.clock.now();
    await this.#enter("copying");
  }

  async #stopping(): Promise<void> {
    this.#vmStopped();
    await this.#enter("stopping");
  }

  /** From here on `--max-stop` counts, and silence is noticed sooner. */
  #vmStopped(): void {
    if (this.#stoppedAtMs !== null) return;
    const { vm, clock } = this.#options;
    this.#stoppedAtMs = vm.stoppedAtMs ?? clock.now();
    this.#armMaxStop();
    this.#schedulePing();
  }

  // ---- steps 2 to 5: the switchover ----

  async #handOver(): Promise<void> {
    const { vm, clock } = this.#options;
    const { connection } = this.#opened!;
    if (this.state !== "finishing") await this.#enter("finishing");
    connection.send({
      type: "FINISH",
      lanes: [{ lane: 0, sequence: this.#sealer!.lastSequence }],
      ...this.#totals(),
      damaged: { count: 0, sha256: SHA256_OF_NOTHING },
    });
    this.#finishSaid = true;
    await this.#forwardIfGone(() => this.#loaded !== null);
    if (!this.#released) {
      await this.#enter("releasing");
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
    const { connection } = this.#opened!;
    connection.send({ type: "RELEASE" });
    this.#releaseSaid = true;
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
      connection.send({ type: "RELEASE" });
    }
    this.#destinationState = before;
    await this.#enter("done");
    // The VM runs over there: nothing that fails from here on changes that.
    await this.#append({ state: "done" }).catch((error) => this.#doubts.push(messageOf(error)));
    connection.send({ type: "DONE" });
    if (keepSource || this.#gone) return;
    try {
      await vm.quit();
      this.#sourceState = "quit";
    } catch (error) {
      this.#doubts.push(`Cannot end the source's QEMU: ${messageOf(error)}; never \`cont\` it`);
    }
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
    this.#opened!.connection.send({ type: "DISCARD" });
    await this.#outcomeKnown(() => this.#discarded || this.#running !== null || this.#gone);
    if (this.#discarded) return await this.#return(why);
    if (!this.#released) {
      await this.#enter("unknown");
      throw unknownOutcome(why);
    }
    // It could run after all, or our own QEMU is gone: the only copy is over there.
    await this.#enter("released");
    await this.#release();
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
    this.#clearTimer("maxStop");
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
    this.#clearTimer("maxStop");
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
      this.#sayAbort(error);
      await this.#enter("failed");
      throw new MigrationError(
        "unknownOutcome",
        `Cannot go on: the source's QEMU is gone (${messageOf(error)})`,
        {
          hint: "start the VM again here; the destination holds nothing of it",
          cause: error,
        },
      );
    }
    this.#sourceState = end === "goneAfterResume" ? "gone" : end;
    await this.#appendLast("aborted");
    this.#sayAbort(error);
    const late = clock.timer(DISCARD_WAIT_MS, () => this.#waiter.wake());
    const deadlineMs = clock.now() + DISCARD_WAIT_MS;
    this.#waiter.shield();
    await this.#waiter.until(() =>
      // Where nothing was received yet, nothing was sent that could be discarded.
      this.#receiving === null || this.#discarded || this.#cut !== null ||
      clock.now() >= deadlineMs
    );
    late.clear();
    if (this.#discarded) this.#destinationState = "discarded";
    await this.#enter("aborted");
    throw error;
  }

  #sayAbort(error: unknown): void {
    const code = error instanceof MigrationError ? error.code : "vm";
    const codes: Record<string, AbortMessage["code"]> = {
      tampering: "tampering",
      interrupted: "interrupted",
      timeout: "timeout",
      protocol: "protocol",
    };
    this.#opened!.connection.send({
      type: "ABORT",
      code: codes[code] ?? "vm",
      text: messageOf(error).slice(0, 500),
    });
  }

  // ---- what comes from the destination ----

  async #receive(): Promise<void> {
    const { connection } = this.#opened!;
    try {
      for (let next; (next = await connection.nextMessage()) !== null;) {
        this.#handle(next.message);
        this.#waiter.wake();
      }
      this.#connectionCut(null);
    } catch (error) {
      this.#connectionCut(error);
    }
  }

  #handle(message: Message): void {
    switch (message.type) {
      case "ACK":
        this.#checkPosition(message);
        this.#acknowledged = Math.max(this.#acknowledged, message.sequence);
        this.#window!.acknowledge(message.sequence);
        return;
      case "MISTAKE":
        this.#checkPosition(message);
        this.#mistakes++;
        if (this.#rounds !== null) this.#rounds.current.mistakes++;
        // Repair marks its pages in the mistake bitmap here; without it a damaged record ends the migration.
        this.#interrupt(
          new MigrationError(
            "tampering",
            `Cannot go on: record ${message.sequence} was damaged on the way`,
            {
              hint:
                "somebody or something changes bytes between the two hosts; the VM was not harmed",
            },
          ),
        );
        return;
      case "LOADED":
        if (!this.#finishSaid) throw tooEarly(message);
        this.#loaded = { pages: message.pages, records: message.records };
        return;
      case "RUNNING":
        if (!this.#releaseSaid) throw tooEarly(message);
        this.#running = { message, atMs: this.#options.clock.now() };
        return;
      case "DISCARDED":
        this.#discarded = true;
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
      case "PONG":
        return;
      default:
        throw new MigrationError("protocol", `Cannot go on: ${message.type} is not for a source`);
    }
  }

  #checkPosition({ lane, sequence }: { lane: number; sequence: number }): void {
    if (lane !== 0 || sequence > this.#putSequence) {
      throw new MigrationError(
        "protocol",
        `Cannot go on: record ${sequence} of lane ${lane} was never sent`,
      );
    }
  }

  #connectionCut(cause: unknown): void {
    if (this.#cut !== null) return;
    this.#cut = cause instanceof MigrationError
      ? cause
      : new MigrationError("cut", "Cannot go on: the connection to the destination is lost", {
        cause,
      });
    this.#opened?.connection[Symbol.dispose]();
    // JOIN comes in here: dial again, within the reconnect budget.
    this.#interrupt(this.#cut);
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

  // ---- timers and the wire ----

  #put(slab: Slab): void {
    if (this.#gated !== null) {
      this.#gated.push(slab);
      return;
    }
    this.#putSequence = slab.lastSequence;
    this.#opened!.connection.outbox.put(slab.bytes.subarray(0, slab.usedBytes), { data: true });
  }

  #schedulePing(): void {
    const { clock } = this.#options;
    const stopped = this.#stoppedAtMs !== null;
    this.#clearTimer("ping");
    this.#timers.set(
      "ping",
      clock.timer(stopped ? PING_INTERVAL_STOPPED_MS : PING_INTERVAL_MS, () => {
        const connection = this.#opened!.connection;
        if (connection.closed) return;
        // It may stop long before END is read here: a stalled network lies between.
        if (!stopped && this.#options.vm.stoppedAtMs !== null) this.#vmStopped();
        const silenceMs = clock.now() -
          Math.max(connection.lastReadAtMs, connection.outbox.progressAtMs);
        if (silenceMs > (stopped && !this.#waiter.shielded ? SILENCE_STOPPED_MS : SILENCE_MS)) {
          return this.#connectionCut(
            new MigrationError(
              "cut",
              `Cannot go on: the destination was silent for ${Math.round(silenceMs)} ms`,
            ),
          );
        }
        connection.send({
          type: "PING",
          nonce: this.#pingNonce++,
          lanes: [{ lane: 0, sequence: this.#putSequence }],
        });
        this.#schedulePing();
      }),
    );
  }

  #armMaxStop(): void {
    const { clock, limits } = this.#options;
    const usedMs = clock.now() - this.#stoppedAtMs! - this.#holdMs;
    this.#timers.set(
      "maxStop",
      clock.timer(Math.max(0, limits.maxStopMs - usedMs), () =>
        this.#interrupt(
          new MigrationError(
            "timeout",
            `Cannot finish within --max-stop: the VM was stopped for ${limits.maxStopMs} ms`,
            {
              hint: "raise --max-stop, or lower --downtime-limit so that less is left for the stop",
            },
          ),
        )),
    );
  }

  #clearTimer(name: "ping" | "maxStop" | "maxTime"): void {
    this.#timers.get(name)?.clear();
    this.#timers.delete(name);
  }

  #roundClosed(closed: RoundStatistics): void {
    const { vm, maxRounds, limits, onRound } = this.#options;
    onRound?.(closed);
    if (maxRounds !== undefined && closed.round + 1 === maxRounds) {
      // The paper's N: no more rounds, as soon as the rest fits into the stop that is allowed at most.
      vm.tune({ downtimeLimitMs: limits.maxStopMs }).catch(() => {});
    }
  }

  /** Moves on; what a hook holds while the VM is stopped counts as `holdMs` and nowhere else. */
  async #enter(state: SourceState): Promise<void> {
    const { clock } = this.#options;
    const stopTimer = this.#timers.has("maxStop");
    const fromMs = clock.now();
    if (stopTimer) this.#clearTimer("maxStop");
    if (state in WAYS_OUT && !(this.state in WAYS_OUT)) this.#lastState = this.state;
    await this.#machine.enter(state);
    if (stopTimer && state !== "aborting") {
      const heldMs = clock.now() - fromMs;
      this.#holdMs += heldMs > 1 ? heldMs : 0;
      if (!this.#released) this.#armMaxStop();
    }
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
      await this.#journal!.append({ time: this.#options.clock.date().toISOString(), ...entry });
    } catch (cause) {
      throw journalError(cause);
    }
  }

  /** The last line of a migration that failed anyway: without it `recover` asks QEMU, which knows. */
  async #appendLast(state: "aborted"): Promise<void> {
    await this.#append({ state }).catch(() => {});
  }

  #totals(): { pages: number; records: number } {
    let pages = 0;
    for (const round of this.rounds) {
      const { user, kernelText, kernelData, unmapped, zero } = round.pages;
      pages += user + kernelText + kernelData + unmapped + zero;
    }
    return { pages, records: this.#sealer?.lastSequence ?? 0 };
  }

  #result(failure: unknown): MigrationResult {
    const { vm, clock, sensitivity, dryRun, agentCpuSeconds } = this.#options;
    const accept = this.#opened?.accept ?? null;
    const error = failure === null
      ? null
      : failure instanceof MigrationError
      ? failure
      : new MigrationError("vm", messageOf(failure), { cause: failure });
    const totalMs = clock.now() - this.#startedAtMs - this.#holdMs;
    const ran = this.#running !== null && this.#stoppedAtMs !== null && vm.before === "running";
    const qemuSeconds = vm.cpuSeconds();
    return {
      outcome: error === null ? "completed" : outcomeOf(error.code),
      id: this.#journal === null ? null : this.id,
      side: "source",
      dryRun: dryRun ?? false,
      profile: "sealed",
      suites: accept?.suites ?? null,
      suite: accept?.suites.user ?? null,
      landing: accept?.landing ?? null,
      backend: accept === null ? null : this.#options.registry.get(accept.suites.user).backend,
      vm: {
        name: vm.facts.name,
        uuid: vm.facts.uuid,
        memoryBytes: vm.facts.memoryBytes,
        sensitivity: sensitivity ?? null,
      },
      rounds: this.#rounds === null ? null : this.rounds,
      setupMs: this.#firstPageAtMs === null ? null : this.#firstPageAtMs - this.#startedAtMs,
      totalMs,
      downtimeMs: ran
        ? this.#running!.atMs - this.#stoppedAtMs! - this.#running!.message.sinceResumeUs / 1000 -
          this.#holdMs
        : null,
      holdMs: this.#holdMs,
      bytes: {
        guest: this.rounds.reduce((sum, round) => sum + round.bytes, 0),
        wire: this.wireBytes,
      },
      mistakes: { detected: this.#mistakes, repaired: 0 },
      reconnects: 0,
      cpuSeconds: { agent: agentCpuSeconds(), qemu: qemuSeconds },
      verified: this.#loaded ?? { pages: 0, records: 0 },
      sourceState: this.#sourceState ?? (dryRun || this.#journal === null ? vm.before : "unknown"),
      destinationState: this.#destinationState ?? (this.#released ? "unknown" : null),
      lastState: error === null ? this.state : this.#lastState,
      notes: accept?.notes ?? [],
      warnings: [...(accept?.warnings ?? []), ...this.#doubts],
      error: error === null
        ? null
        : { code: error.code, message: error.message, hint: error.hint ?? null },
    };
  }
}

const WAYS_OUT = { aborting: 1, failed: 1, aborted: 1, unknown: 1 };

/** SHA-256 of no bytes: of an empty list of damaged sequences (FIPS 180-4). */
export const SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

function tooEarly({ type }: Message): MigrationError {
  return new MigrationError("protocol", `Cannot go on: ${type} came before its time`);
}

function unknownOutcome(cause: unknown): MigrationError {
  if (cause instanceof MigrationError && cause.code === "unknownOutcome") return cause;
  return new MigrationError("unknownOutcome", `Cannot know where the VM is: ${messageOf(cause)}`, {
    cause,
  });
}

/** What a journal threw, as ours. */
export function journalError(cause: unknown): MigrationError {
  if (cause instanceof MigrationError) return cause;
  return new MigrationError("journal", `Cannot write the journal: ${messageOf(cause)}`, { cause });
}

function asError(cause: unknown): Error {
  return cause instanceof Error ? cause : new Error(String(cause));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
