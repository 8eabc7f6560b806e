/**
 * Beside a migration nothing changes: other QMP clients are served, and what failed leaves nothing behind.
 */

import assert from "node:assert/strict";
import type { QemuOptions } from "../../cli/guest/qemu_arguments.ts";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { qemuTest } from "../support/qemu.ts";
import { WatchedVm } from "../support/watched_vm.ts";

async function smallVm(hosts: MigrationHosts): Promise<QemuOptions> {
  return { guest: { bootSector: await hosts.bootSector() }, memoryMiB: 64, name: "small" };
}

qemuTest("other QMP clients of both QEMUs get their answers and events throughout", async () => {
  await using hosts = await MigrationHosts.make();
  const vm = await smallVm(hosts);
  await using source = await WatchedVm.start(vm);
  await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
  await source.moreBeats(5);
  for (const side of [source, destination]) side.startAsking();
  const { agent, port } = await hosts.receive(destination);
  const sent = await hosts.send(source, port).ended;
  const received = await agent.ended;
  assert.deepEqual([sent.code, received.code], [0, 0], sent.stderr + received.stderr);
  await destination.moreBeats(5);
  // Each question was answered, as far as there was somebody to answer.
  const answers = [await source.stopAsking(), await destination.stopAsking()];
  assert.ok(answers.every((count) => count > 0), answers.join());
  assert.equal(await source.status(), "gone");
  const names = source.events.map(({ name }) => name);
  assert.ok(names.indexOf("STOP") >= 0 && names.indexOf("SHUTDOWN") > names.indexOf("STOP"));
  assert.deepEqual(names.filter((name) => name === "STOP" || name === "RESUME"), ["STOP"]);
  assert.ok(destination.hasRun);
  // And it stays a QEMU like any other.
  await destination.qmp.execute("stop");
  assert.equal(await destination.status(), "paused");
  await destination.qmp.execute("cont");
  await destination.moreBeats(5);
  await hosts.checkClean();
});

/** Migrations that are refused: what differs, and what is said. */
const refusals: {
  name: string;
  code: number;
  says: RegExp;
  destination?: Partial<QemuOptions>;
  receive?: readonly string[];
  send?: readonly string[];
}[] = [
  {
    name: "the destination has another size",
    code: 3,
    says: /m0/,
    destination: { memoryMiB: 80 },
  },
  {
    name: "the destination is another machine",
    code: 3,
    says: /machine/,
    destination: { machine: "pc" },
  },
  {
    name: "the destination has another UUID",
    code: 3,
    says: /uuid/i,
    destination: { uuid: crypto.randomUUID() },
  },
  {
    name: "only one side gives a VM's identity",
    code: 3,
    says: /vm-id/,
    send: ["--vm-id", crypto.randomUUID()],
  },
  { name: "it is a dry run", code: 0, says: /^$/, send: ["--dry-run"] },
];

for (const refusal of refusals) {
  qemuTest(`both QEMUs are as before when ${refusal.name}`, async () => {
    await using hosts = await MigrationHosts.make();
    const vm = await smallVm(hosts);
    await using source = await WatchedVm.start(vm);
    await using destination = await WatchedVm.start({
      ...vm,
      ...refusal.destination,
      incoming: "defer",
    });
    await source.moreBeats(5);
    const vms = [source, destination];
    const before = await Promise.all(vms.map((it) => it.settings()));
    const descriptors = vms.map((it) => it.holdings().descriptors);
    const { agent, port } = await hosts.receive(destination);
    const { code, report } = await hosts.send(source, port, { args: refusal.send ?? [] }).ended;
    assert.equal(code, refusal.code);
    assert.match(report?.error?.message ?? "", refusal.says);
    // It listens on for one that fits.
    agent.signal("SIGINT");
    assert.equal((await agent.ended).code, 1);
    await source.moreBeats(5);
    assert.deepEqual(await Promise.all(vms.map((it) => it.status())), ["running", "inmigrate"]);
    assert.deepEqual(await Promise.all(vms.map((it) => it.settings())), before);
    assert.deepEqual(vms.map((it) => it.holdings().descriptors), descriptors);
    assert.deepEqual(source.events, []);
    await hosts.checkClean();
  });
}

qemuTest("send that reaches nobody fails with 1 and leaves the VM alone", async () => {
  await using hosts = await MigrationHosts.make();
  await using source = await WatchedVm.start(await smallVm(hosts));
  await source.moreBeats(5);
  const settings = await source.settings();
  const port = freePort();
  const sent = await hosts.send(source, port).ended;
  assert.equal(sent.code, 1);
  assert.match(sent.report?.error?.message ?? "", /^Cannot reach 127\.0\.0\.1:/);
  await source.moreBeats(5);
  assert.deepEqual(await source.settings(), settings);
  assert.deepEqual(source.events, []);
  await hosts.checkClean();
});

/** A port where nobody listens, as of now. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
