/**
 * The source: opens a migration, copies the VM while it runs, hands it over (the paper's Fig. 9; PROTOCOL.md
 * sections 4 to 7). Here its parts are put together, and whatever may happen to it meanwhile finds the part that it
 * concerns.
 *
 * - `source_opening.ts`: connections, OFFER and ACCEPT
 * - `source_copy.ts`: rounds of pages, to the last byte of the VM's stream, and its repair
 * - `source_switchover.ts`: from FINISH to RUNNING, and the way back
 * - `source_abort.ts`: the way out before SHUT(0)
 * - `source_steps.ts`, `source_journal.ts`, `whereabouts.ts`: where the migration is, and the VM
 *
 * The VM survives whatever happens here: before SHUT(0) every failure closes QEMU's socket and sees the
 * VM run again; after it, only the destination's word brings it back.
 *
 * @module
 */

import { CopyLimits } from "./copy_limits.ts";
import { MigrationError } from "./errors.ts";
import { encodeKey } from "./identity.ts";
import { quiet } from "./observers.ts";
import type { Opened } from "./opening.ts";
import type { VmEnd } from "./ports.ts";
import { profiles } from "./profiles.ts";
import { commonResult, type MigrationResult } from "./result.ts";
import type { RoundStatistics } from "./rounds.ts";
import { Sending } from "./sending.ts";
import { abortMigration, goneEarly } from "./source_abort.ts";
import { SourceCopy } from "./source_copy.ts";
import { SourceDialogue } from "./source_dialogue.ts";
import { SourceJournal } from "./source_journal.ts";
import { SourceLink } from "./source_link.ts";
import { joinMigration, openMigration, type SourceConnections } from "./source_opening.ts";
import type { SourceOptions } from "./source_options.ts";
import { sourceResult } from "./source_result.ts";
import { SourceSteps } from "./source_steps.ts";
import { SourceSwitchover } from "./source_switchover.ts";
import type { SourceState } from "./states.ts";
import { StopBudget } from "./stop_budget.ts";
import { TamperAlarm } from "./tamper_alarm.ts";
import { Waiter } from "./waiter.ts";
import { Whereabouts } from "./whereabouts.ts";

/** A migration's source. One instance moves one VM, once. */
export class Source {
  readonly #options: SourceOptions;
  readonly #startedAtMs: number;
  readonly #connections: SourceConnections;
  readonly #waiter = new Waiter();
  readonly #whereabouts = new Whereabouts();
  readonly #journal: SourceJournal;
  readonly #budget: StopBudget;
  readonly #steps: SourceSteps;
  readonly #limits: CopyLimits;
  // Once the destination has accepted:
  #opened: Opened | null = null;
  #link: SourceLink | null = null;
  #dialogue: SourceDialogue | null = null;
  #sending: Sending | null = null;
  #alarm: TamperAlarm | null = null;
  #switchover: SourceSwitchover | null = null;
  #copy: SourceCopy | null = null;

  /** Begins nothing yet. */
  constructor(options: SourceOptions) {
    const { clock, limits } = options;
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
    this.#startedAtMs = clock.now();
    const giveUp = (reason: MigrationError) => this.#interrupt(reason);
    this.#journal = new SourceJournal({
      clock,
      damage: () => ({
        mistakes: this.#sending?.repair.mistakes ?? 0,
        hits: this.#sending?.hits ?? [],
      }),
    });
    this.#budget = new StopBudget({ clock, maxStopMs: limits.maxStopMs, giveUp });
    this.#steps = new SourceSteps({
      entered: options.entered,
      budget: this.#budget,
      released: () => this.#journal.released,
    });
    this.#limits = new CopyLimits({
      clock,
      vm: options.vm,
      maxRounds: options.maxRounds,
      maxTimeMs: options.maxTimeMs,
      maxStopMs: limits.maxStopMs,
      copying: () => this.state in { starting: 1, setup: 1, copying: 1 },
      giveUp,
    });
  }

  /** The migration's id, 32 hex digits. */
  get id(): string {
    return this.#connections.migrationId.toHex();
  }

  /** Where the migration is. */
  get state(): SourceState {
    return this.#steps.state;
  }

  /** Rounds so far, the current one last; empty before the first. */
  get rounds(): RoundStatistics[] {
    return this.#sending?.rounds ?? [];
  }

  /** Bytes that went to the destination so far. */
  get wireBytes(): number {
    // Until it has started, the link has not taken the connection over.
    if (this.#link?.started) return this.#link.writtenBytes;
    return this.#opened?.connection.outbox.writtenBytes ?? 0;
  }

  /** Moves the VM. Never throws for what may happen to a migration: the result says how it ended. */
  async run(): Promise<MigrationResult> {
    const { vm, signal, dryRun } = this.#options;
    const interrupt = () => {
      const reason = signal.reason instanceof MigrationError
        ? signal.reason
        : new MigrationError("interrupted", "Cannot go on: the migration was cancelled");
      if (this.#waiter.shielded) this.#switchover?.giveUp(reason);
      this.#interrupt(reason);
    };
    signal.addEventListener("abort", interrupt);
    if (signal.aborted) interrupt();
    vm.onEnd = (end) => this.#vmEnded(end);
    let failure: unknown = null;
    try {
      await this.#open();
      if (dryRun) await this.#steps.enter("checked");
      else await this.#migrate();
    } catch (error) {
      failure = error;
      if (this.state === "connecting" || this.state === "offering") {
        await this.#steps.enter("failed");
        if (this.#whereabouts.gone) failure = goneEarly(error, this.#whereabouts);
      }
    } finally {
      signal.removeEventListener("abort", interrupt);
      vm.onEnd = null;
      this.#budget.end();
      this.#limits.end();
      this.#switchover?.[Symbol.dispose]();
      await this.#link?.finish(1_000);
      // One that no link has taken over.
      if (this.#link?.started !== true) await this.#opened?.connection.finish(1_000);
      this.#alarm?.[Symbol.dispose]();
      this.#sending?.[Symbol.dispose]();
      this.#opened?.schedule[Symbol.dispose]();
      this.#journal.close();
    }
    return this.#result(failure);
  }

  async #open(): Promise<void> {
    this.#opened = await openMigration(this.#connections, {
      waiter: this.#waiter,
      connected: () => this.#steps.enter("offering"),
    });
    this.#waiter.check();
  }

  async #migrate(): Promise<void> {
    try {
      await this.#start();
      await this.#copy!.run();
      await this.#switchover!.handOver();
    } catch (error) {
      if (
        !(this.state in
          { starting: 1, setup: 1, copying: 1, stopping: 1, finishing: 1, releasing: 1 })
      ) throw error;
      const parts = {
        options: this.#options,
        waiter: this.#waiter,
        steps: this.#steps,
        journal: this.#journal,
        budget: this.#budget,
        whereabouts: this.#whereabouts,
        link: this.#link!,
        dialogue: this.#dialogue!,
        copy: this.#copy,
        switchover: this.#switchover,
      };
      if (await abortMigration(error, parts) === "forward") {
        // Whatever was damaged is still owed: the copy over there is the only one now.
        await this.#copy!.mend();
        await this.#switchover!.handOver();
      }
    }
  }

  /** Step 0: puts everything together, from ACCEPT to the VM's first byte. */
  async #start(): Promise<void> {
    const { vm, registry, journals, clock, peer, classifier } = this.#options;
    const { connection, accept, schedule } = this.#opened!;
    await this.#steps.enter("starting");
    const link = this.#link = this.#makeLink(schedule.joinKey());
    this.#dialogue = this.#makeDialogue(link);
    const sending = this.#sending = await Sending.make({
      accept,
      schedule,
      registry,
      profile: this.#connections.profile,
      blocks: vm.facts.blocks,
      window: link.window,
      clock,
      classifier,
    });
    this.#putTogether({ link, sending, dialogue: this.#dialogue });
    await this.#journal.begin(journals, {
      id: this.id,
      facts: {
        version: 1,
        id: this.id,
        side: "source",
        vm: { name: vm.facts.name, uuid: vm.facts.uuid, memoryBytes: vm.facts.memoryBytes },
        ...this.#options.journalFacts,
        qemu: vm.facts.process,
        before: vm.before,
        peer: { name: peer.name, publicKey: encodeKey(peer.publicKey) },
        suites: accept.suites,
      },
    });
    if (connection.closed) throw new MigrationError("cut", "Cannot go on: the connection is lost");
    link.start(connection);
    this.#limits.begin(this.#startedAtMs);
    this.#waiter.check();
    await this.#copy!.start();
  }

  #putTogether(
    made: { link: SourceLink; sending: Sending; dialogue: SourceDialogue },
  ): void {
    const { link, sending } = made;
    const { clock, onTamper, askTamper } = this.#options;
    const alarm = this.#alarm = new TamperAlarm({
      clock,
      damaged: (sequence) => sending.damaged(sequence),
      repair: sending.repair,
      flush: () => link.window.flush(),
      released: () => this.#journal.released,
      onTamper: quiet(onTamper),
      askTamper,
      giveUp: (reason) => this.#interrupt(reason),
      answered: () => this.#waiter.wake(),
    });
    const parts = {
      options: this.#options,
      waiter: this.#waiter,
      steps: this.#steps,
      journal: this.#journal,
      budget: this.#budget,
      limits: this.#limits,
      whereabouts: this.#whereabouts,
      alarm,
      ...made,
    };
    const switchover = this.#switchover = new SourceSwitchover(parts);
    this.#copy = new SourceCopy({
      ...parts,
      forwardIfGone: (condition) => switchover.forwardIfGone(condition),
    });
  }

  // ---- what happens meanwhile ----

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
          this.#dialogue!.hear(message);
          this.#waiter.wake();
        },
        onPulse: () => {
          // It may stop long before END is read here: a stalled network lies between.
          if (this.#options.vm.stoppedAtMs !== null) this.#copy!.vmStopped();
        },
        onCut: (error) => {
          // The destination has ended, as it should.
          if (this.state === "done" || this.state === "returning") return;
          this.#options.onNote?.(`${error.message}; joining again`);
        },
        onJoined: () => {
          this.#options.onNote?.("Joined again");
          this.#switchover!.sayAgain();
          this.#waiter.wake();
        },
        onLost: (error) => {
          this.#dialogue!.breakOff(error);
          this.#interrupt(error);
        },
      },
    });
  }

  #makeDialogue(link: SourceLink): SourceDialogue {
    return new SourceDialogue({
      clock: this.#options.clock,
      state: () => this.state,
      send: (message) => link.send(message),
      finish: () => this.#sending!.finish(),
      giveUp: (reason) => this.#interrupt(reason),
    });
  }

  #vmEnded(end: VmEnd): void {
    if (end.kind === "gone") {
      this.#whereabouts.seenGone();
      if (this.#copy?.readToEnd) return this.#waiter.wake();
      return this.#interrupt(new MigrationError("vm", "Cannot go on: the source's QEMU is gone"));
    }
    if (this.#options.vm.hasRun) {
      if (end.kind === "resumed" && end.gone) this.#whereabouts.seenGone();
      return void this.#switchover!.vmRan();
    }
    this.#interrupt(
      new MigrationError("vm", `Cannot go on: QEMU ended the migration: ${end.text}`),
    );
  }

  #interrupt(reason: MigrationError): void {
    this.#waiter.interrupt(reason);
    this.#copy?.interrupt();
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
      id: this.#journal.begun ? this.id : null,
      dryRun: dryRun ?? false,
      before: vm.before,
      qemuSeconds: this.#switchover?.qemuSeconds ?? null,
      times: {
        startedAtMs: this.#startedAtMs,
        firstPageAtMs: this.#copy?.firstPageAtMs ?? null,
        stoppedAtMs: this.#budget.stoppedAtMs,
        endedAtMs: clock.now(),
      },
      holdMs: this.#budget.holdMs,
      sent: this.#sending,
      wireBytes: this.wireBytes,
      reconnects: this.#link?.reconnects ?? 0,
      loaded: this.#dialogue?.loaded ?? null,
      running: this.#dialogue?.running ?? null,
      sourceState: this.#whereabouts.source,
      destinationState: this.#whereabouts.destination,
      released: this.#journal.released,
      lastState: failure === null ? this.state : this.#steps.lastState,
      doubts: this.#whereabouts.doubts,
    });
  }
}
