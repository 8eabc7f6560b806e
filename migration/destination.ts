/**
 * The destination's machine: lets one source in, lands what it verified, takes over (the paper's Fig. 10;
 * PROTOCOL.md sections 2 to 7).
 *
 * Its VM runs only after FINISH was checked, everything is loaded, and the source has said RELEASE. Who comes in is
 * the {@linkcode Door}'s business, who stays the {@linkcode Place}'s; what was said is in {@linkcode Heard}, what is said
 * in {@linkcode DestinationDialogue}, and {@linkcode Takeover} moves the VM. Here they are put together.
 *
 * @module
 */

import { type Admitted, equal, type Joining, type Recovering } from "./admission.ts";
import { Candidate } from "./candidate.ts";
import type { Connection } from "./connection.ts";
import { DestinationDialogue } from "./destination_dialogue.ts";
import { Door } from "./destination_door.ts";
import { Heard } from "./destination_heard.ts";
import { DestinationJournal } from "./destination_journal.ts";
import type { DestinationLinkEvents } from "./destination_link.ts";
import type { DestinationOptions } from "./destination_options.ts";
import { Place } from "./destination_place.ts";
import { destinationResult } from "./destination_result.ts";
import { MigrationError } from "./errors.ts";
import { IncomingSide } from "./incoming_side.ts";
import { SILENCE_RECOVER_MS } from "./limits.ts";
import type { AcceptMessage, Message } from "./messages.ts";
import { quiet } from "./observers.ts";
import type { Profile } from "./profile.ts";
import { profiles } from "./profiles.ts";
import type { RecordContent } from "./record_content.ts";
import { saysWentOn } from "./recovery_standing.ts";
import type { MigrationResult } from "./result.ts";
import { SpacedNotes } from "./spaced_notes.ts";
import type { DestinationState } from "./states.ts";
import { Takeover } from "./takeover.ts";

/** Between two looks at a VM that is being loaded, in milliseconds. */
const LOOK_MS = 20;

/** A migration's destination. One instance takes one VM, once. */
export class Destination {
  readonly #options: DestinationOptions;
  readonly #profile: Profile;
  readonly #startedAtMs: number;
  readonly #place = new Place();
  readonly #heard = new Heard();
  readonly #door: Door;
  readonly #journal: DestinationJournal;
  readonly #incoming: IncomingSide;
  readonly #dialogue: DestinationDialogue;
  readonly #takeover: Takeover;
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
    this.#journal = new DestinationJournal(this.#options);
    this.#incoming = new IncomingSide({
      vm: options.vm,
      journal: this.#journal,
      waiter: this.#heard.waiter,
    });
    const parts = { place: this.#place, heard: this.#heard };
    this.#dialogue = new DestinationDialogue({
      ...parts,
      options: this.#options,
      state: () => this.state,
    });
    this.#takeover = new Takeover(this.#options, {
      ...parts,
      journal: this.#journal,
      incoming: this.#incoming,
      dialogue: this.#dialogue,
    });
  }

  /** Where the migration is. */
  get state(): DestinationState {
    return this.#takeover.state;
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
    const stop = () => this.#heard.stop();
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    vm.onEnd = (end) => {
      if (vm.hasRun) void this.#takeover.vmRan();
      this.#heard.vmEnded(end);
    };
    this.#door.open();
    let failure: unknown = null;
    try {
      const candidate = await this.#heard.waiter.until(() => this.#place.bound);
      await this.#takeover.load(candidate);
      await this.#takeover.takeOver(candidate);
    } catch (error) {
      this.#place.close();
      failure = await this.#takeover.leave(error);
    } finally {
      this.#place.close();
      signal.removeEventListener("abort", stop);
      vm.onEnd = null;
      if (this.#takeover.loadedOnce) await this.#dialogue.linger();
      this.#door.close();
      await this.#place.candidate?.link.finish(1_000);
      await this.#door.ended();
      this.#place[Symbol.dispose]();
      this.#incoming.close();
      this.#journal.close();
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
      onSetup: (setup) => this.#incoming.open(candidate, setup),
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
        if (this.#heard.done || this.state === "discarded") return this.#dialogue.lingering;
        this.#note(error.message, migrationId());
        // One that is not bound may join again as well, unless another takes its place meanwhile.
        return this.#place.candidate === candidate();
      },
      onJoined: () => {
        this.#note("The source has joined again", migrationId());
        this.#dialogue.sayAgain();
        this.#heard.waiter.wake();
      },
      onFault: (error) => {
        if (this.#place.bound === candidate()) this.#heard.waiter.interrupt(error);
        else this.#place.giveUp(candidate().admitted);
      },
      onLost: (error) => {
        if (this.#place.bound === candidate()) this.#heard.lose(error);
        else this.#place.giveUp(candidate().admitted);
      },
    };
  }

  async #join({ connection, resume, joinKey }: Joining): Promise<void> {
    const { candidate } = this.#place;
    // Since its handshake began a RECOVER may have ended the join key, or another migration got the place.
    if (candidate === null || !equal(candidate.joinKey() ?? new Uint8Array(), joinKey)) {
      return connection[Symbol.dispose]();
    }
    await candidate.link.join(connection, resume);
  }

  /** `recover` at the source. */
  async #answerRecover({ connection, status, migrationId }: Recovering): Promise<void> {
    if (status.side !== "source") return connection[Symbol.dispose]();
    const candidate = this.#place.bound!;
    const { link } = candidate;
    candidate.recover();
    if (saysWentOn(status) && this.state in { loading: 1, loaded: 1, taking: 1, stuck: 1 }) {
      this.#heard.wentOnAtSource();
      await this.#takeover.journalWentOn({ ran: true });
    }
    if (!await link.replace(connection)) return;
    // What is being loaded will be loaded, or fail: only then is there something to report.
    let runState: string;
    do {
      await this.#leftLoading(connection);
      runState = await this.#options.vm.status().catch(() => "unknown");
      // Another one may have come, and closed this one.
      if (connection.closed) return;
    } while (this.state in { loading: 1, taking: 1 });
    connection.send({
      type: "STATUS",
      side: "destination",
      journal: this.#journal.state,
      runState,
      migration: this.#takeover.loadedOnce && runState !== "gone" ? "completed" : null,
    });
    this.#note("The source recovers", migrationId);
    await link.serve(connection, { silenceMs: SILENCE_RECOVER_MS });
  }

  async #leftLoading(connection: Connection): Promise<void> {
    const { clock } = this.#options;
    while (this.state in { loading: 1, taking: 1 } && !connection.closed) {
      const { promise, resolve } = Promise.withResolvers<void>();
      clock.timer(LOOK_MS, resolve);
      await promise;
    }
  }

  // ---- what comes from the source ----

  #land(candidate: Candidate, record: RecordContent): void | Promise<void> {
    if (this.#place.closed) return;
    if (this.#place.bound !== candidate) {
      this.#place.bind(candidate);
      this.#heard.waiter.wake();
    }
    return candidate.land(record);
  }

  #handle(candidate: Candidate, message: Message): void {
    const { link } = candidate;
    if (this.#place.bound !== candidate && message.type !== "PING") {
      // Whatever it says before the first record opened ends this connection, and nothing else.
      throw new MigrationError("protocol", `Cannot go on: ${message.type} came before a record`);
    }
    if (message.type === "FINISH") {
      link.checkDue(message.lanes);
      // Nothing was outstanding when it was said: a record that comes now is somebody else's.
      link.refuseRecords();
    }
    if (this.#heard.hear(message, this.state)) this.#dialogue.sayAgain();
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
      tampered: this.#heard.tampered,
      destinationState: this.#takeover.destinationState,
      lastState: this.#takeover.lastState,
      notes: this.#door.probe?.notes ?? [],
    });
  }
}
