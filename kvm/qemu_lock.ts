/**
 * One agent for one QEMU: an exclusive lock for each QEMU process, whatever the agent's state directory
 * (PROTOCOL.md section 7).
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { errnoError, errnos, FileDescriptor, lastErrno, libc, openFlags } from "./libc.ts";
import type { ProcessIdentity } from "./process.ts";
import { runtimeDirectory } from "./runtime_directory.ts";

/** @see flock(2) */
const LOCK_EX = 2, LOCK_NB = 4;
/** The holder's PID, padded: rewriting it leaves nothing of an older one. */
const HOLDER_BYTES = 16;

/** The lock of one QEMU process; ends with `using`, and with the agent's process at the latest. */
export class QemuLock implements Disposable {
  /** The lock file. */
  readonly path: string;
  readonly #file: FileDescriptor;

  private constructor(path: string, file: FileDescriptor) {
    this.path = path;
    this.#file = file;
  }

  /**
   * Takes the lock of `process`, or refuses at once.
   *
   * @param options.directory instead of {@linkcode runtimeDirectory}
   * @throws {KvmError} `locked` with the holder's PID, `denied` when no directory for locks can be had
   */
  static take(process: ProcessIdentity, options: { directory?: string } = {}): QemuLock {
    const directory = options.directory ?? runtimeDirectory();
    const path = `${directory}/${process.pid}-${process.startTime}.lock`;
    for (;;) {
      const file = FileDescriptor.open(path, {
        flags: openFlags.O_RDWR | openFlags.O_CREAT | openFlags.O_NOFOLLOW,
        mode: 0o600,
      });
      try {
        lockNow(file, { path, pid: process.pid });
        if (isStillAt(path, file)) {
          writeHolder(file, path);
          return new QemuLock(path, file);
        }
      } catch (error) {
        file[Symbol.dispose]();
        throw error;
      }
      // Its last holder removed it between our open and our lock: what we hold is nobody's file.
      file[Symbol.dispose]();
    }
  }

  /** Gives the lock free. */
  [Symbol.dispose](): void {
    if (this.#file.unsafeFd < 0) return;
    try {
      // While we hold it: whoever has opened it meanwhile sees in isStillAt() that it is gone.
      Deno.removeSync(this.path);
    } catch {
      // Somebody cleaned up; the lock itself ends with the descriptor.
    }
    this.#file[Symbol.dispose]();
  }
}

function lockNow(file: FileDescriptor, options: { path: string; pid: number }): void {
  const { flock } = libc();
  // SAFETY: numbers only; the descriptor is open.
  if (flock(file.unsafeFd, LOCK_EX | LOCK_NB) === 0) return;
  const errno = lastErrno();
  if (errno !== errnos.EAGAIN) throw errnoError(`Cannot lock ${options.path}`, errno);
  throw new KvmError(
    "locked",
    `Cannot work with QEMU ${options.pid}: process ${
      readHolder(options.path)
    } does (${options.path})`,
  );
}

function isStillAt(path: string, file: FileDescriptor): boolean {
  const mine = Deno.statSync(`/proc/self/fd/${file.unsafeFd}`);
  try {
    const there = Deno.lstatSync(path);
    return there.dev === mine.dev && there.ino === mine.ino;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function writeHolder(file: FileDescriptor, path: string): void {
  const bytes = new TextEncoder().encode(`${Deno.pid}\n`.padStart(HOLDER_BYTES));
  const { pwrite } = libc();
  // SAFETY: `bytes` is as long as the count says and referenced until the call has returned.
  const written = pwrite(file.unsafeFd, bytes, BigInt(bytes.length), 0n);
  if (Number(written) !== bytes.length) throw errnoError(`Cannot write ${path}`, lastErrno());
}

function readHolder(path: string): string {
  try {
    return Deno.readTextFileSync(path).trim() || "unknown";
  } catch {
    return "unknown";
  }
}
