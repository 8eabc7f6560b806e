/**
 * Files that must be whole, private and durable.
 *
 * @module
 */

import { CliError, systemCode, systemReason } from "./cli_error.ts";

const encoder = new TextEncoder();

/** Writes every byte: one `write` may take less. */
export async function writeWhole(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  let rest = bytes;
  while (rest.length > 0) rest = rest.subarray(await file.write(rest));
}

/** Makes the names in a directory durable: a new file's own `fsync` does not. @see fsync(2) */
export async function syncDirectory(path: string): Promise<void> {
  using directory = await Deno.open(path);
  await directory.sync();
}

/**
 * Creates a file of mode 0600, whole and durable; never over one that is there.
 *
 * @throws {Deno.errors.AlreadyExists} and what else the system says; then no file is left behind
 */
export async function createPrivateFile(path: string, text: string): Promise<void> {
  using file = await Deno.open(path, { createNew: true, write: true, mode: 0o600 });
  try {
    await writeWhole(file, encoder.encode(text));
    await file.sync();
    await syncDirectory(parentOf(path));
  } catch (error) {
    await Deno.remove(path);
    throw error;
  }
}

/** Puts `text` in the place of a file, mode 0600: after a crash it is the old text or the new, whole. */
export async function replacePrivateFile(path: string, text: string): Promise<void> {
  const fresh = `${path}.${crypto.randomUUID()}`;
  await createPrivateFile(fresh, text);
  try {
    await Deno.rename(fresh, path);
  } catch (error) {
    await Deno.remove(fresh);
    throw error;
  }
  await syncDirectory(parentOf(path));
}

/** What {@linkcode readCapped} reads and how errors call it. */
export interface CappedRead {
  /** For messages: "the identity". */
  what: string;
  maxBytes: number;
  /** Looks at the open file before it is read, and throws to refuse it. */
  check?: (info: Deno.FileInfo) => void;
}

/**
 * The text of a regular file of at most `maxBytes`.
 *
 * @throws {CliError} `missing`, `permission`, `malformed` when it is too large or no file, `io`
 */
export async function readCapped(path: string, read: CappedRead): Promise<string> {
  try {
    // A FIFO would block the open until somebody writes.
    const named = await Deno.stat(path);
    if (!named.isFile) {
      throw new CliError("malformed", `Cannot read ${read.what} ${path}: it is no file`);
    }
    using file = await Deno.open(path);
    const info = await file.stat();
    read.check?.(info);
    if (info.size > read.maxBytes) {
      throw new CliError(
        "malformed",
        `Cannot read ${read.what} ${path}: it has ${info.size} bytes, ${read.maxBytes} are allowed`,
      );
    }
    const bytes = new Uint8Array(info.size);
    let filled = 0;
    while (filled < bytes.length) {
      const count = await file.read(bytes.subarray(filled));
      if (count === null) break;
      filled += count;
    }
    return new TextDecoder().decode(bytes.subarray(0, filled));
  } catch (cause) {
    if (cause instanceof CliError) throw cause;
    throw new CliError(
      systemCode(cause),
      `Cannot read ${read.what} ${path}: ${systemReason(cause)}`,
      { cause },
    );
  }
}

/** The directory that a path is in. (`node:path` would load all of Node's layer, which takes longer than all we do.) */
export function parentOf(path: string): string {
  const at = path.replace(/\/+$/, "").lastIndexOf("/");
  return at < 0 ? "." : path.slice(0, at) || "/";
}
