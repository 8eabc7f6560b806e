/**
 * `status`: the migrations that this host took part in, as its journals tell.
 *
 * @module
 */

import { merge, object } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { optional } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import type { JournalFile } from "./journal_reader.ts";
import { type CommonOptions, commonOptions, examples, valueParser } from "./options.ts";
import { parseMigrationId } from "./values.ts";

/** What `status` was told. */
export interface StatusOptions extends CommonOptions {
  command: "status";
  /** 32 hexadecimal digits: this migration only. */
  id: string | undefined;
}

/** One line of `status`: one side of one migration. */
export interface MigrationStatus {
  id: string;
  side: "source" | "destination";
  /** The last state that is on disk; null when not even the first line is whole. */
  state: string | null;
  /** The other host, as the journal names it. */
  peer: { name: string | null; publicKey: string | null } | null;
  vm: { name: string | null; uuid: string | null } | null;
  /** `present`, `gone`, or `unknown` where this cannot be seen. */
  qemu: { pid: number; status: "present" | "gone" | "unknown" } | null;
  /** ISO 8601, UTC. */
  updated: string | null;
  /** What is wrong with the journal, or null. */
  damage: string | null;
}

const migrationId = valueParser(parseMigrationId, {
  metavar: "ID",
  format: String,
  placeholder: "0".repeat(32),
});

/** The parser of {@linkcode StatusOptions}. */
export const statusCommand = command(
  "status",
  merge(
    object({
      command: constant("status"),
      id: optional(option("--id", migrationId, { description: message`This migration only.` })),
    }),
    commonOptions,
  ),
  {
    brief: message`The migrations that this host took part in, newest last.`,
    footer: examples(
      "sealift status",
      "sealift status --id 6f1c0f4c2f0e4b0f9b1d2f0a9c3e5d77 --json",
    ),
  },
);

/** Runs it. @returns the exit code */
export async function executeStatus(options: StatusOptions): Promise<number> {
  const { CliError } = await import("./cli_error.ts");
  const { readJournals } = await import("./journal_reader.ts");
  const { stateDirectory } = await import("./state_directory.ts");
  const { migrations: directory } = stateDirectory(options);
  const journals = (await readJournals(directory))
    .filter(({ id }) => options.id === undefined || id === options.id);
  if (options.id !== undefined && journals.length === 0) {
    throw new CliError(
      "usage",
      `Cannot find migration ${options.id}: no journal of it in ${directory}`,
    );
  }
  const migrations = await Promise.all(journals.map(migrationStatus));
  if (options.json) {
    const { printJson } = await import("./json_lines.ts");
    printJson({ type: "report", outcome: "completed", migrations });
    return 0;
  }
  const { printTable } = await import("./output.ts");
  const { Terminal } = await import("./terminal.ts");
  const terminal = new Terminal(options);
  if (migrations.length === 0) terminal.line(`no migrations in ${directory}`);
  else {printTable([
      ["id", "side", "state", "peer", "vm", "qemu", "updated"],
      ...migrations.map(row),
    ]);}
  const { isOpen } = await import("./recover_journal.ts");
  for (const { id, side } of journals.filter(isOpen)) {
    terminal.line(
      `not settled: ${id}, ${side}; unless send or receive is at work on it: sealift recover --id ${id}`,
    );
  }
  for (const { id, side, damage } of migrations) {
    if (damage !== null) terminal.warn(`journal of ${id}, ${side}: ${damage}`);
  }
  return 0;
}

function row(status: MigrationStatus): string[] {
  const { peer, qemu, vm } = status;
  return [
    status.id,
    status.side,
    status.state ?? "?",
    (peer?.name || peer?.publicKey) ?? "-",
    (vm?.name || vm?.uuid) ?? "-",
    qemu === null ? "-" : `${qemu.pid} ${qemu.status}`,
    status.updated ?? "?",
  ];
}

async function migrationStatus(journal: JournalFile): Promise<MigrationStatus> {
  const { journalProcess } = await import("./journal_reader.ts");
  const { processStatus } = await import("./process_status.ts");
  const first = journal.entries[0] ?? {};
  const last = journal.entries.at(-1);
  const { peer, vm } = first as { peer?: unknown; vm?: unknown };
  const process = journalProcess(journal);
  return {
    id: journal.id,
    side: journal.side,
    state: last?.state ?? null,
    peer: texts(peer, ["name", "publicKey"]),
    vm: texts(vm, ["name", "uuid"]),
    qemu: process === null ? null : { pid: process.pid, status: await processStatus(process) },
    updated: last?.time ?? null,
    damage: journal.damage,
  };
}

/** Those members of a journal's value that are text; null when it is no object. */
function texts<Key extends string>(
  value: unknown,
  keys: readonly Key[],
): Record<Key, string | null> | null {
  if (typeof value !== "object" || value === null) return null;
  const members = value as Record<string, unknown>;
  const pairs = keys.map((key) => [key, typeof members[key] === "string" ? members[key] : null]);
  return Object.fromEntries(pairs) as Record<Key, string | null>;
}
