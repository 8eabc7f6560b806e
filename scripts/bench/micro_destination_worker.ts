/**
 * The destination of the micro-VM benchmark, on a thread of its own: takes the VM in again and again, into memory that was
 * touched before.
 *
 * @module
 */

/// <reference lib="deno.worker" />

import { defaultRegistry } from "../../ciphers/registry.ts";
import { sealedSuiteIds } from "../../ciphers/sealed.ts";
import { ownCpuSeconds, systemClock } from "../../cli/clock.ts";
import { MicroDestination } from "../../kvm/micro/micro_destination.ts";
import { MicroVm } from "../../kvm/micro/micro_vm.ts";
import { Destination } from "../../migration/destination.ts";
import { decodeKey, generateIdentity } from "../../migration/identity.ts";
import { MemoryJournals } from "../../tests/support/memory_journal.ts";

/** What the worker is told first; each later message asks for one more migration. */
export interface DestinationStart {
  memoryBytes: number;
  /** The source's public key. */
  allowed: string;
}

/** What the worker says. */
export type DestinationMessage =
  | { type: "ready"; publicKey: Uint8Array }
  | { type: "listening"; port: number }
  | { type: "done"; outcome: string; text: string };

// No await at top level: a message that comes before the handler is there would be lost.
const identities = generateIdentity();
const suites = [...sealedSuiteIds];
let vm: MicroVm | null = null;
let allowed = new Uint8Array(0);

self.onmessage = async ({ data }: MessageEvent<DestinationStart | "next">) => {
  const identity = await identities;
  if (data !== "next") {
    allowed = decodeKey(data.allowed);
    vm = await MicroVm.create({ memoryBytes: data.memoryBytes });
    // The host's first-touch faults are no part of this.
    vm.memory.fill(1);
    return say({ type: "ready", publicKey: identity.publicKey });
  }
  if (vm === null) return;
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const destination = new Destination({
    vm: new MicroDestination(vm),
    listener: {
      async accept() {
        const conn = await listener.accept();
        conn.setNoDelay(true);
        return conn;
      },
      close: () => listener.close(),
    },
    identity,
    allowed: [{ publicKey: allowed, name: "a" }],
    registry: defaultRegistry(),
    suites: { user: suites, kernelText: suites, kernelData: suites, unmapped: suites },
    repairBudgetBytes: 2 ** 20,
    journals: new MemoryJournals(),
    clock: systemClock,
    signal: new AbortController().signal,
    agentCpuSeconds: ownCpuSeconds,
  });
  const running = destination.run();
  say({ type: "listening", port: listener.addr.port });
  const { outcome, error } = await running;
  vm.stop();
  say({ type: "done", outcome, text: error?.message ?? "" });
};

function say(message: DestinationMessage): void {
  self.postMessage(message);
}
