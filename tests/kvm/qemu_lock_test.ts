import assert from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { libc } from "../../kvm/libc.ts";
import { QemuLock } from "../../kvm/qemu_lock.ts";

// Stays open for the life of the process: opened here, it is no leak of the first test.
libc();

const process = { pid: 4711, startTime: "815", bootId: "b" };

function lockTest(name: string, fn: (directory: string) => void | Promise<void>): void {
  Deno.test({
    name,
    permissions: "inherit",
    async fn() {
      const directory = await Deno.makeTempDir({ prefix: "lock-" });
      try {
        await fn(directory);
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
    },
  });
}

function isLockedBy(pid: number): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof KvmError);
    assert.equal(error.code, "locked");
    assert.match(error.message, new RegExp(`process ${pid} does`));
    return true;
  };
}

lockTest("QemuLock.take() refuses when this process holds it already", (directory) => {
  {
    using lock = QemuLock.take(process, { directory });
    assert.equal(lock.path, `${directory}/4711-815.lock`);
    assert.equal((Deno.statSync(lock.path).mode ?? 0) & 0o777, 0o600);
    assert.throws(() => QemuLock.take(process, { directory }), isLockedBy(Deno.pid));
    using _other = QemuLock.take({ ...process, startTime: "816" }, { directory });
  }
  assert.deepEqual([...Deno.readDirSync(directory)], []);
  using _again = QemuLock.take(process, { directory });
});

lockTest(
  "QemuLock.take() refuses while another process holds it, and not after its death",
  async (directory) => {
    const program = `
    import { QemuLock } from ${JSON.stringify(import.meta.resolve("../../kvm/qemu_lock.ts"))};
    QemuLock.take(${JSON.stringify(process)}, { directory: ${JSON.stringify(directory)} });
    console.log("locked");
    setTimeout(() => {}, 600_000);
  `;
    const holder = new Deno.Command(Deno.execPath(), {
      args: ["eval", program],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const reader = holder.stdout.getReader();
    const { value } = await reader.read();
    assert.equal(new TextDecoder().decode(value).trim(), "locked");
    assert.throws(() => QemuLock.take(process, { directory }), isLockedBy(holder.pid));
    holder.kill("SIGKILL");
    await holder.status;
    await reader.cancel();
    // What it left is a file that nobody holds.
    assert.equal([...Deno.readDirSync(directory)].length, 1);
    using lock = QemuLock.take(process, { directory });
    assert.equal(Deno.readTextFileSync(lock.path).trim(), `${Deno.pid}`);
  },
);

lockTest("QemuLock.take() does not follow a link when one lies in its place", (directory) => {
  Deno.symlinkSync(`${directory}/elsewhere`, `${directory}/4711-815.lock`);
  assert.throws(() => QemuLock.take(process, { directory }), KvmError);
  assert.equal([...Deno.readDirSync(directory)].length, 1);
});
