/**
 * What a source does about a record that was damaged on the way: has it repaired, tells who watches, and asks the
 * administrator when the damage does not end.
 *
 * @see PROTOCOL.md section 5, "Alarm"; paper, section 3.1 "Integrity"
 * @module
 */

import { MigrationError } from "./errors.ts";
import { messageOf } from "./failure.ts";
import type { Clock } from "./ports.ts";
import type { Repair } from "./repair.ts";
import { SpacedNotes } from "./spaced_notes.ts";

/** What a {@linkcode TamperAlarm} works with. */
export interface TamperAlarmOptions {
  clock: Clock;
  /** Marks what was damaged, or sends it again, and says what it was. @throws as `Repair.damaged` */
  damaged: (sequence: number) => string[];
  /** Knows when there is an alarm. */
  repair: Pick<Repair, "alarm" | "exhausted" | "goOn">;
  /** Sends what was sealed again. */
  flush: () => void;
  /** Whether the VM was let go: there is no way back. */
  released: () => boolean;
  /** Called with what was hit. Never throws. */
  onTamper: (text: string) => void;
  /** See `SourceOptions.askTamper`. */
  askTamper: ((text: string) => Promise<boolean>) | undefined;
  /** The migration must not go on. */
  giveUp: (alarm: MigrationError) => void;
  /** The administrator has answered. */
  answered: () => void;
}

/** See the module. */
export class TamperAlarm implements Disposable {
  readonly #options: TamperAlarmOptions;
  readonly #mistakes: SpacedNotes;
  #asking = false;
  #over = false;

  constructor(options: TamperAlarmOptions) {
    this.#options = options;
    this.#mistakes = new SpacedNotes(options.clock);
  }

  /** Whether the administrator's word is waited for: nothing more is sent that could be damaged. */
  get asking(): boolean {
    return this.#asking && !this.#options.released();
  }

  /**
   * A record was damaged.
   *
   * @throws MigrationError `protocol` when it cannot have been; `vm` when it cannot be sent again and there is no way back
   */
  damaged(sequence: number): void {
    const { damaged, repair, released, giveUp } = this.#options;
    try {
      for (const what of damaged(sequence)) this.#note(what);
      const { alarm } = repair;
      if (alarm !== null) this.#raise(alarm);
    } catch (cause) {
      const error = asOurs(cause);
      // Nobody gives up once the VM is let go: only the end of the connection is noticed there.
      if (error.code === "protocol" || released()) throw error;
      giveUp(error);
    }
  }

  /**
   * Repairs go on, whatever was damaged so far: on the administrator's word, or since nothing else is left.
   * @throws what a suite does
   */
  goOn(): void {
    this.#options.repair.goOn();
    this.#options.flush();
  }

  /** The migration has ended: an answer that comes now changes nothing. */
  [Symbol.dispose](): void {
    this.#over = true;
  }

  #note(what: string): void {
    const count = this.#mistakes.count();
    if (count === 0) return;
    this.#options.onTamper(
      count === 1
        ? `Damaged on the way: ${what}`
        : `Damaged on the way: ${count} more, the last is ${what}`,
    );
  }

  /** "Informs the administrator, waiting administrator determine the next step action" (paper, section 3.1). */
  #raise(alarm: MigrationError): void {
    const { askTamper, repair, released, giveUp, answered } = this.#options;
    // There is no way back: only the budget as the destination counts it ends the repairs.
    if (released()) return this.goOn();
    if (askTamper === undefined || repair.exhausted) return giveUp(alarm);
    if (this.#asking) return;
    this.#asking = true;
    // Who cannot be asked has not said to go on.
    void Promise.try(askTamper, alarm.message).catch(() => false).then((goOn) => {
      this.#asking = false;
      // Nothing can be sealed any more; or nobody waits for the word any more.
      if (this.#over || released()) return;
      try {
        if (goOn) this.goOn();
        else giveUp(alarm);
      } catch (cause) {
        giveUp(asOurs(cause));
      }
      answered();
    });
  }
}

/** What a suite threw, as ours: it must not look like a lost connection. */
function asOurs(cause: unknown): MigrationError {
  if (cause instanceof MigrationError) return cause;
  return new MigrationError("vm", `Cannot send again what was damaged: ${messageOf(cause)}`, {
    cause,
  });
}
