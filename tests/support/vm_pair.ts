/**
 * Two VMs that are alike, on two hosts: one that runs, one that waits for it. A migration between them is held where both
 * stand still, and their memory is compared there.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { AgentEnd, AgentProcess } from "../../cli/demo/agent_process.ts";
import type { BootSectorLoad } from "../../cli/guest/boot_sector.ts";
import type { QemuOptions } from "../../cli/guest/qemu_arguments.ts";
import { compareRam, GuestRam } from "./guest_ram.ts";
import { MigrationHosts, type Receiver } from "./migration_hosts.ts";
import { savedTestGuest } from "./qemu.ts";
import { WatchedVm } from "./watched_vm.ts";

/** How a migration ended that completed. */
export interface Moved {
  sent: AgentEnd;
  received: AgentEnd;
}

/** See the module. */
export class VmPair implements AsyncDisposable {
  readonly hosts: MigrationHosts;
  readonly source: WatchedVm;
  readonly destination: WatchedVm;
  readonly #stack: AsyncDisposableStack;

  private constructor(
    stack: AsyncDisposableStack,
    parts: { hosts: MigrationHosts; source: WatchedVm; destination: WatchedVm },
  ) {
    this.#stack = stack;
    this.hosts = parts.hosts;
    this.source = parts.source;
    this.destination = parts.destination;
  }

  /** Boot sectors in 16 MiB. All of a guest that is no Linux is of class `user`. */
  static async bootSectors(load: Partial<BootSectorLoad> = {}): Promise<VmPair> {
    await using stack = new AsyncDisposableStack();
    const hosts = stack.use(await MigrationHosts.make());
    const vm: QemuOptions = {
      guest: { bootSector: await hosts.bootSector(load) },
      memoryMiB: 16,
      memory: "memfd",
      name: "pair",
      uuid: crypto.randomUUID(),
    };
    const source = stack.use(await WatchedVm.start(vm));
    const destination = stack.use(await WatchedVm.start({ ...vm, incoming: "defer" }));
    await source.moreBeats(2);
    return new VmPair(stack.move(), { hosts, source, destination });
  }

  /** Linux, as `savedTestGuest` has it. */
  static async linux(load: Parameters<typeof savedTestGuest>[0] = {}): Promise<VmPair> {
    await using stack = new AsyncDisposableStack();
    const hosts = stack.use(await MigrationHosts.make());
    const saved = await savedTestGuest(load);
    const vm: QemuOptions = { ...saved.options, memory: "memfd" };
    const source = stack.use(
      await WatchedVm.watch(await saved.start({ memory: "memfd", qmpCount: 2 })),
    );
    const destination = stack.use(await WatchedVm.start({ ...vm, incoming: "defer" }));
    await source.moreBeats(2);
    return new VmPair(stack.move(), { hosts, source, destination });
  }

  /** Starts `receive`; resolves when it listens. */
  async receive(...args: string[]): Promise<Receiver> {
    return await this.hosts.receive(this.destination, { args });
  }

  /** Moves the VM to a `receive`, and checks that it arrived whole. `port`: that of a relay before it. */
  async move(
    receiver: Receiver,
    options: { args?: readonly string[]; port?: number } = {},
  ): Promise<Moved> {
    const { args = [], port = receiver.port } = options;
    const send = this.hosts.send(this.source, port, {
      hold: ["releasing"],
      args: ["--max-stop", "60s", ...args],
    });
    if (await send.line("held") === null) assert.fail((await send.ended).stderr);
    using ram = await GuestRam.open(this.source, "memfd");
    using otherRam = await GuestRam.open(this.destination, "memfd");
    const { differing, comparedBytes } = await compareRam(ram, otherRam);
    assert.deepEqual(differing, [], "pages that differ");
    assert.ok(comparedBytes >= 2 ** 21, `only ${comparedBytes} bytes compared`);
    await send.go();
    const [sent, received] = await Promise.all([send.ended, receiver.agent.ended]);
    assert.deepEqual([sent.code, received.code], [0, 0], sent.stderr + received.stderr);
    assert.equal(await this.source.status(), "gone");
    assert.equal(await this.destination.status(), "running");
    await this.destination.moreBeats(2);
    return { sent, received };
  }

  /** A `send` that must not begin: ends with `code`, both VMs are as they were, and `receive` listens on. */
  async refuse(
    receiver: Receiver,
    options: { args?: readonly string[]; port?: number; codes?: readonly number[] } = {},
  ): Promise<AgentEnd> {
    const { args = [], port = receiver.port, codes = [3] } = options;
    const settings = await this.source.settings();
    const end = await this.hosts.send(this.source, port, { args }).ended;
    assert.ok(codes.includes(end.code), `send ended with ${end.code}: ${end.stderr}`);
    const { bytes, rounds, suites } = end.report!;
    assert.deepEqual([bytes.guest, rounds, suites], [0, null, null]);
    assert.deepEqual(this.hosts.journal("source", end.report!.id), []);
    assert.deepEqual(await this.source.settings(), settings);
    assert.equal(await this.source.status(), "running");
    assert.ok(this.source.events.every(({ name }) => name !== "STOP"), "the VM was stopped");
    assert.equal(await this.destination.status(), "inmigrate");
    this.#listens(receiver.agent);
    return end;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }

  #listens(receive: AgentProcess): void {
    assert.ok(!receive.hasEnded, "receive has ended");
    const others = receive.lines.filter(({ type }) => type !== "listening" && type !== "note");
    assert.deepEqual(others, [], "receive began");
  }
}

/** Ends a `receive` that goes on. */
export async function endReceive({ agent }: Receiver): Promise<AgentEnd> {
  agent.signal("SIGTERM");
  return await agent.ended;
}
