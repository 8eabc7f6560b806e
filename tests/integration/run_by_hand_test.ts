/**
 * Somebody uses QMP between LOADED and RUNNING: runs one of the two copies, moves it on, or resets it.
 */

import assert from "node:assert/strict";
import { Wire } from "../../scripts/faults/wire.ts";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { until } from "../support/patience.ts";
import { qemuTest } from "../support/qemu.ts";
import { WatchedVm } from "../support/watched_vm.ts";

/** Three QEMUs, the first of which runs a VM. */
async function pairOf(hosts: MigrationHosts) {
  const vm = { guest: { bootSector: await hosts.bootSector() }, memoryMiB: 32, name: "web" };
  await using vms = new AsyncDisposableStack();
  const source = vms.use(await WatchedVm.start(vm));
  await source.moreBeats(3);
  const destination = vms.use(await WatchedVm.start({ ...vm, incoming: "defer" }));
  const third = vms.use(await WatchedVm.start({ ...vm, incoming: "defer" }));
  const kept = vms.move();
  return { source, destination, third, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

qemuTest(
  "A VM that somebody runs at the source before RELEASE could arrive goes on there, and only there",
  async () => {
    await using hosts = await MigrationHosts.make();
    await using pair = await pairOf(hosts);
    const { source, destination } = pair;
    const { agent: receive, port } = await hosts.receive(destination);
    await using wire = new Wire(port);
    const send = hosts.send(source, wire.port, { hold: ["released"], args: ["--max-stop", "60s"] });
    assert.ok(await send.line("held", "released") !== null, "it was not held");
    wire.down(3_000);
    await send.go();
    await source.qmp.execute("cont");
    const id = hosts.lastId("source");
    await until(
      "the journal says so",
      () => Promise.resolve(hosts.journal("source", id).includes("ranHere")),
    );
    const [sent, received] = await Promise.all([send.ended, receive.ended]);
    assert.equal(sent.code, 1, sent.stderr);
    assert.match(sent.stderr, /somebody has run it at the source/);
    assert.equal(received.code, 1, received.stderr);
    assert.equal(await source.status(), "running");
    await source.moreBeats(2);
    assert.equal(await destination.status(), "gone");
    assert.equal(destination.hasRun, false);
    assert.deepEqual(hosts.journal("source", id).slice(2), ["released", "ranHere", "aborted"]);
  },
);

qemuTest("A paused VM that somebody resets at the destination stays at the source", async () => {
  await using hosts = await MigrationHosts.make();
  await using pair = await pairOf(hosts);
  const { source, destination } = pair;
  await source.qmp.execute("stop");
  const { agent: receive, port } = await hosts.receive(destination);
  const send = hosts.send(source, port, { hold: ["releasing"], args: ["--max-stop", "60s"] });
  assert.ok(await send.line("held", "releasing") !== null, "it was not held");
  // These guests are started with -no-reboot.
  await destination.qmp.execute("set-action", { reboot: "reset" });
  await destination.qmp.execute("system_reset");
  await until("it is reset", async () => await destination.status() === "prelaunch");
  await send.go();
  const [sent, received] = await Promise.all([send.ended, receive.ended]);
  assert.equal(sent.code, 1, sent.stderr);
  assert.match(sent.stderr, /somebody has reset it/);
  assert.equal(received.code, 1, received.stderr);
  assert.equal(await source.status(), "postmigrate");
  await source.qmp.execute("cont");
  await source.moreBeats(2);
});

qemuTest(
  "A paused VM that QEMU left in postmigrate is not said to have gone elsewhere",
  async () => {
    await using hosts = await MigrationHosts.make();
    await using pair = await pairOf(hosts);
    const { source, destination } = pair;
    await source.qmp.execute("stop");
    const { port } = await hosts.receive(destination);
    const send = hosts.send(source, port, { hold: ["finishing"] });
    assert.ok(await send.line("held", "finishing") !== null, "it was not held");
    send.signal("SIGINT");
    assert.equal((await send.ended).code, 1);
    // Newer versions put it back to paused.
    const left = await source.status();
    const again = await hosts.send(source, 1, {}).ended;
    assert.notEqual(again.code, 0);
    if (left === "postmigrate") {
      assert.match(
        again.stderr,
        /a migration that was not carried out\n.*`cont` here, then `stop`/,
      );
    } else assert.doesNotMatch(again.stderr, /postmigrate/);
  },
);

/** A plain migration by QMP, as its operator may do at any time. */
async function moveByHand(from: WatchedVm, to: WatchedVm): Promise<void> {
  const uri = `unix:${to.process.directory}/moved.sock`;
  await to.qmp.execute("migrate-incoming", { uri });
  await from.qmp.execute("migrate", { uri });
  await until("it was moved on", async () => await from.status() === "postmigrate");
  await until("it runs there", async () => await to.status() === "running");
}

for (const side of ["source", "destination"] as const) {
  qemuTest(
    `A VM that somebody runs at the ${side}, and moves on from there, runs nowhere else`,
    async () => {
      await using hosts = await MigrationHosts.make();
      await using pair = await pairOf(hosts);
      const { source, destination, third } = pair;
      const { agent: receive, port } = await hosts.receive(destination);
      await using wire = new Wire(port);
      const args = ["--max-stop", "60s", "--reconnect", side === "source" ? "60s" : "3s"];
      const send = hosts.send(source, wire.port, { hold: ["released"], args });
      assert.ok(await send.line("held", "released") !== null, "it was not held");
      const at = pair[side];
      if (side === "source") {
        wire.down();
        await send.go();
      }
      await at.qmp.execute("cont");
      await moveByHand(at, third);
      if (side === "source") wire.up();
      else await send.go();
      const [sent, received] = await Promise.all([send.ended, receive.ended]);
      assert.deepEqual(
        [sent.code, received.code],
        side === "source" ? [1, 1] : [5, 5],
        sent.stderr,
      );
      assert.equal(await at.status(), "postmigrate");
      await third.moreBeats(2);
      assert.notEqual(await source.status(), "running");
      assert.notEqual(await destination.status(), "running");
    },
  );
}

qemuTest("A `cont` to a QEMU that waits for its VM does not run it beside the source", async () => {
  await using hosts = await MigrationHosts.make();
  await using pair = await pairOf(hosts);
  const { source, destination } = pair;
  const { agent: receive, port } = await hosts.receive(destination);
  const send = hosts.send(source, port, { hold: ["copying"], args: ["--max-stop", "60s"] });
  assert.ok(await send.line("held", "copying") !== null, "it was not held");
  await destination.qmp.execute("cont");
  assert.equal(await destination.status(), "inmigrate");
  await send.go();
  const [sent, received] = await Promise.all([send.ended, receive.ended]);
  assert.deepEqual([sent.code, received.code], [0, 0], sent.stderr);
  const id = hosts.lastId("destination");
  assert.deepEqual(hosts.journal("destination", id), ["open", "loaded", "taking", "running"]);
  await destination.moreBeats(2);
});
