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
import { type JournalFile, journalProcess, readJournals } from "./journal_reader.ts";
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
 * Its VM is about to leave: `ran` for every older source journal, and where the VM came here and the line is missing,
 * that it did. A source's journal that is `done` stays so: its VM lives at its destination, which must not be told
 * otherwise. `dryRun` only looks.
 *
 * @returns the ids of the journals that got a line, or would
 * @throws {MigrationError} `refused` when the VM is a copy that was never released to this host, or is about to run here,
 * and has not run; when it was reset after a migration had stopped it; or when a journal does not say whose it is.
 * `journal` when a line cannot be made durable: then nothing may be migrated
 */
export async function closeBeforeSend(
  directory: string,
  leaving: LeavingVm,
  { dryRun = false } = {},
): Promise<string[]> {
  const { before } = leaving;
  return await append(directory, leaving, {
    dryRun,
    source: ({ last, id, stood, stopped }) => {
      if (last === "done" || last === "ran") return null;
      // QEMU has left postmigrate for it at system_reset; `ran` would say that what it holds is the VM.
      // One that had never started may have gone back to it by itself.
      const reset = { ...(stood === "prelaunch" ? {} : { releasing: 1 }), released: 1, ranHere: 1 };
      if (before === "prelaunch" && (last in reset || stopped)) {
        throw refused("it was reset after a migration that is not settled had stopped it", id);
      }
      return "ran";
    },
    destination: ({ last, id }) => {
      if (last === "running" || last === "discarded") return null;
      if (before === "running") return "running";
      const what = "it is the copy of a migration that is not settled";
      throw refused(
        last === "taking"
          ? `${what}: it was told to run here, and nobody knows whether it has`
          : `${what}, and may still run where it came from`,
        id,
      );
    },
    unknown: ({ path, damage }) => {
      throw new MigrationError(
        "refused",
        `Cannot migrate this VM: it may be the copy of a migration whose journal cannot be read (${path}: ${
          damage ?? "it names no QEMU"
        })`,
        { hint: "look at that file, and move it away once its VM is known to be settled" },
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
    dryRun: false,
    source: () => null,
    destination: ({ last }) => last === "open" ? "discarded" : null,
    unknown: () => {},
  });
}

/** How a journal ends. */
interface End<State> {
  last: State;
  id: string;
  /** How the VM stood before, as its first line says. */
  stood: unknown;
  /** A source's last line says that the VM was not seen to go on. */
  stopped: boolean;
}

/** The state to append behind the last one; null for none. */
interface NextStates {
  source: (end: End<SourceJournalState>) => SourceJournalState | null;
  destination: (end: End<DestinationJournalState>) => DestinationJournalState | null;
  /** One that does not say which QEMU it is of. @throws what it means */
  unknown: (journal: JournalFile) => void;
  dryRun: boolean;
}

async function append(directory: string, held: HeldVm, next: NextStates): Promise<string[]> {
  const ids: string[] = [];
  for (const journal of await readJournals(directory)) {
    const { id, side, path } = journal;
    const process = journalProcess(journal);
    const last = journal.entries.at(-1)?.state;
    if (process === null && mayBeOurs(journal)) next.unknown(journal);
    if (process === null || last === undefined || !isSame(process, held.process)) continue;
    const stood = journal.entries[0]!["before"];
    const stopped = journal.entries.at(-1)!["stopped"] !== undefined;
    const state = side === "source"
      ? next.source({ last: last as SourceJournalState, id, stood, stopped })
      : next.destination({ last: last as DestinationJournalState, id, stood, stopped });
    if (state === null) continue;
    ids.push(id);
    if (next.dryRun) continue;
    using opened = await openJournal(path);
    await opened.append({ state, time: held.time.toISOString() });
  }
  return ids;
}

/** Not one whose first line was never whole: nothing was begun under it. */
function mayBeOurs({ entries, damage }: JournalFile): boolean {
  return entries.length > 0 || (damage !== "it is empty" && damage !== "line 1 is cut off");
}

function refused(why: string, id: string): MigrationError {
  return new MigrationError("refused", `Cannot migrate this VM: ${why}`, {
    hint: `sealift recover --id ${id}`,
  });
}

function isSame(a: VmProcess, b: VmProcess): boolean {
  return a.pid === b.pid && a.startTime === b.startTime && a.bootId === b.bootId;
}
