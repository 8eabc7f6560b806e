/**
 * The memory of another process.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { readAt } from "./file_io.ts";
import { errnoError, FileDescriptor, lastErrno, libc, openFlags } from "./libc.ts";
import { PAGE_BYTES } from "./stream_format.ts";

/** `IOV_MAX`, the most iovecs that one call takes. */
const MAX_IOVECS = 1024;
/** `struct iovec`: two 64-bit words, as four of 32 bits, because a bigint for each would cost more than the copy of a page. */
const IOVEC_WORDS = 4;
/** Entries of the page map that are read at once: 64 KiB. */
const PAGEMAP_PIECE_PAGES = 8192;
/** Bits 63 (present) and 62 (swapped) of a 64-bit entry, in its high half. */
const TOUCHED = 0xc000_0000;

/** Pieces of another process's memory, in the order in which bytes go there. */
export class RemoteRanges {
  readonly #words = new Uint32Array(MAX_IOVECS * IOVEC_WORDS);
  #start = 0;
  #end = 0;

  /** Pieces that are not used up. */
  get count(): number {
    return this.#end - this.#start;
  }

  /** Whether no further piece fits. */
  get isFull(): boolean {
    return this.#end === MAX_IOVECS;
  }

  /** The `struct iovec`s of the pieces that are not used up. */
  get unsafeIovecs(): Uint32Array<ArrayBuffer> {
    return this.#words.subarray(this.#start * IOVEC_WORDS, this.#end * IOVEC_WORDS);
  }

  /** Forgets all pieces. */
  clear(): void {
    this.#start = 0;
    this.#end = 0;
  }

  /** Adds a piece of `bytes` bytes. @throws {RangeError} when it is full */
  add(address: number, bytes: number): void {
    if (this.isFull) throw new RangeError(`Cannot add a range: ${MAX_IOVECS} is the most`);
    setIovec(this.#words, this.#end++, { address, bytes });
  }

  /** Uses up the first `bytes` bytes. */
  skip(bytes: number): void {
    let left = bytes;
    while (left > 0 && this.#start < this.#end) {
      const at = this.#start * IOVEC_WORDS;
      const address = this.#words[at]! + this.#words[at + 1]! * 2 ** 32;
      const length = this.#words[at + 2]! + this.#words[at + 3]! * 2 ** 32;
      if (left < length) {
        setIovec(this.#words, this.#start, { address: address + left, bytes: length - left });
        return;
      }
      left -= length;
      this.#start++;
    }
  }
}

function setIovec(
  words: Uint32Array,
  index: number,
  piece: { address: number; bytes: number },
): void {
  const at = index * IOVEC_WORDS;
  words[at] = piece.address >>> 0;
  words[at + 1] = Math.floor(piece.address / 2 ** 32);
  words[at + 2] = piece.bytes >>> 0;
  words[at + 3] = Math.floor(piece.bytes / 2 ** 32);
}

/**
 * Reads and writes another process's memory. Needs the right to trace it (root, or the same user where Yama permits that).
 *
 * The process is held by its page map, which belongs to one address space for ever. Reading and writing go by PID: who is not
 * sure that the process lives asks {@linkcode ProcessMemory.assertAlive} right before.
 *
 * @see process_vm_writev(2), proc_pid_pagemap(5)
 *
 * @example
 * ```ts
 * import { ProcessMemory } from "./process_memory.ts";
 *
 * export function readWord(pid: number, address: number): number {
 *   using memory = ProcessMemory.open(pid);
 *   const word = new Uint8Array(4);
 *   memory.read(address, word);
 *   return new DataView(word.buffer).getUint32(0, true);
 * }
 * ```
 */
export class ProcessMemory implements Disposable {
  readonly #pid: number;
  readonly #pagemap: FileDescriptor;
  readonly #local = new Uint32Array(IOVEC_WORDS);
  readonly #remote = new RemoteRanges();
  readonly #entry = new Uint8Array(8);
  readonly #entries = new Uint32Array(PAGEMAP_PIECE_PAGES * 2);

  private constructor(pid: number, pagemap: FileDescriptor) {
    this.#pid = pid;
    this.#pagemap = pagemap;
  }

  /**
   * Opens the memory of the process that has this PID now.
   *
   * @throws {KvmError} `denied`, `gone`
   */
  static open(pid: number): ProcessMemory {
    try {
      const pagemap = FileDescriptor.open(`/proc/${pid}/pagemap`, { flags: openFlags.O_RDONLY });
      return new ProcessMemory(pid, pagemap);
    } catch (error) {
      if (!(error instanceof KvmError) || error.code !== "missing") throw error;
      throw new KvmError("gone", `Cannot open the memory of process ${pid}: no such process`, {
        cause: error,
      });
    }
  }

  /** Asks whether the process still lives. @throws {KvmError} `gone` when the process has ended, also when its PID was given to another */
  assertAlive(): void {
    readAt(this.#pagemap, this.#entry, { offset: 0, what: `the memory of process ${this.#pid}` });
  }

  /** Fills `into` from `address` on. @throws {KvmError} `denied`, `gone`, `system` */
  read(address: number, into: Uint8Array): void {
    this.#remote.clear();
    this.#remote.add(address, into.length);
    this.#transfer(into, { ranges: this.#remote, verb: "read" });
  }

  /**
   * Fills `into` from `ranges`, one after the other, and uses them up.
   *
   * @throws {RangeError} when `ranges` end before `into` is full
   * @throws {KvmError} `denied`, `gone`, `system`
   */
  readRanges(into: Uint8Array, ranges: RemoteRanges): void {
    this.#transfer(into, { ranges, verb: "read" });
  }

  /** Writes `bytes` from `address` on. @throws {KvmError} `denied`, `gone`, `system`; a prefix may have been written */
  write(address: number, bytes: Uint8Array): void {
    this.#remote.clear();
    this.#remote.add(address, bytes.length);
    this.writeRanges(bytes, this.#remote);
  }

  /**
   * Writes `bytes` to `ranges`, one after the other, and uses them up.
   *
   * @throws {RangeError} when `ranges` end before `bytes` do
   * @throws {KvmError} `denied`, `gone`, `system`; a prefix may have been written
   */
  writeRanges(bytes: Uint8Array, ranges: RemoteRanges): void {
    this.#transfer(bytes, { ranges, verb: "write" });
  }

  /**
   * Calls `visit` for each run of pages, counted from `address`, that the process has touched: they are present or swapped out.
   * In private memory without a file the others read as zeros.
   *
   * @throws {KvmError} `gone`, `system`
   */
  forEachTouched(
    address: number,
    pageCount: number,
    visit: (run: { first: number; count: number }) => void,
  ): void {
    for (let from = 0; from < pageCount; from += PAGEMAP_PIECE_PAGES) {
      const count = Math.min(PAGEMAP_PIECE_PAGES, pageCount - from);
      readAt(this.#pagemap, new Uint8Array(this.#entries.buffer, 0, count * 8), {
        offset: (address / PAGE_BYTES + from) * 8,
        what: `the page map of process ${this.#pid}`,
      });
      let first = 0;
      for (let page = 0; page <= count; page++) {
        if (page < count && (this.#entries[page * 2 + 1]! & TOUCHED) !== 0) continue;
        if (page > first) visit({ first: from + first, count: page - first });
        first = page + 1;
      }
    }
  }

  /** The process itself is not touched. */
  [Symbol.dispose](): void {
    this.#pagemap[Symbol.dispose]();
  }

  #transfer(
    bytes: Uint8Array,
    options: { ranges: RemoteRanges; verb: "read" | "write" },
  ): void {
    const { ranges, verb } = options;
    const { process_vm_readv, process_vm_writev } = libc();
    const call = verb === "read" ? process_vm_readv : process_vm_writev;
    const what = `the memory of process ${this.#pid}`;
    const start = Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes as Uint8Array<ArrayBuffer>));
    let done = 0;
    while (done < bytes.length) {
      if (ranges.count === 0) throw new RangeError(`Cannot ${verb} ${what}: ranges end too early`);
      setIovec(this.#local, 0, { address: Number(start) + done, bytes: bytes.length - done });
      // SAFETY: the local iovec points into `bytes`, which stays referenced beyond the call and is not resized; its length
      // ends there. The remote iovecs are checked by the kernel against the other process's mappings.
      const count = Number(
        call(this.#pid, this.#local, 1n, ranges.unsafeIovecs, BigInt(ranges.count), 0n),
      );
      if (count <= 0) throw errnoError(`Cannot ${verb} ${what}`, lastErrno());
      done += count;
      // A call that meets an address it cannot use stops there and tells how far it came; the next one says why.
      ranges.skip(count);
    }
  }
}
