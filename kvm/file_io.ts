/**
 * Whole reads and writes at an offset of an open file, and where a file has data.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { errnoError, errnos, type FileDescriptor, lastErrno, libc } from "./libc.ts";

/** `whence` of lseek(2): the next offset at or after the given one that is not in a hole. */
const SEEK_DATA = 3;

/**
 * Fills `into` from `offset` on.
 *
 * @param what for the error: "Cannot read <what>"
 * @throws {KvmError} as `errnoError`; `gone` when the file ends before that, as files of `/proc` do with their process
 * @see pread(2)
 */
export function readAt(
  file: FileDescriptor,
  into: Uint8Array,
  options: { offset: number; what: string },
): void {
  const { pread } = libc();
  let done = 0;
  while (done < into.length) {
    const rest = into.subarray(done);
    // SAFETY: `rest` has the length that is given and stays referenced until the call has returned.
    const count = Number(
      pread(file.unsafeFd, rest, BigInt(rest.length), BigInt(options.offset + done)),
    );
    if (count === 0) throw new KvmError("gone", `Cannot read ${options.what}: it ends too early`);
    if (count > 0) done += count;
    else if (lastErrno() !== errnos.EINTR) {
      throw errnoError(`Cannot read ${options.what}`, lastErrno());
    }
  }
}

/**
 * Writes all of `bytes` from `offset` on.
 *
 * @param what for the error: "Cannot write <what>"
 * @throws {KvmError} as `errnoError`
 * @see pwrite(2)
 */
export function writeAt(
  file: FileDescriptor,
  bytes: Uint8Array,
  options: { offset: number; what: string },
): void {
  const { pwrite } = libc();
  let done = 0;
  while (done < bytes.length) {
    const rest = bytes.subarray(done);
    // SAFETY: `rest` has the length that is given and stays referenced until the call has returned.
    const count = Number(
      pwrite(file.unsafeFd, rest, BigInt(rest.length), BigInt(options.offset + done)),
    );
    if (count >= 0) done += count;
    else if (lastErrno() !== errnos.EINTR) {
      throw errnoError(`Cannot write ${options.what}`, lastErrno());
    }
  }
}

/** Whether the file takes writes at all: those of hugetlbfs and of DAX devices can only be mapped. */
export function isWritable(file: FileDescriptor): boolean {
  // SAFETY: no byte of the buffer is read. The kernel says EINVAL for such files before it looks at the length.
  return libc().pwrite(file.unsafeFd, new Uint8Array(8), 0n, 0n) === 0n;
}

/**
 * The first offset at or after `offset` that is not in a hole; null when only a hole follows. A hole reads as zeros.
 *
 * @throws {KvmError} as `errnoError`
 * @see lseek(2), "Seeking file data and holes"
 */
export function nextData(
  file: FileDescriptor,
  options: { offset: number; what: string },
): number | null {
  // SAFETY: takes numbers only; the descriptor's position is used by nothing else.
  const found = Number(libc().lseek(file.unsafeFd, BigInt(options.offset), SEEK_DATA));
  if (found >= 0) return found;
  if (lastErrno() === errnos.ENXIO) return null;
  throw errnoError(`Cannot search ${options.what}`, lastErrno());
}
