/**
 * Whole migrations of a micro-VM over loopback TCP, between two threads of this process.
 *
 * @module
 */

import { cpuUsage } from "node:process";
import { defaultRegistry } from "../../ciphers/registry.ts";
import type { SealedSuiteId } from "../../ciphers/sealed.ts";
import { ownCpuSeconds, systemClock } from "../../cli/clock.ts";
import { MicroSource } from "../../kvm/micro/micro_source.ts";
import type { MicroVm } from "../../kvm/micro/micro_vm.ts";
import { encodeKey, generateIdentity, type Identity } from "../../migration/identity.ts";
import { DEFAULT_WINDOW_BYTES } from "../../migration/limits.ts";
import { Source } from "../../migration/source.ts";
import { MemoryJournals } from "../../tests/support/memory_journal.ts";
import type { DestinationMessage, DestinationStart } from "./micro_destination_worker.ts";

/** What one migration came to. */
export interface MigrationRun {
  /** Guest bytes in pages that are not zero, of all rounds. */
  bytes: number;
  /** From the first page to the end of the switchover. */
  seconds: number;
  /** Of both ends and the guest, over the whole migration. */
  cpuSeconds: number;
  rounds: number;
  downtimeMs: number | null;
}

/** The two ends; the source's VM stays the benchmark's. */
export class MicroPair implements Disposable {
  readonly #vm: MicroVm;
  readonly #worker: Worker;
  readonly #identity: Identity;
  readonly #peerKey: Uint8Array;
  readonly #queue: DestinationMessage[] = [];
  #wake = Promise.withResolvers<void>();

  private constructor(vm: MicroVm, worker: Worker, keys: { own: Identity; peer: Uint8Array }) {
    this.#vm = vm;
    this.#worker = worker;
    this.#identity = keys.own;
    this.#peerKey = keys.peer;
    worker.onmessage = ({ data }: MessageEvent<DestinationMessage>) => {
      this.#queue.push(data);
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    };
  }

  /** Makes the other end, as large as `vm`. */
  static async start(vm: MicroVm): Promise<MicroPair> {
    const own = await generateIdentity();
    const worker = new Worker(new URL("./micro_destination_worker.ts", import.meta.url), {
      type: "module",
    });
    const ready = Promise.withResolvers<Uint8Array>();
    worker.onmessage = ({ data }: MessageEvent<DestinationMessage>) => {
      if (data.type === "ready") ready.resolve(data.publicKey);
    };
    worker.postMessage(
      {
        memoryBytes: vm.memory.length,
        allowed: encodeKey(own.publicKey),
      } satisfies DestinationStart,
    );
    return new MicroPair(vm, worker, { own, peer: await ready.promise });
  }

  /** Moves the running VM once; afterwards it runs here again. */
  async migrate(suite: SealedSuiteId): Promise<MigrationRun> {
    this.#worker.postMessage("next");
    const listening = await this.#next("listening");
    const vm = new MicroSource(this.#vm);
    const source = new Source({
      vm,
      dial: async () => {
        const conn = await Deno.connect({ hostname: "127.0.0.1", port: listening.port });
        conn.setNoDelay(true);
        return conn;
      },
      identity: this.#identity,
      peer: { publicKey: this.#peerKey, name: "b" },
      registry: defaultRegistry(),
      suites: { user: [suite], kernelText: [suite], kernelData: [suite], unmapped: [suite] },
      limits: {
        reconnectMs: 10_000,
        maxStopMs: 60_000,
        repairBudgetBytes: 2 ** 20,
        windowBytes: DEFAULT_WINDOW_BYTES,
      },
      live: { downtimeLimitMs: 20 },
      journals: new MemoryJournals(),
      clock: systemClock,
      signal: new AbortController().signal,
      agentCpuSeconds: ownCpuSeconds,
      keepSource: true,
    });
    const cpu = cpuUsage();
    const { outcome, error, rounds, bytes, totalMs, setupMs, downtimeMs } = await source.run();
    if (outcome !== "completed") throw new Error(`Cannot measure: ${error?.message}`);
    await this.#next("done");
    const { user, system } = cpuUsage(cpu);
    await vm.restore();
    this.#vm.start();
    return {
      bytes: bytes.guest,
      seconds: (totalMs - setupMs!) / 1000,
      cpuSeconds: (user + system) / 1e6,
      rounds: rounds!.length,
      downtimeMs,
    };
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }

  async #next<Type extends DestinationMessage["type"]>(
    type: Type,
  ): Promise<Extract<DestinationMessage, { type: Type }>> {
    for (;;) {
      const message = this.#queue.shift();
      if (message?.type === type) return message as Extract<DestinationMessage, { type: Type }>;
      if (message !== undefined) throw new Error(`Cannot measure: ${JSON.stringify(message)}`);
      await this.#wake.promise;
    }
  }
}
