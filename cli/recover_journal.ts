/**
 * The journal that `recover` settles: which one, what it says, what it names.
 *
 * @module
 */

import { decodeKey, isEncodedKey } from "../migration/identity.ts";
import type { JournalEntry, StateBefore } from "../migration/ports.ts";
import { CliError } from "./cli_error.ts";
import { type JournalFile, journalProcess } from "./journal_reader.ts";
import type { JournalSide } from "./journal_store.ts";

/** Journal format that this version reads. */
const JOURNAL_VERSION = 1;

/** States after which nothing is left to settle on this side. */
const SETTLED = { aborted: 1, ran: 1, discarded: 1, done: 1, running: 1 };
/** Those of which the other side may still have to hear. */
const WORTH_TELLING = { aborted: 1, discarded: 1, running: 1 };

/** Whether there may be something left to settle on this side; also where an agent is still at work. */
export function isOpen({ entries }: JournalFile): boolean {
  const last = entries.at(-1);
  // `recover` could not run the VM again: it stands still.
  return last !== undefined && (!(last.state in SETTLED) || last["stopped"] !== undefined);
}

/** Which migration this is, as this host's journal tells it. */
export function introduction({ id, side, entries }: JournalFile): string[] {
  const first = entries[0];
  const name = text(first?.["vm"], "name") ?? text(first?.["vm"], "uuid") ?? "unknown";
  const other = text(first?.["peer"], "name") ?? text(first?.["peer"], "publicKey") ?? "unknown";
  const states = entries.map(({ state, time, by }) =>
    `${state} ${time}${by === undefined ? "" : ` (by ${by})`}`
  );
  return [
    `migration ${id} of VM ${name} ${side === "source" ? "to" : "from"} ${other}`,
    `journal of the ${side}: ${states.join(", ")}`,
  ];
}

function text(value: unknown, key: string): string | null {
  if (typeof value !== "object" || value === null) return null;
  const member = (value as Record<string, unknown>)[key];
  return typeof member === "string" && member !== "" ? member : null;
}

/**
 * The journal to settle: that of `id` and `side`, or the only one here that is open; where none is, the newest that
 * the other side may have to hear of.
 *
 * @throws {CliError} `usage` when there is none, or more than one
 */
export function chooseJournal(
  journals: readonly JournalFile[],
  { id, side }: { id: string | undefined; side: JournalSide | undefined },
): JournalFile {
  const lastOf = (journal: JournalFile) => journal.entries.at(-1)?.state ?? "";
  const ours = journals.filter((journal) => side === undefined || journal.side === side);
  const open = ours.filter(isOpen);
  // By the time of their last lines, newest last.
  const [newest] = ours.filter((journal) => lastOf(journal) in WORTH_TELLING).slice(-1);
  const candidates = id !== undefined
    ? ours.filter((journal) => journal.id === id)
    : open.length > 0 || newest === undefined
    ? open
    : [newest];
  const [journal, ...others] = candidates;
  if (journal === undefined) {
    throw new CliError(
      "usage",
      id === undefined
        ? "Cannot find a migration to settle: no journal here is open"
        : `Cannot find migration ${id}: no journal of it here`,
      {
        hint: "`sealift status` lists the journals of this host; --state-dir names another place",
      },
    );
  }
  if (others.length > 0) {
    const names = candidates.map((one) => `${one.id} (${one.side}, ${lastOf(one) || "damaged"})`)
      .toSorted();
    throw new CliError("usage", `Cannot tell which migration to settle: ${names.join(", ")}`, {
      hint: id === undefined ? "name one with --id" : "this host was both: name one with --side",
    });
  }
  return journal;
}

/**
 * What the first line of a journal names.
 *
 * @throws {CliError} `malformed` when it is of another version, or does not name it
 */
export function opening(
  journal: JournalFile,
): {
  qmp: string;
  process: { pid: number; startTime: string; bootId: string };
  peerKey: Uint8Array;
} {
  const first: JournalEntry | undefined = journal.entries[0];
  const process = journalProcess(journal);
  const peer = first?.["peer"];
  const key = typeof peer === "object" && peer !== null
    ? (peer as Record<string, unknown>)["publicKey"]
    : undefined;
  const qmp = first?.["qmp"];
  if (first?.["version"] !== undefined && first["version"] !== JOURNAL_VERSION) {
    throw new CliError(
      "malformed",
      `Cannot use journal ${journal.path}: it is of version ${String(first["version"])}`,
      {
        hint: "settle it with the version of Sealift that wrote it",
      },
    );
  }
  if (
    first?.state !== "open" || process === null || typeof key !== "string" || !isEncodedKey(key) ||
    typeof qmp !== "string" || !isStateBefore(first["before"])
  ) {
    throw new CliError(
      "malformed",
      `Cannot use journal ${journal.path}: its first line does not name QEMU and the peer`,
      {
        hint: "read it with `sealift status`, and settle the two VMs by hand",
      },
    );
  }
  return { qmp, process, peerKey: decodeKey(key) };
}

function isStateBefore(value: unknown): value is StateBefore {
  return value === "running" || value === "paused" || value === "prelaunch";
}
