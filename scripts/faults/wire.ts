/**
 * A wire that can be cut, stalled and tampered with: a TCP relay between the two agents.
 *
 * @module
 */

const READ_BYTES = 256 * 1024;

/** The two ways along a wire. */
export type Direction = "to destination" | "to source";

/** A cut at a byte: the wire is down for `downMs` from there on. */
export interface PlannedCut {
  /** Counted over all connections, on the way to the destination. */
  atBytes: number;
  downMs: number;
}

/** See the module. Disposing of it ends every connection. */
export class Wire implements AsyncDisposable {
  /** Where the source dials. */
  readonly port: number;
  /** Bytes that went to the destination. */
  passedBytes = 0;
  /** Bits flipped so far, and cuts made. */
  flips = 0;
  cuts = 0;
  readonly #targetPort: number;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #conns = new Set<Deno.TcpConn>();
  readonly #accepting: Promise<void>;
  readonly #pumps = new Set<Promise<void>>();
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();
  #stalled: Promise<void> | null = null;
  #isDown = false;
  #flipNext: Direction | null = null;
  #flipAtBytes = Infinity;
  #flipRate: { everyBytes: number; random: () => number } | null = null;
  #planned: PlannedCut[] = [];

  /** Relays each connection to `targetPort` on this host. */
  constructor(targetPort: number) {
    this.#targetPort = targetPort;
    this.port = this.#listener.addr.port;
    this.#accepting = this.#accept();
  }

  /** Ends every connection now; the next one passes. */
  cut(): void {
    this.cuts++;
    for (const conn of this.#conns) close(conn);
    this.#conns.clear();
  }

  /** Cuts, and lets nobody through for `ms`; for good without it. */
  down(ms = Infinity): void {
    this.#isDown = true;
    this.cut();
    if (ms === Infinity) return;
    this.#after(ms, () => this.up());
  }

  /** Lets the next connection through. */
  up(): void {
    this.#isDown = false;
  }

  /** Nothing passes for `ms`, and nothing is closed. */
  stall(ms: number): void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#stalled = promise;
    this.#after(ms, () => {
      this.#stalled = null;
      resolve();
    });
  }

  /** Flips one bit of what passes next in that direction. */
  flipNext(direction: Direction): void {
    this.#flipNext = direction;
  }

  /** Flips about one bit in `everyBytes` on the way to the destination; `random` gives 0 to 1. */
  flipEvery(everyBytes: number, random: () => number): void {
    this.#flipRate = { everyBytes, random };
    this.#planFlip();
  }

  /** Cuts at these bytes; in order. */
  plan(cuts: readonly PlannedCut[]): void {
    this.#planned = cuts.toSorted((a, b) => a.atBytes - b.atBytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#stalled = null;
    this.#listener.close();
    for (const conn of this.#conns) close(conn);
    await this.#accepting;
    await Promise.all(this.#pumps);
  }

  async #accept(): Promise<void> {
    try {
      for (;;) {
        const source = await this.#listener.accept();
        this.#relay(source);
      }
    } catch {
      // The listener was closed.
    }
  }

  #relay(source: Deno.TcpConn): void {
    if (this.#isDown) return close(source);
    this.#conns.add(source);
    const pump = this.#pumpBoth(source).finally(() => this.#pumps.delete(pump));
    this.#pumps.add(pump);
  }

  async #pumpBoth(source: Deno.TcpConn): Promise<void> {
    let destination: Deno.TcpConn;
    try {
      destination = await Deno.connect({ hostname: "127.0.0.1", port: this.#targetPort });
    } catch {
      // Nobody listens there any more.
      return close(source);
    }
    if (!this.#conns.has(source)) return close(destination);
    this.#conns.add(destination);
    for (const conn of [source, destination]) conn.setNoDelay(true);
    await Promise.all([
      this.#pump("to destination", { from: source, to: destination }),
      this.#pump("to source", { from: destination, to: source }),
    ]);
    for (const conn of [source, destination]) {
      close(conn);
      this.#conns.delete(conn);
    }
  }

  async #pump(direction: Direction, ends: { from: Deno.Conn; to: Deno.Conn }): Promise<void> {
    const { from, to } = ends;
    const buffer = new Uint8Array(READ_BYTES);
    try {
      for (let count; (count = await from.read(buffer)) !== null;) {
        // A stall that began while the read waited holds these bytes as well.
        while (this.#stalled !== null) await this.#stalled;
        let bytes = buffer.subarray(0, count);
        if (this.#flipNext === direction) this.#flip(bytes);
        if (direction === "to destination") {
          this.#flipPlanned(bytes);
          const cut = this.#planned[0];
          const leftBytes = (cut?.atBytes ?? Infinity) - this.passedBytes;
          if (cut !== undefined && leftBytes <= bytes.length) {
            bytes = bytes.subarray(0, Math.max(0, leftBytes));
            await writeAll(to, bytes);
            this.passedBytes += bytes.length;
            this.#planned.shift();
            return cut.downMs > 0 ? this.down(cut.downMs) : this.cut();
          }
          this.passedBytes += bytes.length;
        }
        await writeAll(to, bytes);
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

  #flip(bytes: Uint8Array): void {
    const at = bytes.length >> 1;
    bytes[at] = bytes[at]! ^ 1;
    this.#flipNext = null;
    this.flips++;
  }

  #planFlip(): void {
    const { everyBytes, random } = this.#flipRate!;
    this.#flipAtBytes = this.passedBytes + 1 + Math.floor(2 * everyBytes * random());
  }

  #flipPlanned(bytes: Uint8Array): void {
    while (this.#flipAtBytes <= this.passedBytes + bytes.length) {
      const at = Math.max(0, this.#flipAtBytes - this.passedBytes - 1);
      bytes[at] = bytes[at]! ^ 1 << Math.floor(8 * this.#flipRate!.random());
      this.flips++;
      const { everyBytes, random } = this.#flipRate!;
      this.#flipAtBytes += 1 + Math.floor(2 * everyBytes * random());
    }
  }

  #after(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
  }
}

async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

function close(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch {
    // Closed already.
  }
}
