/**
 * Every suite on every backend, through the guard as in use, by message size. At 256 KiB, the size of a
 * full record, also the ways to get 64 pages sealed that do not lie side by side: QEMU's stream puts 8
 * bytes before each page.
 *
 * `deno bench -A tests/ciphers/suites_bench.ts`
 */

import { type CipherSuite, guardSealer } from "../../ciphers/mod.ts";
import { suites } from "./_support.ts";

const PAGE_BYTES = 4096;
const PAGES = 64;
/** A page record of QEMU's stream: 8 bytes of offset and flags, then the page. */
const STRIDE_BYTES = 4104;

/** Seals messages with growing nonces; `pieces` hands each message's pieces to `update`. */
function messageSealer(
  suite: CipherSuite,
  pieces: (update: (from: Uint8Array, to: Uint8Array) => void) => void,
): () => void {
  const sealer = guardSealer(suite, new Uint8Array(suite.keyBytes).fill(3));
  const nonce = new Uint8Array(suite.nonceBytes);
  const sequence = new DataView(nonce.buffer, suite.nonceBytes - 8);
  const header = new Uint8Array(24);
  const tag = new Uint8Array(suite.tagBytes);
  const update = (from: Uint8Array, to: Uint8Array) => sealer.update(from, to);
  let last = 0n;
  return () => {
    sequence.setBigUint64(0, ++last);
    sealer.begin(nonce, header);
    pieces(update);
    sealer.finish(tag);
  };
}

for (const [size, name] of [[4096, "4 KiB"], [65_536, "64 KiB"], [1_048_576, "1 MiB"]] as const) {
  for (const suite of suites) {
    const view = new Uint8Array(size);
    Deno.bench({
      name: `${name} ${suite.id} (${suite.backend})`,
      group: name,
      baseline: suite === suites[0],
      fn: messageSealer(suite, (update) => update(view, view)),
    });
  }
}

const stream = new Uint8Array(PAGES * STRIDE_BYTES);
const body = new Uint8Array(PAGES * PAGE_BYTES);
const page = (index: number) =>
  stream.subarray(index * STRIDE_BYTES + 8, (index + 1) * STRIDE_BYTES);
const place = (index: number) => body.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);

for (const suite of suites) {
  Deno.bench({
    name: `256 KiB ${suite.id} (${suite.backend}), one piece`,
    group: "256 KiB",
    baseline: suite === suites[0],
    fn: messageSealer(suite, (update) => update(body, body)),
  });
  Deno.bench({
    name: `256 KiB ${suite.id} (${suite.backend}), 64 pages each`,
    group: "256 KiB",
    fn: messageSealer(suite, (update) => {
      for (let i = 0; i < PAGES; i++) update(page(i), place(i));
    }),
  });
  Deno.bench({
    name: `256 KiB ${suite.id} (${suite.backend}), 64 pages copied, then one piece`,
    group: "256 KiB",
    fn: messageSealer(suite, (update) => {
      for (let i = 0; i < PAGES; i++) body.set(page(i), i * PAGE_BYTES);
      update(body, body);
    }),
  });
}
