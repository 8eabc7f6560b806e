/**
 * Somebody else cancels the migration in the source's QEMU, the guest runs on, and then QEMU is killed: what the
 * destination holds is stale.
 */

import assert from "node:assert/strict";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { qemuTest } from "../support/qemu.ts";
import { WatchedVm } from "../support/watched_vm.ts";

for (const state of ["loading", "loaded"] as const) {
  qemuTest(
    `A VM that ran again at the source, and was killed before send has looked, runs nowhere: the destination at ${state}`,
    async () => {
      await using hosts = await MigrationHosts.make();
      const vm = { guest: { bootSector: await hosts.bootSector() }, memoryMiB: 32, name: "web" };
      await using source = await WatchedVm.start(vm);
      await source.moreBeats(3);
      await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
      const { agent: receive, port } = await hosts.receive(destination, { hold: [state] });
      const send = hosts.send(source, port, { args: ["--max-stop", "60s"] });
      assert.ok(await receive.line("held", state) !== null, "it was not held");

      // `send` learns all of it at once.
      send.signal("SIGSTOP");
      const ran = Promise.withResolvers<void>();
      source.qmp.on(({ name }) => name === "RESUME" && ran.resolve());
      const cancelled = source.qmp.execute("migrate_cancel").catch(() => {});
      await ran.promise;
      await source.moreBeats(3);
      await cancelled;
      Deno.kill(source.process.pid, "SIGKILL");
      await source.process.exited;
      send.signal("SIGCONT");
      await receive.go();

      const [sent, received] = await Promise.all([send.ended, receive.ended]);
      assert.equal(sent.code, 1, sent.stderr);
      assert.equal(received.code, 1, received.stderr);
      assert.equal(sent.report?.outcome, "aborted");
      assert.equal(sent.report?.sourceState, "gone");
      const id = hosts.lastId("source");
      assert.equal(hosts.journal("source", id).at(-1), "aborted");
      assert.equal(hosts.journal("destination", id).at(-1), "discarded");
      assert.equal(destination.hasRun, false);
      assert.equal(await destination.status(), "gone");
    },
  );
}
