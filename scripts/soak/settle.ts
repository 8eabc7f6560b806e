/**
 * `recover` on both sides, for two micro-VMs that are still there: what two hosts do after exit code 5.
 *
 * @module
 */

import { systemClock } from "../../cli/clock.ts";
import type { MicroDestination } from "../../kvm/micro/micro_destination.ts";
import type { MicroSource } from "../../kvm/micro/micro_source.ts";
import type { Identity } from "../../migration/identity.ts";
import type { Journal, JournalEntry } from "../../migration/ports.ts";
import { recover, type RecoveryResult, type RecoveryVm } from "../../migration/recovery.ts";
import { Loopback } from "../../tests/support/loopback.ts";

/** How long the two sides may take to meet, in milliseconds. */
const MEET_MS = 30_000;

/** What each side of a migration has left. */
export interface Leftovers {
  id: string;
  identities: { source: Identity; destination: Identity };
  source: { vm: MicroSource; entries: JournalEntry[] };
  destination: { vm: MicroDestination; entries: JournalEntry[]; loaded: boolean };
  /** Called right before the copy at the destination is taken. */
  beforeTaking: () => void;
}

/** Lets both sides meet. @returns what each says of it */
export async function settle(left: Leftovers): Promise<RecoveryResult[]> {
  const { id, identities, source, destination } = left;
  const loopback = new Loopback();
  const common = { id, clock: systemClock, signal: AbortSignal.timeout(MEET_MS) };
  return await Promise.all([
    recover({
      ...common,
      side: "destination",
      vm: destinationVm(left),
      entries: [...destination.entries],
      journal: journal(destination.entries, left.beforeTaking),
      identity: identities.destination,
      peerKey: identities.source.publicKey,
      meet: { listener: loopback },
    }),
    recover({
      ...common,
      side: "source",
      vm: sourceVm(source.vm),
      entries: [...source.entries],
      journal: journal(source.entries),
      identity: identities.source,
      peerKey: identities.destination.publicKey,
      meet: { dial: () => Promise.resolve(loopback.dial()) },
    }),
  ]);
}

function journal(entries: JournalEntry[], beforeTaking = () => {}): Journal {
  return {
    append(entry) {
      if (entry.state === "taking") beforeTaking();
      entries.push(entry);
      return Promise.resolve();
    },
    close: () => {},
  };
}

function sourceVm(vm: MicroSource): RecoveryVm {
  return {
    hasRun: false,
    onRun: null,
    async status() {
      const runState = await vm.status();
      const migration = runState === "postmigrate" ? "completed" : null;
      return { runState, migration, counters: await vm.counters() };
    },
    // What stands because it stood before stays so.
    resume: () => vm.resume(),
    announce: () => Promise.resolve(),
    quit: () => vm.quit(),
  };
}

function destinationVm({ destination: { vm, loaded } }: Leftovers): RecoveryVm {
  return {
    get hasRun() {
      return vm.hasRun;
    },
    onRun: null,
    async status() {
      return {
        runState: await vm.status(),
        migration: loaded ? "completed" : null,
        counters: null,
      };
    },
    resume: async () => void await vm.run(),
    announce: () => Promise.resolve(),
    quit: () => vm.quit(),
  };
}
