/**
 * `recover`, put together: the journal, QEMU, the other host.
 *
 * @module
 */

import { KvmError } from "../kvm/errors.ts";
import { QemuRecovery } from "../kvm/qemu_recovery.ts";
import type { Journal } from "../migration/ports.ts";
import { recover, type RecoveryResult } from "../migration/recovery.ts";
import { CliError, systemReason } from "./cli_error.ts";
import { systemClock } from "./clock.ts";
import { errorReport, exitCodes, outcomeOf } from "./exit_codes.ts";
import { explained } from "./hints.ts";
import { type JournalFile, readJournals } from "./journal_reader.ts";
import { openJournal } from "./journal_store.ts";
import { printJson } from "./json_lines.ts";
import type { RecoverOptions } from "./recover.ts";
import { chooseJournal, introduction, opening } from "./recover_journal.ts";
import { Interrupt } from "./signals.ts";
import { readIdentityFile, stateDirectory } from "./state_directory.ts";
import { Terminal } from "./terminal.ts";
import { type Address, formatAddress } from "./values.ts";

/** Runs `recover`. @returns the exit code */
export async function runRecover(options: RecoverOptions): Promise<number> {
  using terminal = new Terminal(options);
  using interrupt = new Interrupt(terminal);
  const directory = stateDirectory(options);
  const journal = chooseJournal(await readJournals(directory.migrations), options);
  if (journal.damage !== null) {
    terminal.warn(
      `journal ${journal.path}: ${journal.damage}; the last line that is whole counts`,
    );
  }
  let result: RecoveryResult;
  try {
    result = await settle(journal, {
      options,
      terminal,
      signal: interrupt.signal,
      identityPath: options.identity ?? directory.identity,
      readAgain: async () => chooseJournal(await readJournals(directory.migrations), journal),
    });
  } catch (thrown) {
    const error = isLocked(thrown)
      ? new CliError("io", thrown.message, { hint: lockedHint(journal), cause: thrown })
      : explained(thrown, journal.side);
    const report = errorReport(error);
    terminal.error(report.message, report.hint);
    const outcome = outcomeOf(report.code);
    if (options.json) {
      printJson({ type: "report", outcome, id: journal.id, side: journal.side, error: report });
    }
    return exitCodes[outcome];
  }
  const error = result.error === null ? null : errorReport(result.error);
  if (error !== null) terminal.error(error.message, error.hint);
  if (options.json) {
    printJson({
      type: "report",
      id: journal.id,
      side: journal.side,
      dryRun: options.dryRun,
      ...result,
      error,
    });
  }
  return exitCodes[result.outcome];
}

async function settle(
  journal: JournalFile,
  world: {
    options: RecoverOptions;
    terminal: Terminal;
    signal: AbortSignal;
    identityPath: string;
    readAgain: () => Promise<JournalFile>;
  },
): Promise<RecoveryResult> {
  const { options, terminal, signal } = world;
  const declareDead = declared(options, journal.side);
  const open = opening(journal);
  for (const line of introduction(journal)) terminal.line(line);
  const identity = await readIdentityFile(world.identityPath);
  await using vm = await QemuRecovery.attach(options.qmp ?? open.qmp, { process: open.process });
  // Whoever had the lock until now may have written since.
  const { entries } = await world.readAgain();
  // Opening it would mend a line that was cut off.
  using lines = options.dryRun ? null : await openJournal(journal.path);
  const listener = "listen" in options.meet ? listen(options.meet.listen) : null;
  if (listener !== null) {
    const { hostname, port } = listener.addr;
    const address = formatAddress({ host: hostname, port });
    if (options.json) printJson({ type: "listening", address });
    terminal.line(`waiting for recover on ${address}`);
  }
  try {
    return await recover({
      id: journal.id,
      side: journal.side,
      vm,
      entries,
      journal: lines ?? readOnly,
      identity,
      peerKey: open.peerKey,
      meet: listener !== null ? { listener } : { dial: () => dial(options) },
      clock: systemClock,
      signal,
      declareDead,
      dryRun: options.dryRun,
      onNote: (text) => terminal.line(text),
    });
  } finally {
    try {
      listener?.close();
    } catch {
      // Closed when somebody came, or nobody did.
    }
  }
}

const readOnly: Journal = {
  append: () => Promise.reject(new Error("Cannot write a journal: this is a dry run")),
  close() {},
};

function listen(at: Address): Deno.TcpListener {
  try {
    return Deno.listen({ hostname: at.host, port: at.port });
  } catch (cause) {
    throw new CliError("io", `Cannot listen at ${formatAddress(at)}: ${systemReason(cause)}`, {
      hint: "give --listen an address of this host, and a port that is free; port 0 takes one",
      cause,
    });
  }
}

async function dial({ meet }: RecoverOptions): Promise<Deno.TcpConn> {
  const at = "to" in meet ? meet.to : meet.listen;
  try {
    return await Deno.connect({ hostname: at.host, port: at.port });
  } catch (cause) {
    throw new CliError("io", `Cannot reach ${formatAddress(at)}: ${systemReason(cause)}`, {
      cause,
    });
  }
}

function isLocked(error: unknown): error is KvmError {
  return error instanceof KvmError && error.code === "locked";
}

/** Somebody is at it already: who may answer `recover` on the other host is better left alone. */
function lockedHint({ side }: JournalFile): string {
  return side === "destination"
    ? "if that is `receive`, it answers: run `recover --to` its address on the source's host; else wait for it, or end it"
    : "wait for that `send` or `recover`, or end it";
}

/** Only the *other* side can be declared dead, and only where it would be heard if it were not. */
function declared({ declareDead, meet }: RecoverOptions, side: JournalFile["side"]): boolean {
  if (declareDead === side) {
    throw new CliError("usage", `Cannot declare the ${side} dead: this host was the ${side}`, {
      hint: "declare the other side dead, or run `recover` on the other host",
    });
  }
  if (declareDead === "destination" && "listen" in meet) {
    throw new CliError(
      "usage",
      "Cannot declare the destination dead while listening: a `receive` that lives does not dial",
      { hint: "dial it with --to, where `receive` was" },
    );
  }
  if (declareDead === "source" && "to" in meet) {
    throw new CliError(
      "usage",
      "Cannot declare the source dead without listening for it: a `send` that lives dials, and nothing else",
      { hint: "with --listen, where `receive` was" },
    );
  }
  return declareDead !== undefined;
}
