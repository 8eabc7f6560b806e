/**
 * A wire with a tap: a TCP relay that looks for secrets in everything that passes, both ways.
 *
 * @module
 */

import { libc } from "../../kvm/libc.ts";

const READ_BYTES = 256 * 1024;

/** Finds needles in a stream, also where they are cut by reads. */
export class StreamSearch {
  readonly #needles: readonly Uint8Array[];
  /** The end of what was searched, then the next bytes: room for one read. */
  readonly #window: Uint8Array;
  readonly #overlap: number;
  #tailBytes = 0;
  /** How often each needle was found. */
  readonly counts: number[];

  constructor(needles: readonly string[]) {
    this.#needles = needles.map((needle) => new TextEncoder().encode(needle));
    this.#overlap = Math.max(...this.#needles.map((needle) => needle.length)) - 1;
    this.#window = new Uint8Array(this.#overlap + READ_BYTES);
    this.counts = needles.map(() => 0);
  }

  /** Looks through the next bytes of the stream: at most 256 KiB. */
  push(bytes: Uint8Array): void {
    const seenBefore = this.#tailBytes;
    this.#window.set(bytes, seenBefore);
    const window = this.#window.subarray(0, seenBefore + bytes.length);
    for (const [i, needle] of this.#needles.entries()) {
      for (let at = indexOf(window, needle, 0); at !== -1; at = indexOf(window, needle, at + 1)) {
        // What lies in the tail alone was counted with the bytes before.
        if (at + needle.length > seenBefore) this.counts[i]! += 1;
      }
    }
    this.#tailBytes = Math.min(this.#overlap, window.length);
    this.#window.copyWithin(0, window.length - this.#tailBytes, window.length);
  }
}

/** The C library's search: the runtime's own over bytes is a hundred times slower and would hold the wire up. */
function indexOf(haystack: Uint8Array, needle: Uint8Array, from: number): number {
  const rest = haystack.subarray(from);
  // SAFETY: both lengths are those of the views, which live as long as the call.
  const found = libc().memmem(rest, BigInt(rest.length), needle, BigInt(needle.length));
  if (found === null) return -1;
  const start = Deno.UnsafePointer.of(haystack);
  return Number(Deno.UnsafePointer.value(found) - Deno.UnsafePointer.value(start));
}

/** See the module. */
export class CaptureRelay implements Disposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #needles: readonly string[];
  readonly #searches: StreamSearch[] = [];
  readonly #conns = new Set<Deno.Conn>();
  readonly #done: Promise<void>;
  /** Bytes that passed, both ways. */
  bytes = 0;

  /** Relays each connection to the one that `target` makes. */
  constructor(target: () => Promise<Deno.Conn>, options: { needles: readonly string[] }) {
    this.#needles = options.needles;
    this.#done = this.#accept(target);
  }

  /** Where to connect instead of the target. */
  get port(): number {
    return this.#listener.addr.port;
  }

  /** How many times each of the needles has passed, in their order. */
  get counts(): number[] {
    return this.#needles.map((_, i) =>
      this.#searches.reduce((sum, search) => sum + search.counts[i]!, 0)
    );
  }

  /** How many times any of the needles has passed. */
  get found(): number {
    return this.counts.reduce((sum, count) => sum + count, 0);
  }

  /** Ends all connections. */
  [Symbol.dispose](): void {
    this.#listener.close();
    for (const conn of this.#conns) close(conn);
    void this.#done;
  }

  async #accept(target: () => Promise<Deno.Conn>): Promise<void> {
    const pumps: Promise<void>[] = [];
    for (;;) {
      let conn: Deno.Conn;
      try {
        conn = await this.#listener.accept();
      } catch {
        // The listener was closed.
        break;
      }
      this.#conns.add(conn);
      try {
        const other = await target();
        this.#conns.add(other);
        pumps.push(this.#pump(conn, other), this.#pump(other, conn));
      } catch {
        // Nobody listens at the target (any more): so it looks to the caller.
        close(conn);
      }
    }
    await Promise.all(pumps);
  }

  async #pump(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const search = new StreamSearch(this.#needles);
    this.#searches.push(search);
    const buffer = new Uint8Array(READ_BYTES);
    try {
      for (let count; (count = await from.read(buffer)) !== null;) {
        const bytes = buffer.subarray(0, count);
        this.bytes += count;
        search.push(bytes);
        for (let at = 0; at < count;) at += await to.write(bytes.subarray(at));
      }
    } catch {
      // One side is gone: the other is told below.
    }
    try {
      await to.closeWrite();
    } catch {
      // So is the other.
    }
  }
}

function close(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch {
    // Closed already.
  }
}
