/**
 * Journals as files: one line of JSON per state, on disk before the step that it guards is taken.
 *
 * @module
 */

import { MigrationError } from "../migration/errors.ts";
import type { Journal, JournalEntry, JournalStore } from "../migration/ports.ts";
import { systemReason } from "./cli_error.ts";
import { createPrivateFile, parentOf, syncDirectory, writeWhole } from "./files.ts";

/** The two sides of a migration. */
export type JournalSide = "source" | "destination";

const encoder = new TextEncoder();
const NEWLINE = 0x0a;

/** More than a journal has in the end. */
const CHECK_BYTES = 4096;

/** `<directory>/<id>.<side>.jsonl`. @throws {RangeError} when the id is not 32 hexadecimal digits */
export function journalPath(directory: string, journal: { id: string; side: JournalSide }): string {
  if (!/^[0-9a-f]{32}$/.test(journal.id)) {
    throw new RangeError("Cannot name a journal: its id is not 32 hexadecimal digits");
  }
  return `${directory}/${journal.id}.${journal.side}.jsonl`;
}

/**
 * Opens an existing journal to add lines. A last line that was cut off is ended first, so that none joins it.
 *
 * @throws {MigrationError} `journal`
 */
export async function openJournal(path: string): Promise<FileJournal> {
  let file: Deno.FsFile | undefined;
  try {
    file = await Deno.open(path, { append: true, read: true });
    const { size } = await file.stat();
    const last = new Uint8Array(1);
    if (size > 0) {
      await file.seek(size - 1, Deno.SeekMode.Start);
      await file.read(last);
      if (last[0] !== NEWLINE) await writeWhole(file, Uint8Array.of(NEWLINE));
    }
    return new FileJournal(path, file);
  } catch (cause) {
    file?.close();
    throw journalError("open", path, cause);
  }
}

/** The journals in one directory, which is made when it is first needed. */
export class FileJournalStore implements JournalStore {
  readonly #directory: string;

  /** `directory`: where the journals are, `migrations/` of the state directory. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  async has(id: string, side: JournalSide): Promise<boolean> {
    const path = journalPath(this.#directory, { id, side });
    try {
      await Deno.lstat(path);
      return true;
    } catch (cause) {
      if (cause instanceof Deno.errors.NotFound) return false;
      throw journalError("look for", path, cause);
    }
  }

  /** Writes a file as a journal is written, and takes it away again. */
  async check(): Promise<void> {
    const path = `${this.#directory}/.check-${crypto.randomUUID()}`;
    try {
      await Deno.mkdir(this.#directory, { recursive: true, mode: 0o700 });
      try {
        await createPrivateFile(path, `${" ".repeat(CHECK_BYTES)}\n`);
      } finally {
        await Deno.remove(path).catch(() => {});
      }
    } catch (cause) {
      throw journalError("write to", this.#directory, cause);
    }
  }

  async create(id: string, side: JournalSide, entry: JournalEntry): Promise<FileJournal> {
    const path = journalPath(this.#directory, { id, side });
    let file: Deno.FsFile;
    try {
      await Deno.mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await syncDirectory(parentOf(this.#directory));
      file = await Deno.open(path, { createNew: true, append: true, mode: 0o600 });
    } catch (cause) {
      throw journalError("create", path, cause);
    }
    const journal = new FileJournal(path, file);
    try {
      await journal.append(entry);
      await syncDirectory(this.#directory);
      return journal;
    } catch (cause) {
      // Nothing was begun under this journal: without its first line it would only puzzle a reader.
      journal.close();
      await Deno.remove(path).catch(() => {});
      if (cause instanceof MigrationError) throw cause;
      throw journalError("create", path, cause);
    }
  }
}

/** A journal in a file that is open for appending. */
export class FileJournal implements Journal, Disposable {
  /** Where it is. */
  readonly path: string;
  readonly #file: Deno.FsFile;
  #failed = false;
  #closed = false;

  /** Takes over `file`, which ends with a whole line. */
  constructor(path: string, file: Deno.FsFile) {
    this.path = path;
    this.#file = file;
  }

  /**
   * @throws {MigrationError} `journal` when the line is not on disk. After a full disk it may be tried again;
   * after a failed `fsync` never: the kernel may have dropped the pages and report success next time.
   * @see https://www.kernel.org/doc/html/latest/filesystems/vfs.html (writeback errors)
   */
  async append(entry: JournalEntry): Promise<void> {
    if (this.#failed) throw journalError("write", this.path, "an earlier write failed");
    const line = encoder.encode(JSON.stringify(entry) + "\n");
    const { size } = await this.#file.stat();
    try {
      await writeWhole(this.#file, line);
    } catch (cause) {
      await this.#takeBack(size);
      throw journalError("write", this.path, cause);
    }
    try {
      await this.#file.sync();
    } catch (cause) {
      this.#failed = true;
      throw journalError("write", this.path, cause);
    }
  }

  close(): void {
    if (!this.#closed) this.#file.close();
    this.#closed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Cuts off half a line, so that the next one does not join it. */
  async #takeBack(sizeBytes: number): Promise<void> {
    try {
      await this.#file.truncate(sizeBytes);
    } catch {
      this.#failed = true;
    }
  }
}

function journalError(verb: string, path: string, cause: unknown): MigrationError {
  const reason = typeof cause === "string" ? cause : systemReason(cause);
  const what = verb === "write to" ? "the journals in" : "journal";
  return new MigrationError("journal", `Cannot ${verb} ${what} ${path}: ${reason}`, {
    hint: "a migration needs its journal on disk: look at the space and the permissions there",
    cause,
  });
}
