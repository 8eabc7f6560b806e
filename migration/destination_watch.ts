/**
 * What becomes of the destination's VM once EOF was given to QEMU: somebody else may run it or reset it, and an error says
 * little about what QEMU holds.
 *
 * @see PROTOCOL.md section 7.2
 * @module
 */

import type { Heard } from "./destination_heard.ts";
import type { DestinationJournal } from "./destination_journal.ts";
import type { DestinationVm, StateBefore } from "./ports.ts";

/** Run states of a VM that was loaded and has not run. */
const LOADED = { paused: 1, prelaunch: 1 };

/** Run states of a VM that was run here, and moved on by another migration. */
const LEFT = { postmigrate: 1, "finish-migrate": 1 };

/** Run states in which QEMU holds nothing that was loaded. */
const EMPTY = { inmigrate: 1, gone: 1 };

/** See the module. */
export class DestinationWatch {
  readonly #vm: DestinationVm;
  readonly #heard: Heard;
  readonly #journal: DestinationJournal;

  constructor(parts: { vm: DestinationVm; heard: Heard; journal: DestinationJournal }) {
    this.#vm = parts.vm;
    this.#heard = parts.heard;
    this.#journal = parts.journal;
  }

  /** Whether it was seen to run. */
  get ran(): boolean {
    return this.#vm.hasRun;
  }

  /**
   * Somebody else runs it: whatever becomes of its QEMU, or of us, no older copy may be taken for the VM without
   * somebody's word. @throws MigrationError `journal`
   */
  async journalRan(): Promise<void> {
    if (this.#journal.isOpen) await this.#journal.appendRanEarly();
  }

  /** Whether QEMU is seen to hold nothing, after it failed to load. It may have loaded all the same, and even run. */
  async holdsNothing(): Promise<boolean> {
    const state = await this.#vm.status().catch(() => null);
    return this.#heard.gone || (state !== null && state in EMPTY);
  }

  /**
   * Right before `cont`, which would boot a VM anew that was reset, and run one again that was moved on. @returns whether
   * it was moved on @throws Error when it was reset; what `status` throws
   */
  async hasLeft(): Promise<boolean> {
    const state = await this.#vm.status();
    if (state === "prelaunch") throw new Error("somebody has reset it");
    return state in LEFT;
  }

  /**
   * A VM that is not to run has to be there as it was loaded, unless somebody ran it since. @returns whether it was moved
   * on @throws Error when it is not; what `status` throws
   */
  async stoodAndLeft(before: StateBefore): Promise<boolean> {
    const state = await this.#vm.status();
    if (state in LEFT) return true;
    if (state === "gone") throw new Error("its process is gone");
    // Of one that never started a reset changes nothing.
    if (state === "prelaunch" && before !== "prelaunch") throw new Error("somebody has reset it");
    if (!(state in LOADED) && !this.ran) throw new Error(`it is in run state ${state}`);
    return false;
  }

  /**
   * A `cont` whose answer was lost may have worked, and the VM stopped by itself since (an error of its disk): a copy is
   * let go only when it is seen never to have run. Of one that is gone nobody can see it. @throws what `status` throws
   */
  async neverRan(): Promise<boolean> {
    if (!this.#journal.taken) return !this.ran;
    // Asked first: what QEMU said before its answer was heard by then.
    const state = await this.#vm.status();
    return !this.#heard.gone && !this.ran && state in LOADED;
  }
}
