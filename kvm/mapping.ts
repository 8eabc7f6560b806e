/**
 * Memory of our own from the kernel: for a guest, or a window into a vCPU.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { errnoError, lastErrno, libc } from "./libc.ts";

/** @see mmap(2), madvise(2) */
const PROT_READ = 1, PROT_WRITE = 2;
const MAP_SHARED = 0x01, MAP_PRIVATE = 0x02, MAP_ANONYMOUS = 0x20, MAP_NORESERVE = 0x4000;
const MADV_HUGEPAGE = 14;
const MAP_FAILED = 2n ** 64n - 1n;

/** A mapping, unmapped when it goes out of scope: every view of `bytes` is detached then. */
export class Mapping implements Disposable {
  /** All of it, in place. Empty once disposed. */
  bytes: Uint8Array<ArrayBuffer>;
  readonly #pointer: Deno.PointerObject;
  readonly #bytes: bigint;
  #mapped = true;

  private constructor(pointer: Deno.PointerObject, bytes: number) {
    this.#pointer = pointer;
    this.#bytes = BigInt(bytes);
    this.bytes = new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, bytes));
  }

  /**
   * Zeros, taken from the host page by page as they are touched.
   *
   * @param bytes a multiple of 4096
   * @throws {RangeError} when it is not
   * @throws {KvmError} `system` when there is no room
   */
  static anonymous(bytes: number): Mapping {
    if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % 4096 !== 0) {
      throw new RangeError(`Cannot map ${bytes} bytes: a multiple of 4096 is needed`);
    }
    const mapping = Mapping.#map(bytes, {
      flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
      fd: -1,
    });
    // Fewer faults; a kernel without it does without.
    // SAFETY: exactly the mapping that was just made.
    libc().madvise(mapping.#pointer, mapping.#bytes, MADV_HUGEPAGE);
    return mapping;
  }

  /** What is behind a descriptor, from its start. @throws {KvmError} `system` */
  static ofFile(fd: number, bytes: number): Mapping {
    return Mapping.#map(bytes, { flags: MAP_SHARED, fd });
  }

  static #map(bytes: number, options: { flags: number; fd: number }): Mapping {
    const { mmap } = libc();
    // SAFETY: the kernel chooses the address; nothing that exists is touched.
    const pointer = mmap(
      null,
      BigInt(bytes),
      PROT_READ | PROT_WRITE,
      options.flags,
      options.fd,
      0n,
    );
    if (pointer === null || Deno.UnsafePointer.value(pointer) === MAP_FAILED) {
      throw errnoError(`Cannot map ${bytes} bytes`, lastErrno());
    }
    return new Mapping(pointer, bytes);
  }

  /** Where it is in this process. @throws {KvmError} `state` once disposed */
  get unsafeAddress(): bigint {
    if (!this.#mapped) throw new KvmError("state", "Cannot use memory: it was unmapped");
    return Deno.UnsafePointer.value(this.#pointer);
  }

  /** Unmaps it. */
  [Symbol.dispose](): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    // Detached first: a view left over is empty then, not dangling.
    this.bytes.buffer.transfer(0);
    this.bytes = new Uint8Array(0);
    // SAFETY: our own mapping, unmapped once; no view of it is left.
    libc().munmap(this.#pointer, this.#bytes);
  }
}
