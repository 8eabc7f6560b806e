/**
 * `recover` with real QEMUs: what a crash left is settled, with one copy that runs; and what must not settle it does not.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { AgentEnd } from "../../cli/demo/agent_process.ts";
import type { QemuOptions } from "../../cli/guest/qemu_arguments.ts";
import { generateIdentityFile } from "../../cli/state_directory.ts";
import { MigrationHosts, type Receiver } from "../support/migration_hosts.ts";
import { until } from "../support/patience.ts";
import { qemuTest } from "../support/qemu.ts";
import { WatchedVm } from "../support/watched_vm.ts";

type Side = "source" | "destination";

/** A migration whose `send` was killed at `state`; the VM is at neither side for sure. */
class Crash implements AsyncDisposable {
  readonly hosts: MigrationHosts;
  readonly vm: QemuOptions;
  readonly source: WatchedVm;
  readonly destination: WatchedVm;
  readonly receiver: Receiver;
  readonly id: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(
    parts: Pick<Crash, "hosts" | "vm" | "source" | "destination" | "receiver" | "id">,
    stack: AsyncDisposableStack,
  ) {
    ({
      hosts: this.hosts,
      vm: this.vm,
      source: this.source,
      destination: this.destination,
      receiver: this.receiver,
      id: this.id,
    } = parts);
    this.#stack = stack;
  }

  static async at(state: string): Promise<Crash> {
    await using stack = new AsyncDisposableStack();
    const hosts = stack.use(await MigrationHosts.make());
    const vm = { guest: { bootSector: await hosts.bootSector() }, memoryMiB: 32, name: "web" };
    const source = stack.use(await WatchedVm.start(vm));
    await source.moreBeats(5);
    const destination = stack.use(await WatchedVm.start({ ...vm, incoming: "defer" }));
    const receiver = await hosts.receive(destination);
    const send = hosts.send(source, receiver.port, { hold: [state], args: ["--max-stop", "60s"] });
    if (await send.line("held", state) === null) assert.fail((await send.ended).stderr);
    send.signal("SIGKILL");
    await send.ended;
    const id = hosts.lastId("source");
    assert.ok(id !== null);
    const parts = { hosts, vm, source, destination, receiver, id };
    return new Crash(parts, stack.move());
  }

  /** `recover` on that side's host, to its end. */
  recover(side: Side, args: readonly string[]): Promise<AgentEnd> {
    return this.hosts.recover(side, { args }).ended;
  }

  /** The address of `receive`. */
  get to(): string {
    return `127.0.0.1:${this.receiver.port}`;
  }

  async killReceive(): Promise<void> {
    this.receiver.agent.signal("SIGKILL");
    await this.receiver.agent.ended;
  }

  /** Both run states, waited for. */
  async reaches(source: string, destination: string): Promise<void> {
    const states = async () => [await this.source.status(), await this.destination.status()].join();
    await until(
      `${source},${destination}`,
      async () => await states() === `${source},${destination}`,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

function assertRefused(end: AgentEnd, message: RegExp): void {
  assert.equal(end.code, 3, end.stderr);
  assert.match(end.stderr, message);
}

qemuTest(
  "recover at the source takes the VM back from a receive that waits, and it can be sent again",
  async () => {
    await using crash = await Crash.at("copying");
    const { hosts, receiver } = crash;
    const dry = await crash.recover("source", ["--to", crash.to, "--dry-run"]);
    assert.equal(dry.code, 0, dry.stderr);
    assert.match(dry.stderr, /so: the VM is at the source; a copy at the destination is discarded/);
    await crash.reaches("running", "inmigrate");
    assert.deepEqual(hosts.journal("source", crash.id), ["open"]);

    const { code, stderr } = await crash.recover("source", ["--to", crash.to]);
    assert.equal(code, 0, stderr);
    await crash.reaches("running", "gone");
    assert.equal((await receiver.agent.ended).code, 1);
    assert.equal(hosts.journal("source", crash.id).at(-1), "aborted");
    assert.equal(hosts.journal("destination", crash.id).at(-1), "discarded");

    await using another = await WatchedVm.start({ ...crash.vm, incoming: "defer" });
    const { agent, port } = await hosts.receive(another);
    const sent = await hosts.send(crash.source, port).ended;
    assert.equal(sent.code, 0, sent.stderr);
    assert.equal((await agent.ended).code, 0);
    await another.moreBeats(5);
    await hosts.checkClean();
  },
);

qemuTest("two recovers hand a released VM over when both agents are dead", async () => {
  await using crash = await Crash.at("released");
  const { hosts } = crash;
  await crash.killReceive();
  await crash.reaches("postmigrate", "paused");
  const listening = hosts.recover("destination", { args: ["--listen", "127.0.0.1:0"] });
  const address = String((await listening.line("listening"))?.["address"]);
  // One at a time, whatever it is told.
  const second = await crash.recover("destination", ["--to", "127.0.0.1:1"]);
  assert.equal(second.code, 1, second.stderr);
  assert.match(second.stderr, /error: Cannot work with QEMU \d+: process \d+ does/);
  assert.match(second.stderr, /hint: if that is `receive`, it answers/);

  const { code, report, stderr } = await crash.recover("source", ["--to", address]);
  assert.equal(code, 0, stderr);
  assert.equal(report?.destinationState, "running");
  assert.equal((await listening.ended).code, 0);
  await crash.reaches("gone", "running");
  await crash.destination.moreBeats(5);
  assert.equal(hosts.journal("source", crash.id).at(-1), "done");
  assert.equal(hosts.journal("destination", crash.id).at(-1), "running");
  await hosts.checkClean();
});

qemuTest("recover does not take a side for dead where anything answers", async () => {
  await using crash = await Crash.at("released");
  const { hosts } = crash;
  const declare = ["--declare-dead", "destination"];
  const alive = await crash.recover("source", ["--to", crash.to, ...declare]);
  assertRefused(alive, /Cannot take the destination for dead: it answers/);
  // With a key that the other side does not know nobody can tell what is there.
  const other = `${hosts.directory}/other`;
  await generateIdentityFile(other);
  const wrongKey = ["--to", crash.to, "--identity", other];
  assertRefused(
    await crash.recover("source", [...wrongKey, ...declare]),
    /Cannot take the destination for dead: something listens there that does not accept this side/,
  );
  const unknown = await crash.recover("source", wrongKey);
  assert.equal(unknown.code, 5, unknown.stderr);
  assert.match(unknown.stderr, /destination: does not answer/);
  await crash.reaches("postmigrate", "paused");
  assert.deepEqual(hosts.journal("source", crash.id), ["open", "releasing", "released"]);
  assert.deepEqual(hosts.journal("destination", crash.id), ["open", "loaded"]);
  assert.equal(crash.receiver.agent.hasEnded, false);
});

qemuTest("recover --declare-dead source runs nothing that was not loaded", async () => {
  await using crash = await Crash.at("finishing");
  await crash.reaches("running", "inmigrate");
  assert.equal(crash.hosts.journal("destination", crash.id).at(-1), "open");
  await crash.killReceive();
  await crash.source.process.kill();
  const declare = ["--listen", "127.0.0.1:0", "--declare-dead", "source"];
  assertRefused(
    await crash.recover("destination", declare),
    /Cannot run the VM here: this side holds nothing that could run/,
  );
  assert.equal(crash.destination.hasRun, false);
});

qemuTest("recover --declare-dead source takes the operator's word for a loaded copy", async () => {
  await using crash = await Crash.at("releasing");
  const { hosts } = crash;
  await until("LOADED", () => hosts.journal("destination", crash.id).includes("loaded"));
  await crash.killReceive();
  await crash.source.process.kill();
  await crash.reaches("gone", "paused");
  const nobody = await crash.recover("destination", ["--to", "127.0.0.1:1"]);
  assert.equal(nobody.code, 5, nobody.stderr);
  assert.match(
    nobody.stderr,
    /hint: .*has not run since it stopped for this migration, after \d{4}-.*--declare-dead source/,
  );
  assert.equal(crash.destination.hasRun, false);
  const sworn = await crash.recover("destination", [
    ...["--listen", "127.0.0.1:0", "--declare-dead", "source"],
  ]);
  assert.equal(sworn.code, 0, sworn.stderr);
  await crash.reaches("gone", "running");
  assert.equal(hosts.journal("destination", crash.id).at(-1), "running");
});

qemuTest(
  "recover discards a copy that comes back after the VM went on at the source, and ended there",
  async () => {
    await using crash = await Crash.at("released");
    const { hosts } = crash;
    await crash.killReceive();
    await crash.reaches("postmigrate", "paused");
    const sworn = await crash.recover("source", [
      ...["--to", "127.0.0.1:1", "--declare-dead", "destination"],
    ]);
    assert.equal(sworn.code, 0, sworn.stderr);
    await crash.reaches("running", "paused");
    await crash.source.moreBeats(5);
    await crash.source.process.kill();
    const listening = hosts.recover("destination", { args: ["--listen", "127.0.0.1:0"] });
    const address = String((await listening.line("listening"))?.["address"]);
    const { code, stderr } = await crash.recover("source", ["--to", address]);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /so: the VM was at the source, whose QEMU has ended since/);
    assert.equal((await listening.ended).code, 0);
    await crash.reaches("gone", "gone");
    assert.equal(crash.destination.hasRun, false);
    assert.deepEqual(hosts.journal("source", crash.id).slice(-3), [
      "released",
      "aborted",
      "aborted",
    ]);
    assert.equal(hosts.journal("destination", crash.id).at(-1), "discarded");
  },
);
