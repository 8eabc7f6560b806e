/**
 * What becomes of the source's VM once SHUT(0) was said. It stands still for good, unless somebody else runs it or resets
 * it; who runs it has newer memory than the copy over there, which may not be released any more.
 *
 * @see PROTOCOL.md section 7.2
 * @module
 */

import { messageOf } from "./failure.ts";
import type { SourceVm } from "./ports.ts";
import type { MigrationResult } from "./result.ts";
import type { SourceJournal } from "./source_journal.ts";
import type { Whereabouts } from "./whereabouts.ts";

/** How the VM stands. */
export type StandsNow =
  /** In `postmigrate`, as this migration left it. */
  | "still"
  /** Its process is gone, and it did not run before that. */
  | "gone"
  /** Somebody has run it, and may have moved it on since. */
  | "ran"
  /** Likewise, and its process is gone: nobody has what it came to. */
  | "ranAndGone"
  /** Somebody has reset it: nobody knows whether it ran before that. */
  | "reset"
  /** It does not answer. */
  | "silent";

/** See the module. */
export class SourceWatch {
  readonly #vm: SourceVm;
  readonly #journal: SourceJournal;
  readonly #whereabouts: Whereabouts;
  #ran = false;
  #reset = false;
  #doubted = false;

  constructor(
    parts: { vm: SourceVm; journal: SourceJournal; whereabouts: Whereabouts },
  ) {
    this.#vm = parts.vm;
    this.#journal = parts.journal;
    this.#whereabouts = parts.whereabouts;
  }

  /** Whether somebody has run it since, as far as was heard or seen. */
  get ran(): boolean {
    return this.#ran ||= this.#vm.hasRun;
  }

  /** Whether it was seen to be reset. */
  get reset(): boolean {
    return this.#reset;
  }

  /** Looks once. That it ran is journalled before this returns, and before QEMU is asked where that was heard. */
  async look(): Promise<StandsNow> {
    if (this.ran) await this.#journalRan();
    const state = await this.#vm.status().catch(() => null);
    if (state === "prelaunch") this.#reset = true;
    const still = state === null ||
      state in { gone: 1, prelaunch: 1, postmigrate: 1, "finish-migrate": 1 };
    if (!still) this.#ran = true;
    if (this.ran) {
      await this.#journalRan();
      this.#whereabouts.source = sourceStateOf(state);
    }
    if (state === "gone") this.#whereabouts.seenGone();
    if (this.#reset) return "reset";
    if (state === null) return "silent";
    if (state === "gone") return this.#ran ? "ranAndGone" : "gone";
    if (this.#ran) return "ran";
    return state === "finish-migrate" ? "silent" : "still";
  }

  async #journalRan(): Promise<void> {
    try {
      await this.#journal.appendRanHere();
    } catch (error) {
      if (this.#doubted) return;
      this.#doubted = true;
      this.#whereabouts.doubts.push(
        `Somebody has run the VM here since it was released, and the journal does not say so (${
          messageOf(error)
        }): never let \`recover\` here release the copy at the destination`,
      );
    }
  }
}

/** Of a VM that ran: where it is is where QEMU holds it, or where that was moved on to. */
function sourceStateOf(state: string | null): MigrationResult["sourceState"] {
  switch (state) {
    case null:
    case "finish-migrate":
      return "unknown";
    case "running":
    case "prelaunch":
    case "postmigrate":
    case "gone":
      return state;
    default:
      return "paused";
  }
}
