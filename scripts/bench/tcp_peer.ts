/**
 * The other end of a TCP connection, in a process of its own. Run as `tcp_peer.ts write|read PORT BYTES CHUNK` it is that end.
 *
 * @module
 */

/** A connection to a process that reads, or writes, as fast as it can. */
export interface TcpPeer extends AsyncDisposable {
  conn: Deno.TcpConn;
}

/** Starts it. */
export async function startTcpPeer(
  mode: "read" | "write",
  options: { bytes: number; chunkBytes: number },
): Promise<TcpPeer> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--no-prompt", import.meta.url, mode, String(listener.addr.port)],
      ...[String(options.bytes), String(options.chunkBytes)],
    ],
    stdin: "null",
  }).spawn();
  const conn = await listener.accept();
  conn.setNoDelay(true);
  return {
    conn,
    async [Symbol.asyncDispose]() {
      conn.close();
      await child.status;
    },
  };
}

async function main(): Promise<void> {
  const [mode, port, bytes, chunkBytes] = Deno.args;
  const buffer = new Uint8Array(Number(chunkBytes));
  using conn = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
  for (let left = Number(bytes); left > 0;) {
    const count = mode === "write" ? await conn.write(buffer) : await conn.read(buffer);
    if (count === null) break;
    left -= count;
  }
}

if (import.meta.main) await main();
