/**
 * Stages of the source, on a real QEMU's stream.
 *
 * @module
 */

import { defaultRegistry } from "../../ciphers/registry.ts";
import { systemClock } from "../../cli/clock.ts";
import { readProcess } from "../../kvm/process.ts";
import { readFacts } from "../../kvm/qemu_facts.ts";
import { StreamReader } from "../../kvm/stream_reader.ts";
import { KeySchedule } from "../../migration/key_schedule.ts";
import { MistakeBitmap } from "../../migration/mistake_bitmap.ts";
import { Outbox } from "../../migration/outbox.ts";
import { PageStream } from "../../migration/page_stream.ts";
import type { PageEvents } from "../../migration/ports.ts";
import { RecordSealer } from "../../migration/record_sealer.ts";
import { Rounds } from "../../migration/rounds.ts";
import { SealedBodyWriter } from "../../migration/sealed_bodies.ts";
import { SealedWindow, type Slab } from "../../migration/window.ts";
import type { BenchVm } from "./bench_vm.ts";
import { type StageRun, timed } from "./profile_clock.ts";
import { startTcpPeer } from "./tcp_peer.ts";

const READ_BYTES = 1024 * 1024;
const WINDOW_BYTES = 64 * 1024 * 1024;

const noEvents: PageEvents = {
  setup: () => {},
  page: () => {},
  zero: () => {},
  stopped: () => {},
  state: () => {},
  drained: () => {},
};

/** Lets QEMU migrate into a socket of ours, hands the connection to `use`, and cancels. */
async function withStream(
  vm: BenchVm,
  directory: string,
  use: (conn: Deno.Conn) => Promise<StageRun>,
): Promise<StageRun> {
  const path = `${directory}/stream`;
  await vm.qmp.execute("migrate-set-parameters", { "max-bandwidth": 0 });
  using listener = Deno.listen({ transport: "unix", path });
  try {
    const accepted = listener.accept();
    await vm.qmp.execute("migrate", { uri: `unix:${path}` });
    const conn = await accepted;
    try {
      return await use(conn);
    } finally {
      conn.close();
    }
  } finally {
    await vm.qmp.execute("migrate_cancel");
    await vm.reaches("running");
    await Deno.remove(path);
  }
}

/** Reads `bytes` of the stream and does nothing with them, or takes them apart. */
export async function readStream(
  vm: BenchVm,
  options: { bytes: number; bufferBytes: number; directory: string; parse?: boolean },
): Promise<StageRun> {
  const { blocks } = await readFacts(vm.qmp, readProcess(vm.process.pid));
  return await withStream(vm, options.directory, (conn) =>
    timed(async () => {
      const reader = new StreamReader({ blocks });
      const buffer = new Uint8Array(options.bufferBytes);
      let bytes = 0, calls = 0;
      while (bytes < options.bytes) {
        const count = await conn.read(options.parse ? reader.space() : buffer);
        if (count === null) break;
        if (options.parse) reader.advance(count, noEvents);
        bytes += count;
        calls++;
      }
      return { bytes, calls };
    }));
}

/** Reads, takes apart and seals; the sealed records go nowhere. */
export async function sealStream(
  vm: BenchVm,
  options: { bytes: number; directory: string },
): Promise<StageRun> {
  return await pump(vm, { ...options, put: null });
}

/** Reads, takes apart, seals and writes to a TCP connection, as a source does. */
export async function sendStream(
  vm: BenchVm,
  options: { bytes: number; directory: string },
): Promise<StageRun> {
  await using peer = await startTcpPeer("read", { bytes: Infinity, chunkBytes: 2 * READ_BYTES });
  const outbox = new Outbox(peer.conn, {
    clock: systemClock,
    onCut: (cause) => console.error(cause),
  });
  return await pump(vm, { ...options, put: outbox });
}

async function pump(
  vm: BenchVm,
  options: { bytes: number; directory: string; put: Outbox | null },
): Promise<StageRun> {
  const { blocks } = await readFacts(vm.qmp, readProcess(vm.process.pid));
  const { put } = options;
  const suite = defaultRegistry().get("aes-256-gcm");
  using schedule = new KeySchedule(new Uint8Array(32));
  const rounds = new Rounds(blocks, systemClock);
  const sent: { end: number; sequence: number }[] = [];
  let putBytes = 0, slabs = 0;
  const window = new SealedWindow(WINDOW_BYTES, (slab: Slab) => {
    slabs++;
    putBytes += slab.usedBytes;
    sent.push({ end: putBytes, sequence: slab.lastSequence });
    put?.put(slab.bytes.subarray(0, slab.usedBytes), { data: true });
  });
  // What was written counts as acknowledged: a peer acknowledges a little later.
  const acknowledge = () => {
    const written = put?.writtenBytes ?? Infinity;
    while (sent.length > 0 && sent[0]!.end <= written) window.acknowledge(sent.shift()!.sequence);
  };
  using sealer = new RecordSealer({
    bodies: new SealedBodyWriter({
      schedule,
      suites: [suite],
      suiteOf: { user: 0, kernelText: 0, kernelData: 0, unmapped: 0 },
    }),
    window,
    mistakes: new MistakeBitmap(blocks),
    rounds,
    lane: 0,
  });
  const stream = new PageStream({ sealer, rounds, onSetup: () => {}, onRound: () => {} });
  return await withStream(vm, options.directory, (conn) =>
    timed(async () => {
      const reader = new StreamReader({ blocks, bufferBytes: READ_BYTES });
      let bytes = 0;
      while (bytes < options.bytes) {
        const count = await conn.read(reader.space());
        if (count === null) break;
        reader.advance(count, stream);
        bytes += count;
        if (put === null || put.idle || window.full) window.flush();
        acknowledge();
        if (window.full) {
          await put?.drained();
          acknowledge();
        }
      }
      await put?.drained();
      return { bytes, calls: put === null ? sealer.lastSequence : slabs };
    }));
}
