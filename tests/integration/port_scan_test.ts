/**
 * `receive` on a port where others come and go.
 */

import assert from "node:assert/strict";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { qemuTest } from "../support/qemu.ts";
import { dialAndReset } from "../support/resetting_dial.ts";
import { WatchedVm } from "../support/watched_vm.ts";

qemuTest("receive takes a VM after connections that were reset before it took them", async () => {
  await using hosts = await MigrationHosts.make();
  const vm = { guest: { bootSector: await hosts.bootSector() }, memoryMiB: 32, name: "web" };
  await using source = await WatchedVm.start(vm);
  await source.moreBeats(3);
  await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
  const { agent: receive, port } = await hosts.receive(destination);
  // All of them are there, and reset, when it looks.
  receive.signal("SIGSTOP");
  dialAndReset(port, 20);
  receive.signal("SIGCONT");
  const sent = await hosts.send(source, port).ended;
  assert.equal(sent.code, 0, sent.stderr);
  const received = await receive.ended;
  assert.equal(received.code, 0, received.stderr);
  await destination.moreBeats(3);
  // The strangers are told of in few words.
  const notes = receive.lines.filter(({ type }) => type === "note");
  assert.ok(notes.length < 10, JSON.stringify(notes));
  await hosts.checkClean();
});
