/**
 * A wire that is slow for a while: a TCP relay whose reads on the way to the destination are throttled.
 *
 * @module
 */

import { delay } from "./qemu.ts";

const READ_BYTES = 64 * 1024;
const TICK_MS = 50;

/** See the module. One connection after the other may pass; disposing of it ends them. */
export class SlowRelay implements AsyncDisposable {
  /** Where `send` dials. */
  readonly port: number;
  readonly #listener: Deno.TcpListener;
  readonly #conns = new Set<Deno.Conn>();
  readonly #done: Promise<void>;
  #bytesPerSecond: number;
  /** Bytes that went to the destination. */
  passedBytes = 0;

  /** @param port where `receive` listens */
  constructor(port: number, options: { bytesPerSecond: number }) {
    this.#bytesPerSecond = options.bytesPerSecond;
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.port = this.#listener.addr.port;
    this.#done = this.#serve(port);
  }

  /** Passes on whatever comes, as fast as it comes. */
  openUp(): void {
    this.#bytesPerSecond = Infinity;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const conn of this.#conns) close(conn);
    await this.#done;
  }

  async #serve(port: number): Promise<void> {
    const passing: Promise<void>[] = [];
    try {
      for await (const source of this.#listener) {
        this.#conns.add(source);
        const destination = await Deno.connect({ hostname: "127.0.0.1", port }).catch(() => null);
        if (destination === null) {
          // Nobody listens there any more.
          close(source);
          continue;
        }
        this.#conns.add(destination);
        passing.push(this.#forward(source, destination), pass(destination, source));
      }
    } finally {
      await Promise.all(passing);
    }
  }

  async #forward(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(READ_BYTES);
    try {
      for (;;) {
        const share = Math.min(READ_BYTES, this.#bytesPerSecond * TICK_MS / 1000);
        if (share < READ_BYTES) await delay(TICK_MS);
        const count = await from.read(buffer.subarray(0, share));
        if (count === null) break;
        await writeAll(to, buffer.subarray(0, count));
        this.passedBytes += count;
      }
    } catch {
      // Either end has closed.
    } finally {
      close(from);
      close(to);
    }
  }
}

async function pass(from: Deno.Conn, to: Deno.Conn): Promise<void> {
  const buffer = new Uint8Array(READ_BYTES);
  try {
    for (let count; (count = await from.read(buffer)) !== null;) {
      await writeAll(to, buffer.subarray(0, count));
    }
  } catch {
    // Either end has closed.
  } finally {
    close(from);
    close(to);
  }
}

async function writeAll(conn: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await conn.write(bytes.subarray(at));
}

function close(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch {
    // It is closed already.
  }
}
