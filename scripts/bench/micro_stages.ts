/**
 * What a micro-VM's migration is made of, part by part: the dirty log, the pages' way through the source, and how fast plain
 * memory is.
 *
 * @module
 */

import { defaultRegistry } from "../../ciphers/registry.ts";
import { systemClock } from "../../cli/clock.ts";
import { MicroPageSource } from "../../kvm/micro/micro_page_source.ts";
import { MicroSink } from "../../kvm/micro/micro_destination.ts";
import { encodeSetup } from "../../kvm/micro/micro_setup.ts";
import type { MicroVm } from "../../kvm/micro/micro_vm.ts";
import { KeySchedule } from "../../migration/key_schedule.ts";
import { PAGE_BYTES, PAGES_PER_RECORD } from "../../migration/limits.ts";
import { MistakeBitmap } from "../../migration/mistake_bitmap.ts";
import { PageStream } from "../../migration/page_stream.ts";
import type { PageEvents } from "../../migration/ports.ts";
import { RecordSealer } from "../../migration/record_sealer.ts";
import { Rounds } from "../../migration/rounds.ts";
import { SealedBodyWriter } from "../../migration/sealed_bodies.ts";
import { SealedWindow } from "../../migration/window.ts";
import { type StageRun, timed } from "./profile_clock.ts";

const COPY_BYTES = 4 * 2 ** 20;
const WINDOW_BYTES = 64 * 2 ** 20;
const RECORD_BYTES = PAGES_PER_RECORD * PAGE_BYTES;

/** The same pages by memcpy, into memory that was touched. */
export function copyPlain(vm: MicroVm, to: Uint8Array): Promise<StageRun> {
  return timed(() => {
    for (let at = 0; at < vm.memory.length; at += COPY_BYTES) {
      to.set(vm.memory.subarray(at, at + COPY_BYTES), at);
    }
    return Promise.resolve({ bytes: vm.memory.length });
  });
}

/** Reads the log and counts it; with `clear`, has the pages protected again too. Bytes are those of RAM that the log covers. */
export function scanDirtyLog(vm: MicroVm, options: { clear: boolean }): Promise<StageRun> {
  const logs = vm.startDirtyLog();
  return timed(() => {
    for (const { log } of logs) {
      log.read();
      log.count();
      if (options.clear) log.clear(0, log.pageCount);
    }
    return Promise.resolve({ bytes: vm.memory.length });
  });
}

const noEvents: PageEvents = {
  setup: () => {},
  page: () => {},
  zero: () => {},
  stopped: () => {},
  state: () => {},
  drained: () => {},
};

/** Hands out every page of a VM that stands, to nobody. */
export async function handOut(vm: MicroVm): Promise<StageRun> {
  using pages = new MicroPageSource(vm, { settings: {}, hooks: { stop: () => {} } });
  return await timed(async () => {
    while (await pages.next(noEvents));
    return { bytes: pages.normal * PAGE_BYTES };
  });
}

/** The same, and seals them; the records go nowhere. */
export async function handOutAndSeal(vm: MicroVm): Promise<StageRun> {
  const blocks = [{ name: "micro.ram", bytes: vm.memory.length }];
  using schedule = new KeySchedule(new Uint8Array(32));
  const rounds = new Rounds(blocks, systemClock);
  const window: SealedWindow = new SealedWindow(
    WINDOW_BYTES,
    ({ lastSequence }) => window.acknowledge(lastSequence),
  );
  using sealer = new RecordSealer({
    bodies: new SealedBodyWriter({
      schedule,
      suites: [defaultRegistry().get("aes-256-gcm")],
      suiteOf: { user: 0, kernelText: 0, kernelData: 0, unmapped: 0 },
    }),
    window,
    rounds,
    mistakes: new MistakeBitmap(blocks),
    lane: 0,
  });
  const stream = new PageStream({ sealer, rounds, onSetup: () => {}, onRound: () => {} });
  using pages = new MicroPageSource(vm, { settings: {}, hooks: { stop: () => {} } });
  return await timed(async () => {
    for (let first = true; await pages.next(stream); first = false) {
      if (first) stream.openGate();
      window.flush();
    }
    return { bytes: pages.normal * PAGE_BYTES };
  });
}

/** Lands full records in touched memory, from one hot buffer. */
export function landRecords(vm: MicroVm): Promise<StageRun> {
  const sink = new MicroSink(vm, () => {});
  sink.setup(encodeSetup(vm));
  const bytes = new Uint8Array(RECORD_BYTES).fill(7);
  const numbers = new Uint32Array(PAGES_PER_RECORD);
  return timed(() => {
    for (let page = 0; page * PAGE_BYTES < vm.memory.length; page += numbers.length) {
      for (let i = 0; i < numbers.length; i++) numbers[i] = page + i;
      sink.pages(0, numbers, bytes);
    }
    return Promise.resolve({ bytes: vm.memory.length });
  });
}
