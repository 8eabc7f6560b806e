/**
 * A micro-VM in an agent's own process: it is made there, runs there, tells its heartbeats, and ends with it.
 *
 * @module
 */

import { Kvm } from "../kvm/kvm.ts";
import { MicroDestination } from "../kvm/micro/micro_destination.ts";
import { MicroSource } from "../kvm/micro/micro_source.ts";
import { MicroVm } from "../kvm/micro/micro_vm.ts";
import { CliError } from "./cli_error.ts";
import { printJson } from "./json_lines.ts";
import type { MicroGuest, MicroShape } from "./micro_options.ts";

const PAGE_BYTES = 4096;
const BEATS_INTERVAL_MS = 100;

/** A micro-VM's UUID unless `--vm-id` names another: the same at both ends. */
const MICRO_UUID = "8a9f3c0e-4d1b-4c57-9b6e-5ea11f700001";

/** The text in a page of the guest that nothing reads: what must not be seen on the wire. */
export function microSecret(uuid: string = MICRO_UUID): string {
  return `the secret of micro-VM ${uuid}`;
}

/** Says in one line why there can be no micro-VM here. @throws {CliError} `missing` */
export function requireKvm(): void {
  const why = Kvm.whyUnavailable();
  if (why !== null) throw new CliError("missing", why);
}

/** What a micro-VM of the command line is told. */
export interface MicroHostOptions {
  /** In the place of its own UUID. */
  vmId: string | undefined;
  json: boolean;
}

/** See the module. Disposing of it tells the last heartbeats and ends the VM. */
export class MicroHost implements Disposable {
  /** The VM. */
  readonly vm: MicroVm;
  readonly #uuid: string | undefined;
  readonly #json: boolean;
  readonly #told: number[];
  readonly #timer: ReturnType<typeof setInterval>;

  private constructor(vm: MicroVm, options: MicroHostOptions) {
    this.vm = vm;
    this.#uuid = options.vmId;
    this.#json = options.json;
    this.#told = Array.from({ length: vm.vcpuCount }, () => 0);
    this.#timer = setInterval(() => this.#tellBeats(), BEATS_INTERVAL_MS);
  }

  /**
   * Makes the machine, and with `--json` says where its memory is, for whoever wants to look from outside.
   *
   * @throws {CliError} `missing` without /dev/kvm
   * @throws {KvmError} as `MicroVm.create`
   */
  static async create(shape: MicroShape, options: MicroHostOptions): Promise<MicroHost> {
    requireKvm();
    const vm = await MicroVm.create({
      memoryBytes: shape.memoryMiB * 2 ** 20,
      vcpus: shape.vcpus,
    });
    if (options.json) {
      const base = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(vm.memory)));
      printJson({ type: "memory", pid: Deno.pid, base, bytes: vm.memory.length });
    }
    return new MicroHost(vm, options);
  }

  /** Makes it and starts the guest. */
  static async boot(guest: MicroGuest, options: MicroHostOptions): Promise<MicroHost> {
    const host = await MicroHost.create(guest, options);
    host.vm.boot({
      dirtyPagesPerSecond: guest.dirtyRate / PAGE_BYTES,
      secret: new TextEncoder().encode(microSecret(options.vmId)),
    });
    host.vm.start();
    await host.vm.untilBeats(1);
    return host;
  }

  /** It as the VM that leaves. */
  source(): MicroSource {
    return new MicroSource(this.vm, this.#identity);
  }

  /** It as the VM that arrives. */
  destination(): MicroDestination {
    return new MicroDestination(this.vm, this.#identity);
  }

  /**
   * Lets a VM that has arrived run until `signal`, or for `ms`; then checks its memory by what its program must have left there.
   *
   * @returns what is wrong with it, or null
   */
  async runOn(options: { signal: AbortSignal; ms: number | undefined }): Promise<string | null> {
    const { vm } = this;
    const ended = Promise.withResolvers<void>();
    vm.onFailure = () => ended.resolve();
    options.signal.addEventListener("abort", () => ended.resolve());
    const timer = options.ms === undefined ? null : setTimeout(ended.resolve, options.ms);
    if (vm.failure === null && !options.signal.aborted) await ended.promise;
    if (timer !== null) clearTimeout(timer);
    vm.stop();
    if (vm.failure !== null) return vm.failure.message;
    const vcpus = vm.check().map(({ wrongPages, ...rest }) => ({
      ...rest,
      wrongPages: wrongPages.length,
    }));
    this.#tellBeats();
    if (this.#json) printJson({ type: "workload", vcpus });
    return vcpus.every((it) => it.filled && it.wrongPages === 0 && it.checksumFits)
      ? null
      : "its memory is not as its program left it";
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.vm[Symbol.dispose]();
    this.#tellBeats();
  }

  get #identity(): { uuid: string } {
    return { uuid: this.#uuid ?? MICRO_UUID };
  }

  /** The heartbeats since the last time, a line for each vCPU. */
  #tellBeats(): void {
    if (!this.#json) return;
    for (const [vcpu, from] of this.#told.entries()) {
      const beats = this.vm.beats(vcpu, from);
      if (beats.length === 0) continue;
      this.#told[vcpu] = from + beats.length;
      printJson({
        type: "beats",
        vcpu,
        values: beats.map(({ value }) => value),
        atMs: beats.map(({ atMs }) => atMs),
      });
    }
  }
}
