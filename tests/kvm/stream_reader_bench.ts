import { StreamReader } from "../../kvm/stream_reader.ts";
import { StreamWriter } from "../../kvm/stream_writer.ts";
import type { PageEvents } from "../../migration/ports.ts";
import { concat, configuration, header, page, startRam } from "../support/stream_builder.ts";

const PAGES = 16_384;
const blocks = [{ name: "pc.ram", bytes: PAGES * 4096 }];
const section = Uint8Array.of(2, 0, 0, 0, 2);

/** A socket that always has the next records ready: the same memory again and again, read by copying. */
function fill(space: Uint8Array, records: Uint8Array): number {
  let at = 0;
  while (at + records.length <= space.length) {
    space.set(records, at);
    at += records.length;
  }
  return at;
}

function prepare(): StreamReader {
  const reader = new StreamReader({ blocks });
  const bytes = concat(header(), configuration(), startRam(blocks), section, page(0, 1, "pc.ram"));
  reader.space().set(bytes);
  reader.advance(bytes.length, ignoring());
  return reader;
}

function ignoring(): PageEvents {
  const ignore = () => {};
  return {
    setup: ignore,
    page: ignore,
    zero: ignore,
    stopped: ignore,
    state: ignore,
    drained: ignore,
  };
}

/** Uses every argument, so that no work can be left out. */
class Counter implements PageEvents {
  pages = 0;
  sum = 0;
  setup(): void {}
  page(block: number, number: number, bytes: Uint8Array): void {
    this.pages++;
    this.sum += block + number + (bytes[0] ?? 0);
  }
  zero(block: number, number: number): void {
    this.pages++;
    this.sum += block + number;
  }
  stopped(): void {}
  state(): void {}
  drained(): void {}
}

const MEBIBYTES = 64;
const pageRecords = concat(
  ...Array.from({ length: 8 }, (_, number) => page(number, 1).fill(number, 8)),
);
const zeroRecords = new Uint8Array(9 * 1024);
for (let at = 0; at < zeroRecords.length; at += 9) zeroRecords[at + 7] = 0x22;

Deno.bench(`parse pages, 64 MiB, already in the buffer`, { group: "reader" }, (bench) => {
  const reader = prepare();
  const count = fill(reader.space(), pageRecords);
  const counter = new Counter();
  bench.start();
  for (let bytes = 0; bytes < MEBIBYTES << 20; bytes += count) {
    reader.space();
    reader.advance(count, counter);
  }
  bench.end();
});

Deno.bench(`copy and parse pages, 64 MiB`, { group: "reader", baseline: true }, (bench) => {
  const reader = prepare();
  const counter = new Counter();
  bench.start();
  for (let bytes = 0; bytes < MEBIBYTES << 20;) {
    const count = fill(reader.space(), pageRecords);
    reader.advance(count, counter);
    bytes += count;
  }
  bench.end();
});

Deno.bench(`parse zero pages, 64 GiB of them`, { group: "reader zeros" }, (bench) => {
  const reader = prepare();
  const count = fill(reader.space(), zeroRecords);
  const counter = new Counter();
  bench.start();
  while (counter.pages < MEBIBYTES * 1024 * 256) {
    reader.space();
    reader.advance(count, counter);
  }
  bench.end();
});

const writer = new StreamWriter({ ramSectionId: 2, blocks });
const numbers = Uint32Array.from({ length: 64 }, (_, number) => number);
const bytes = new Uint8Array(64 * 4096).fill(1);

Deno.bench(`encode pages, 64 MiB in sections of 64`, { group: "writer" }, () => {
  for (let i = 0; i < MEBIBYTES * 4; i++) writer.pages(0, numbers, bytes);
});

Deno.bench(
  `encode zero pages, 64 GiB of them in sections of 8192`,
  { group: "writer zeros" },
  (bench) => {
    const many = Uint32Array.from({ length: 8192 }, (_, number) => number);
    bench.start();
    for (let i = 0; i < MEBIBYTES * 1024 * 256 / 8192; i++) writer.zeros(0, many);
    bench.end();
  },
);
