/**
 * Stages of the destination.
 *
 * @module
 */

import { defaultRegistry } from "../../ciphers/registry.ts";
import { systemClock } from "../../cli/clock.ts";
import { findLanding } from "../../kvm/landing.ts";
import { readProcess } from "../../kvm/process.ts";
import { readFacts } from "../../kvm/qemu_facts.ts";
import { KeySchedule } from "../../migration/key_schedule.ts";
import { FRAME_HEADER_BYTES, PAGE_BYTES, PAGES_PER_RECORD } from "../../migration/limits.ts";
import { MistakeBitmap } from "../../migration/mistake_bitmap.ts";
import { RecordOpener } from "../../migration/record_opener.ts";
import { RecordSealer } from "../../migration/record_sealer.ts";
import { Rounds } from "../../migration/rounds.ts";
import { SealedBodyReader, SealedBodyWriter } from "../../migration/sealed_bodies.ts";
import { SealedWindow } from "../../migration/window.ts";
import type { BenchVm } from "./bench_vm.ts";
import { type StageRun, timed } from "./profile_clock.ts";
import { startTcpPeer } from "./tcp_peer.ts";

const READ_BYTES = 2 * 1024 * 1024;
const RECORD_BYTES = PAGES_PER_RECORD * PAGE_BYTES;
/** Sealed records that are opened again and again: more than a second-level cache holds. */
const SEALED_RECORDS = 16;
/** Clear of what the guest's boot left. */
const FIRST_PAGE = 4096;
const blocks = [{ name: "ram", bytes: 2 ** 30 }];

/** Reads `bytes` from another process. */
export async function readTcp(options: { bytes: number; chunkBytes: number }): Promise<StageRun> {
  await using peer = await startTcpPeer("write", options);
  return await timed(async () => {
    const buffer = new Uint8Array(READ_BYTES);
    let bytes = 0, calls = 0;
    while (bytes < options.bytes) {
      const count = await peer.conn.read(buffer);
      if (count === null) break;
      bytes += count;
      calls++;
    }
    return { bytes, calls };
  });
}

/** Opens full records of pages. */
export async function openRecords(options: { bytes: number }): Promise<StageRun> {
  const suite = defaultRegistry().get("aes-256-gcm");
  using schedule = new KeySchedule(new Uint8Array(32));
  const payloads: Uint8Array[] = [];
  {
    let last = 0;
    const window = new SealedWindow(2 * SEALED_RECORDS * RECORD_BYTES, ({ bytes, usedBytes }) => {
      const view = new DataView(bytes.buffer);
      for (let at = 0; at < usedBytes;) {
        const end = at + FRAME_HEADER_BYTES + view.getUint32(at + 4);
        payloads.push(bytes.slice(at + FRAME_HEADER_BYTES, end));
        at = end;
      }
    });
    using sealer = new RecordSealer({
      bodies: new SealedBodyWriter({
        schedule,
        suites: [suite],
        suiteOf: { user: 0, kernelText: 0, kernelData: 0, unmapped: 0 },
      }),
      window,
      mistakes: new MistakeBitmap(blocks),
      rounds: new Rounds(blocks, systemClock),
      lane: 0,
    });
    const page = crypto.getRandomValues(new Uint8Array(PAGE_BYTES));
    while (last < SEALED_RECORDS * PAGES_PER_RECORD) sealer.page(0, last++, page);
    sealer.sealOpen();
    window.flush();
  }
  return await timed(() => {
    let bytes = 0;
    while (bytes < options.bytes) {
      using opener = new RecordOpener({
        bodies: new SealedBodyReader({ schedule, suites: [suite] }),
        lane: 0,
        blocks,
      });
      for (const payload of payloads) {
        const record = opener.open(payload);
        if (record.type !== "pages") throw new Error("Cannot open a record of the profile's own");
        bytes += record.bytes.length;
      }
    }
    return Promise.resolve({ bytes, calls: bytes / RECORD_BYTES });
  });
}

/** Lands full records of pages, from one hot buffer, in ascending order. */
export async function landRecords(
  vm: BenchVm,
  options: { land: "mapped" | "process"; bytes: number },
): Promise<StageRun> {
  const process = readProcess(vm.process.pid);
  const facts = await readFacts(vm.qmp, process);
  const landing = await findLanding({ qmp: vm.qmp, process, facts, mode: options.land });
  try {
    const block = facts.blocks.findIndex((_, index) => landing.covers(index));
    const record = crypto.getRandomValues(new Uint8Array(65_536));
    const pages = new Uint8Array(RECORD_BYTES);
    for (let at = 0; at < pages.length; at += record.length) pages.set(record, at);
    const numbers = new Uint32Array(PAGES_PER_RECORD);
    return await timed(() => {
      let bytes = 0;
      for (; bytes < options.bytes; bytes += RECORD_BYTES) {
        for (let i = 0; i < numbers.length; i++) numbers[i] = FIRST_PAGE + bytes / PAGE_BYTES + i;
        landing.pages(block, numbers, pages);
      }
      return Promise.resolve({ bytes, calls: bytes / RECORD_BYTES });
    });
  } finally {
    landing.close();
  }
}
