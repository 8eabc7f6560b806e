/**
 * Every suite on every backend, through the guard as in use, by message size: sealed, and at 256 KiB, the
 * size of a full record, also opened. Then the ways to get 64 pages sealed that do not lie side by side:
 * QEMU's stream puts 8 bytes before each page. All memory is written to first: what nobody has touched yet is
 * read at another speed.
 *
 * `deno bench -A tests/ciphers/suites_bench.ts`; `deno task bench` reads throughput from the size in a
 * group's name.
 */

import { builtInRegistry, type CipherSuite, guardOpener, guardSealer } from "../../ciphers/mod.ts";
import thirdParty from "../../scripts/suites/aes_256_gcm_siv.ts";

const PAGE_BYTES = 4096;
const PAGES = 64;
/** A page record of QEMU's stream: 8 bytes of offset and flags, then the page. */
const STRIDE_BYTES = 4104;

/** Suites as they are in use here, then what would take their place where libcrypto did not load. */
const suites: CipherSuite[] = [];
const withoutLibrary = {
  available: false,
  reason: "missing",
  cause: new Error("left out, to measure what takes its place"),
} as const;
for (
  const suite of [
    ...builtInRegistry().list(),
    ...builtInRegistry(withoutLibrary).list(),
    thirdParty,
  ]
) {
  const known = suites.some(({ id, backend }) => id === suite.id && backend === suite.backend);
  if (!known) suites.push(suite);
}

function nameOf(suite: CipherSuite): string {
  return `${suite.id} (${suite.backend})`;
}

/** A key, and room for what goes with a message. */
function prepare(suite: CipherSuite) {
  return {
    key: new Uint8Array(suite.keyBytes).fill(3),
    nonce: new Uint8Array(suite.nonceBytes),
    header: new Uint8Array(24),
    tag: new Uint8Array(suite.tagBytes),
  };
}

/** Seals messages with growing nonces; `pieces` hands each message's pieces to `update`. */
function messageSealer(
  suite: CipherSuite,
  pieces: (update: (from: Uint8Array, to: Uint8Array) => void) => void,
): () => void {
  const { key, nonce, header, tag } = prepare(suite);
  const sealer = guardSealer(suite, key);
  const update = (from: Uint8Array, to: Uint8Array) => sealer.update(from, to);
  return () => {
    increment(nonce);
    sealer.begin(nonce, header);
    pieces(update);
    sealer.finish(tag);
  };
}

/** Opens one message again and again, into another place. */
function messageOpener(suite: CipherSuite, view: Uint8Array): () => void {
  const { key, nonce, header, tag } = prepare(suite);
  const sealer = guardSealer(suite, key);
  sealer.begin(nonce, header);
  sealer.update(view, view);
  sealer.finish(tag);
  const opener = guardOpener(suite, key);
  const opened = new Uint8Array(view.length);
  return () => {
    opener.begin(nonce, header, tag);
    opener.update(view, opened);
    if (!opener.finish()) throw new Error("it does not open");
  };
}

/** Big-endian, as a record's sequence is. */
function increment(nonce: Uint8Array): void {
  for (let i = nonce.length - 1; i >= 0; i--) {
    nonce[i] = (nonce[i]! + 1) & 0xff;
    if (nonce[i] !== 0) return;
  }
}

for (
  const [size, name] of [
    [4096, "4 KiB"],
    [65_536, "64 KiB"],
    [262_144, "256 KiB"],
    [1_048_576, "1 MiB"],
  ] as const
) {
  for (const suite of suites) {
    const view = new Uint8Array(size).fill(7);
    Deno.bench({
      name: nameOf(suite),
      group: `seal ${name}`,
      baseline: suite === suites[0],
      fn: messageSealer(suite, (update) => update(view, view)),
    });
  }
}

for (const suite of suites) {
  Deno.bench({
    name: nameOf(suite),
    group: "open 256 KiB",
    baseline: suite === suites[0],
    fn: messageOpener(suite, new Uint8Array(PAGES * PAGE_BYTES).fill(7)),
  });
}

const stream = new Uint8Array(PAGES * STRIDE_BYTES).fill(7);
const body = new Uint8Array(PAGES * PAGE_BYTES);
const page = (index: number) =>
  stream.subarray(index * STRIDE_BYTES + 8, (index + 1) * STRIDE_BYTES);
const place = (index: number) => body.subarray(index * PAGE_BYTES, (index + 1) * PAGE_BYTES);

for (const suite of suites.filter(({ id }) => id === suites[0]?.id)) {
  Deno.bench({
    name: `${nameOf(suite)}, 64 pages copied, then one piece`,
    group: "seal 256 KiB of pages",
    baseline: suite === suites[0],
    fn: messageSealer(suite, (update) => {
      for (let i = 0; i < PAGES; i++) body.set(page(i), i * PAGE_BYTES);
      update(body, body);
    }),
  });
  Deno.bench({
    name: `${nameOf(suite)}, 64 pages each`,
    group: "seal 256 KiB of pages",
    fn: messageSealer(suite, (update) => {
      for (let i = 0; i < PAGES; i++) update(page(i), place(i));
    }),
  });
}
