/**
 * Lines for the journals of older migrations of a QEMU that is about to take part in another: from then on its state
 * no longer tells anything about them. To be called under the lock of that QEMU, before the new journal is created.
 *
 * @see PROTOCOL.md section 7.3
 * @module
 */

import { MigrationError } from "../migration/errors.ts";
import type {
  DestinationJournalState,
  SourceJournalState,
  StateBefore,
  VmProcess,
} from "../migration/ports.ts";
import { journalProcess, readJournals } from "./journal_reader.ts";
import { openJournal } from "./journal_store.ts";

/** The QEMU that is held, and when it was. */
export interface HeldVm {
  process: VmProcess;
  time: Date;
}

/** Likewise, and how its VM stands. */
export interface LeavingVm extends HeldVm {
  before: StateBefore;
}

/**
 * Its VM is about to leave: `ran` for every older source journal, and `running` where the VM came here and the line is
 * missing. A source's journal that is `done` stays so: its VM lives at its destination, which must not be told otherwise.
 *
 * @returns the ids of the journals that got a line
 * @throws {MigrationError} `refused` when the VM is a copy that has not run and was never released to this host;
 * `journal` when a line cannot be made durable: then nothing may be migrated
 */
export async function closeBeforeSend(directory: string, leaving: LeavingVm): Promise<string[]> {
  return await append(directory, leaving, {
    source: (last) => last === "done" || last === "ran" ? null : "ran",
    destination: (last, id) => {
      if (last === "running" || last === "discarded") return null;
      if (last === "taking" || leaving.before === "running") return "running";
      throw new MigrationError(
        "refused",
        "Cannot migrate this VM: it is the copy of a migration that is not settled, and may still run where it came from",
        { hint: `sealift recover --id ${id}` },
      );
    },
  });
}

/**
 * It waits for a VM: none of those that were announced to it has come. `discarded` for every older journal of its own
 * that is `open`, or `recover` would end the VM that comes now for one of them.
 *
 * @returns the ids of the journals that got a line
 * @throws {MigrationError} `journal` when a line cannot be made durable: then nothing may be migrated
 */
export async function closeBeforeReceive(directory: string, held: HeldVm): Promise<string[]> {
  return await append(directory, held, {
    source: () => null,
    destination: (last) => last === "open" ? "discarded" : null,
  });
}

/** The state to append behind the last one; null for none. */
interface NextStates {
  source: (last: SourceJournalState) => SourceJournalState | null;
  destination: (last: DestinationJournalState, id: string) => DestinationJournalState | null;
}

async function append(directory: string, held: HeldVm, next: NextStates): Promise<string[]> {
  const ids: string[] = [];
  for (const journal of await readJournals(directory)) {
    const process = journalProcess(journal);
    const last = journal.entries.at(-1)?.state;
    if (process === null || last === undefined || !isSame(process, held.process)) continue;
    const state = journal.side === "source"
      ? next.source(last as SourceJournalState)
      : next.destination(last as DestinationJournalState, journal.id);
    if (state === null) continue;
    using opened = await openJournal(journal.path);
    await opened.append({ state, time: held.time.toISOString() });
    ids.push(journal.id);
  }
  return ids;
}

function isSame(a: VmProcess, b: VmProcess): boolean {
  return a.pid === b.pid && a.startTime === b.startTime && a.bootId === b.bootId;
}
