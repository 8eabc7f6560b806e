/**
 * TCP connections that are reset before anybody has taken them: what a port scan, or a health check, leaves at a
 * listener.
 *
 * @see tcp(7), socket(7) on SO_LINGER: a close within no time sends RST
 * @module
 */

import assert from "node:assert/strict";

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_LINGER = 13;

/** Connects to 127.0.0.1 and resets the connection, `times` times. */
export function dialAndReset(port: number, times: number): void {
  // struct sockaddr_in: family in the host's order, port and address in the network's.
  const address = new Uint8Array(16);
  new DataView(address.buffer).setUint16(0, AF_INET, true);
  new DataView(address.buffer).setUint16(2, port);
  address.set([127, 0, 0, 1], 4);
  // struct linger: on, 0 seconds.
  const linger = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);
  const libc = Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  const { socket, connect, setsockopt, close } = libc.symbols;
  try {
    for (let i = 0; i < times; i++) {
      // SAFETY: no memory is handed over.
      const fd = socket(AF_INET, SOCK_STREAM, 0);
      // SAFETY: both buffers outlive the calls, which read as many bytes as they have.
      assert.equal(connect(fd, address, address.length), 0, "connect");
      assert.equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, linger.length), 0, "setsockopt");
      // SAFETY: `fd` is ours, and not used again.
      close(fd);
    }
  } finally {
    libc.close();
  }
}
