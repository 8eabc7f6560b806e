/**
 * The pages of a micro-VM, round by round from its dirty log, in place from its memory.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { KvmError } from "../errors.ts";
import type { LiveParameters } from "../live_parameters.ts";
import type { StreamEvents } from "../stream_format.ts";
import { encodeSetup } from "./micro_setup.ts";
import type { MicroDirtyLog, MicroVm } from "./micro_vm.ts";

const PAGE_BYTES = 4096;
/** Looked at in one `next`: 4 MiB, a few milliseconds of sealing. */
const PIECE_PAGES = 1024;
/** Protected at a time before they are read: few calls, and soon read. */
const CLEAR_PAGES = 16_384;
const DEFAULT_DOWNTIME_MS = 300;
/** A guest that is slowed down beats this many times more rarely at most. */
const MAX_SLOWDOWN = 64;

/** What a {@linkcode MicroPageSource} tells its owner. */
export interface MicroPageSourceHooks {
  /** The last round is due: the VM has to be out of the guest when this returns. */
  stop: () => void;
}

/** A stretch of RAM whose pages are handed out: all of them, or those of the dirty bitmap. */
interface Stretch {
  first: number;
  end: number;
  log: MicroDirtyLog | null;
}

/** One outgoing migration of a micro-VM. */
export class MicroPageSource implements Disposable {
  readonly #vm: MicroVm;
  readonly #logs: MicroDirtyLog[];
  readonly #hooks: MicroPageSourceHooks;
  readonly #words: Int32Array;
  #settings: Required<LiveParameters>;
  #phase: "setup" | "live" | "last" | "ended" = "setup";
  #stretches: Stretch[] = [];
  #at = 0;
  #closed = false;
  #roundStartMs = 0;
  #roundPages = 0;
  #previousDirty = Infinity;
  #bytesPerMs = 0;
  /** Of the round: `maxBandwidth` counts from its start. */
  #roundBytes = 0;

  /** Pages of the current round that were not looked at yet, as of its start. */
  remainingPages: number;
  /** Pages that the guest wrote to in a second of the last round. */
  dirtyPagesPerSecond = 0;
  /** The dirty log was read that often. */
  dirtySyncCount = 0;
  /** Pages handed out with their bytes. */
  normal = 0;
  /** Pages handed out as zeros. */
  duplicate = 0;

  /** The log is on from here; nothing is read before `next`. */
  constructor(vm: MicroVm, options: { settings: LiveParameters; hooks: MicroPageSourceHooks }) {
    this.#vm = vm;
    this.#hooks = options.hooks;
    this.#settings = {
      maxBandwidth: 0,
      downtimeLimitMs: DEFAULT_DOWNTIME_MS,
      autoConverge: false,
      ...options.settings,
    };
    this.#words = new Int32Array(vm.memory.buffer, 0, vm.memory.length / 4);
    this.#logs = vm.startDirtyLog();
    this.remainingPages = vm.memory.length / PAGE_BYTES;
  }

  /** How long the rest would take; null before the first round was over. */
  get expectedDowntimeMs(): number | null {
    return this.#bytesPerMs === 0 ? null : this.remainingPages * PAGE_BYTES / this.#bytesPerMs;
  }

  /** Changes settings while it runs. */
  tune(settings: LiveParameters): void {
    this.#settings = { ...this.#settings, ...settings };
  }

  /**
   * Hands out SETUP, then some pages of the current round, then STATE.
   *
   * @returns false when the VM has said everything
   * @throws {KvmError} `streamCut` after `close`; why the guest cannot go on
   */
  async next(events: StreamEvents): Promise<boolean> {
    await this.#turn();
    if (this.#closed) throw new KvmError("streamCut", "Cannot read the VM's pages: closed");
    await this.#vm.settled();
    switch (this.#phase) {
      case "setup":
        events.setup(encodeSetup(this.#vm));
        this.#phase = "live";
        this.#begin([{ first: 0, end: this.#vm.memory.length / PAGE_BYTES, log: null }]);
        break;
      case "live":
      case "last":
        this.#piece(events);
        if (this.#stretches.length === 0) await this.#roundOver(events);
        break;
      case "ended":
        return false;
    }
    events.drained();
    return this.#isUnended();
  }

  /** Ends it; a pending `next` rejects. What becomes of the VM is its owner's business. */
  close(): void {
    this.#closed = true;
  }

  /** As {@linkcode MicroPageSource.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #isUnended(): boolean {
    return this.#phase !== "ended";
  }

  /** Lets the connection have its turn, and keeps to the bandwidth. */
  async #turn(): Promise<void> {
    const { maxBandwidth } = this.#settings;
    const dueMs = maxBandwidth > 0
      ? this.#roundStartMs + this.#roundBytes / maxBandwidth * 1000 - performance.now()
      : 0;
    await new Promise<void>((resolve) => {
      if (dueMs > 1 && this.#phase === "live") setTimeout(resolve, Math.min(dueMs, 100));
      else setImmediate(resolve);
    });
  }

  #begin(stretches: Stretch[]): void {
    this.#stretches = stretches;
    this.#at = stretches[0]?.first ?? 0;
    this.#roundStartMs = performance.now();
    this.#roundPages = this.#roundBytes = 0;
  }

  /** Hands out up to {@linkcode PIECE_PAGES} pages of the first stretch that has any. */
  #piece(events: StreamEvents): void {
    for (let left = PIECE_PAGES; left > 0;) {
      const stretch = this.#stretches[0];
      if (stretch === undefined) return;
      const { end, log } = stretch;
      let page = this.#at;
      for (; page < end && left > 0; page++) {
        if (log !== null) {
          const index = page - log.firstPage;
          // Writes from here on are noted anew: only then is a page read.
          if (index % CLEAR_PAGES === 0) {
            log.log.clear(index, Math.min(CLEAR_PAGES, log.log.pageCount - index));
          }
          const word = log.log.bitmap[index >>> 5]!;
          if (word === 0) {
            // To the next word, whose first page is looked at in the next turn of the loop.
            page += 31 - (index & 31);
            continue;
          }
          if ((word >>> (index & 31) & 1) === 0) continue;
        }
        left--;
        this.#handOut(page, events);
      }
      this.#at = page;
      if (page < end) return;
      this.#stretches.shift();
      this.#at = this.#stretches[0]?.first ?? 0;
    }
  }

  #handOut(page: number, events: StreamEvents): void {
    this.#roundPages++;
    if (this.#isZero(page)) {
      this.duplicate++;
      return events.zero(0, page);
    }
    this.normal++;
    this.#roundBytes += PAGE_BYTES;
    events.page(
      0,
      page,
      this.#vm.memory.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES),
    );
  }

  /** A page that becomes something else while it is looked at is in the dirty log, and comes again. */
  #isZero(page: number): boolean {
    const words = this.#words;
    const end = (page + 1) * (PAGE_BYTES / 4);
    for (let i = page * (PAGE_BYTES / 4); i < end; i++) if (words[i] !== 0) return false;
    return true;
  }

  async #roundOver(events: StreamEvents): Promise<void> {
    if (this.#phase === "last") {
      events.state(this.#vm.saveState());
      this.#phase = "ended";
      return;
    }
    const seconds = Math.max(performance.now() - this.#roundStartMs, 0.1) / 1000;
    this.#bytesPerMs = Math.max(this.#roundBytes, this.#roundPages) / seconds / 1000;
    let dirty = this.#sync();
    this.dirtyPagesPerSecond = Math.round(dirty / seconds);
    const { downtimeLimitMs, autoConverge } = this.#settings;
    if (dirty * PAGE_BYTES <= this.#bytesPerMs * downtimeLimitMs || !this.#vm.running) {
      this.#hooks.stop();
      await this.#vm.settled();
      events.stopped();
      this.#phase = "last";
      dirty = this.#sync({ keep: true });
    } else if (autoConverge && dirty > this.#previousDirty / 2) {
      this.#vm.slowdown = Math.min(this.#vm.slowdown * 2, MAX_SLOWDOWN);
    }
    this.#previousDirty = dirty;
    this.remainingPages = dirty;
    this.#begin(this.#logs.map((log) => ({
      first: log.firstPage,
      end: log.firstPage + log.log.pageCount,
      log,
    })));
  }

  #sync(options: { keep?: boolean } = {}): number {
    this.dirtySyncCount++;
    let dirty = 0;
    for (const { log } of this.#logs) {
      log.read(options);
      dirty += log.count();
    }
    return dirty;
  }
}
