/**
 * Journals as an agent leaves them.
 *
 * @module
 */

import { FileJournalStore, type JournalSide } from "../../cli/journal_store.ts";
import type {
  DestinationJournalState,
  SourceJournalState,
  VmProcess,
} from "../../migration/ports.ts";

/** The QEMU that they name. */
export const qemu: VmProcess = { pid: 42, startTime: "1000", bootId: "boot-a" };
/** When each line was written. */
export const time = "2026-01-01T00:00:00.000Z";

/** A migration's id, of one digit. */
export function idOf(digit: string): string {
  return digit.repeat(32);
}

/** Writes one, `open` and then `states`; a source's without `side`. */
export async function writeJournal(
  directory: string,
  about: {
    id: string;
    side?: JournalSide;
    process?: VmProcess;
    states?: (SourceJournalState | DestinationJournalState)[];
  },
): Promise<void> {
  const store = new FileJournalStore(directory);
  using file = await store.create(about.id, about.side ?? "source", {
    state: "open",
    time,
    qemu: about.process ?? qemu,
  });
  for (const state of about.states ?? []) await file.append({ state, time });
}
