/**
 * Two machines of the saved guest, and what can be said of them from outside: which ran when, whether the guest still
 * beats, and whether it finds its memory as it left it.
 *
 * @module
 */

import { examineHeartbeats, parseHeartbeats } from "../../cli/guest/heartbeat.ts";
import { QemuProcess } from "../../cli/guest/qemu_process.ts";
import { type SavedGuest, savedLinuxGuest } from "../../cli/guest/saved_guest.ts";
import type { QmpEvent } from "../../kvm/qmp.ts";
import { testCacheDirectory } from "../../tests/support/qemu.ts";
import { WatchedVm } from "../../tests/support/watched_vm.ts";

/** Small enough that the guest checks all of it twice a second. */
const LOAD = { dirtyMiBPerSecond: 24, workingSetMiB: 8, secretToken: "f4u1t" } as const;
const MEMORY_MIB = 96;
const POLL_MS = 10;
/** The guest is emulated, and a stopped neighbour may take half the machine. */
const SURVIVAL_TIMEOUT_MS = 30_000;

/** The guest of the campaign: booted once, then started from its saved state. */
export function faultGuest(): Promise<SavedGuest> {
  return savedLinuxGuest({
    cacheDirectory: testCacheDirectory(),
    log: (line) => console.error(line),
    memoryMiB: MEMORY_MIB,
    load: LOAD,
  });
}

/** What two machines said of themselves. */
export interface Testimony {
  source: readonly Pick<QmpEvent, "name" | "hostTimeMs">[];
  destination: readonly Pick<QmpEvent, "name" | "hostTimeMs">[];
  /** Wall clock; null when it was not. */
  sourceKilledAtMs: number | null;
}

/** What the events of both say that must never be: both ran at once, or a stale copy did. Null when nothing. */
export function doubleRun({ source, destination, sourceKilledAtMs }: Testimony): string | null {
  const tookOver = destination.find(({ name }) => name === "RESUME");
  if (tookOver === undefined) return null;
  const words = source.filter(({ name }) => name === "STOP" || name === "RESUME");
  const stop = words.find(({ name }) => name === "STOP");
  const stoodAtMs = stop?.hostTimeMs ?? sourceKilledAtMs ?? Infinity;
  if (stoodAtMs > (tookOver.hostTimeMs ?? 0)) return "both copies ran at once";
  // From its STOP on the source and the destination hold the same moment: one of them may go on from there.
  if (stop === undefined) return null;
  return words.slice(words.indexOf(stop)).some(({ name }) => name === "RESUME")
    ? "both copies went on from the same moment: one is stale"
    : null;
}

/** A pair of machines: one that runs, one that waits for it. Disposing of it kills both. */
export class VmPair implements AsyncDisposable {
  readonly source: WatchedVm;
  readonly destination: WatchedVm;
  /** Wall clock of the moment a machine was killed, by side. */
  readonly killedAtMs: { source: number | null; destination: number | null } = {
    source: null,
    destination: null,
  };

  private constructor(source: WatchedVm, destination: WatchedVm) {
    this.source = source;
    this.destination = destination;
  }

  static async start(guest: SavedGuest): Promise<VmPair> {
    const name = "faults";
    await using stack = new AsyncDisposableStack();
    const source = stack.use(await WatchedVm.watch(await guest.start({ qmpCount: 2, name })));
    const destination = stack.use(
      await WatchedVm.watch(
        await QemuProcess.start({ ...guest.options, name, qmpCount: 2, incoming: "defer" }),
      ),
    );
    await source.moreBeats(2);
    stack.move();
    return new VmPair(source, destination);
  }

  /** SIGKILL, now. */
  async kill(side: "source" | "destination"): Promise<void> {
    this.killedAtMs[side] = Date.now();
    await this[side].process.kill();
  }

  /** What must never be; null when nothing of it was. See {@linkcode doubleRun}. */
  doubleRun(): string | null {
    return doubleRun({
      source: this.source.events,
      destination: this.destination.events,
      sourceKilledAtMs: this.killedAtMs.source,
    });
  }

  /** What is wrong with the one that survived, after it was given time to beat and to check its memory; null when nothing. */
  async survivalFault(side: "source" | "destination"): Promise<string | null> {
    const vm = this[side];
    const beats = vm.process.heartbeats().length;
    const passes = passCount(vm);
    const deadlineMs = performance.now() + SURVIVAL_TIMEOUT_MS;
    // The first of two passes may have begun before.
    while (vm.process.heartbeats().length < beats + 20 || passCount(vm) < passes + 2) {
      if (performance.now() > deadlineMs) return `the guest at the ${side} does not go on`;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    const chunks = side === "source"
      ? vm.process.serial(1)
      : [...this.source.process.serial(1), ...vm.process.serial(1)];
    const { breaks } = examineHeartbeats(parseHeartbeats(chunks));
    if (breaks.length > 0) return `the heartbeat jumped: ${JSON.stringify(breaks)}`;
    for (const one of [this.source, this.destination]) {
      const bad = /^(BAD|FAIL).*$/m.exec(serialText(one))?.[0];
      if (bad !== undefined) return `the guest's memory is not what it wrote: ${bad}`;
    }
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destination[Symbol.asyncDispose]();
    await this.source[Symbol.asyncDispose]();
  }
}

function serialText(vm: WatchedVm): string {
  const decoder = new TextDecoder("latin1");
  return vm.process.serial(0).map(({ bytes }) => decoder.decode(bytes)).join("");
}

function passCount(vm: WatchedVm): number {
  return serialText(vm).match(/^PASS \d+/gm)?.length ?? 0;
}
