import assert from "node:assert/strict";
import { readMigration } from "../../kvm/qemu_vm.ts";
import { QemuSource } from "../../kvm/qemu_source.ts";
import { noQemu, TestQemu } from "../support/test_qemu.ts";

Deno.test({
  name:
    "QemuSource.cancel() leaves alone a migration of somebody else, that was there before start()",
  ignore: noQemu !== null,
  async fn() {
    const directory = await Deno.makeTempDir({ prefix: "vm-" });
    try {
      await using qemu = await TestQemu.start({ directory, name: "source" });
      await qemu.qmp.execute("migrate-set-parameters", { "max-bandwidth": 1024 });
      using sink = Deno.listen({ transport: "unix", path: `${directory}/sink` });
      const accepted = sink.accept();
      await using source = await QemuSource.attach(qemu.qmpPath, { runtimeDirectory: directory });
      await qemu.qmp.execute("migrate", { uri: `unix:${directory}/sink` });
      using _conn = await accepted;
      await qemu.until(async () => (await readMigration(qemu.qmp)).status === "active");

      await assert.rejects(source.start({}));
      assert.equal(await source.cancel(), "running");
      assert.equal((await readMigration(qemu.qmp)).status, "active");
      await qemu.qmp.execute("migrate_cancel");
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  },
});
