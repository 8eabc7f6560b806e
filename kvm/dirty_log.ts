/**
 * Which pages of a memory slot the guest wrote to.
 *
 * @see https://docs.kernel.org/virt/kvm/api.html, sections 4.8, 4.117 and 7.18
 * @module
 */

import { ioctlBuffer } from "./ioctls.ts";
import { kvm_clear_dirty_log, kvm_dirty_log } from "./kvm_structures.ts";
import { Structure } from "./structure.ts";

/** KVM_CLEAR_DIRTY_LOG takes whole 64-bit words. */
const WORD_PAGES = 64;

/** The log of one slot. Made by `Vm.startDirtyLog`. */
export class DirtyLog {
  /** Pages of the slot. */
  readonly pageCount: number;
  /**
   * The dirty bitmap as of the last {@linkcode DirtyLog.read}: page `n` is bit `n % 32` of word `n >> 5`. Bits past the last
   * page are 0.
   */
  readonly bitmap: Uint32Array<ArrayBuffer>;
  readonly #vm: { readonly unsafeFd: number };
  readonly #slot: number;
  readonly #manualProtect: boolean;
  readonly #bitmapAddress: bigint;

  /** Of a slot that is logged already. @param vm the VM's raw descriptor */
  constructor(
    vm: { readonly unsafeFd: number },
    options: { slot: number; pageCount: number; manualProtect: boolean },
  ) {
    this.#vm = vm;
    this.#slot = options.slot;
    this.#manualProtect = options.manualProtect;
    this.pageCount = options.pageCount;
    this.bitmap = new Uint32Array(Math.ceil(options.pageCount / WORD_PAGES) * 2);
    this.#bitmapAddress = Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.bitmap));
  }

  /**
   * Fills the bitmap.
   *
   * @param options.keep what is in the bitmap stays: for pages that were not copied since it was read
   * @throws {KvmError} `missing` (ENOENT) when the log was stopped
   */
  read(options: { keep?: boolean } = {}): void {
    const kept = options.keep ? this.bitmap.slice() : null;
    // SAFETY: the bitmap has a bit for every page, rounded up to 64, and lives as long as this object.
    const log = new Structure(kvm_dirty_log).assign({
      slot: this.#slot,
      dirty_bitmap: this.#bitmapAddress,
    });
    ioctlBuffer(this.#vm.unsafeFd, "KVM_GET_DIRTY_LOG", log.bytes);
    if (kept !== null) { for (const [i, word] of kept.entries()) this.bitmap[i]! |= word; }
  }

  /**
   * Says that the pages of the bitmap from `first` on are about to be copied: what is written from now on is noted anew.
   * Has to be called before they are read; without manual protection {@linkcode DirtyLog.read} did it already.
   *
   * @param first a multiple of 64
   * @param count a multiple of 64, or up to the end
   */
  clear(first: number, count: number): void {
    if (!this.#manualProtect) return;
    if (first % WORD_PAGES !== 0 || first + count > this.pageCount) {
      throw new RangeError(`Cannot clear the dirty log from page ${first} for ${count} pages`);
    }
    // SAFETY: as in `read`; the kernel reads `count` bits from the address of the first one.
    const log = new Structure(kvm_clear_dirty_log).assign({
      slot: this.#slot,
      num_pages: count,
      first_page: BigInt(first),
      dirty_bitmap: this.#bitmapAddress + BigInt(first / 8),
    });
    ioctlBuffer(this.#vm.unsafeFd, "KVM_CLEAR_DIRTY_LOG", log.bytes);
  }

  /** Dirty pages in the bitmap. */
  count(): number {
    let count = 0;
    for (let word of this.bitmap) {
      word -= (word >>> 1) & 0x55555555;
      word = (word & 0x33333333) + ((word >>> 2) & 0x33333333);
      count += Math.imul((word + (word >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
    }
    return count;
  }
}
