import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { KvmError } from "../../kvm/errors.ts";
import { QemuDestination } from "../../kvm/qemu_destination.ts";
import { QemuSource, type SourceEnd } from "../../kvm/qemu_source.ts";
import { readMigration } from "../../kvm/qemu_vm.ts";
import { QmpError } from "../../kvm/qmp_error.ts";
import type { LandingMode } from "../../kvm/landing.ts";
import type { DestinationVm, SourceVm, VmEnd } from "../../migration/ports.ts";
import { Pump } from "../support/pump.ts";
import { noQemu, TestQemu, writingBootSector } from "../support/test_qemu.ts";

const memoryBytes = 32 << 20;

/** A test with a directory of its own, for sockets, locks and files. */
function qemuTest(name: string, fn: (directory: string) => Promise<void>): void {
  Deno.test({
    name: noQemu === null ? name : `${name} (${noQemu})`,
    ignore: noQemu !== null,
    permissions: "inherit",
    async fn() {
      const directory = await Deno.makeTempDir({ prefix: "vm-" });
      try {
        await fn(directory);
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
    },
  });
}

/** Starts a QEMU whose guest writes to memory for ever. */
async function startWriter(directory: string): Promise<TestQemu> {
  await Deno.writeFile(`${directory}/boot.img`, writingBootSector());
  const qemu = await TestQemu.start({ directory, name: "source", args: writerArgs(directory) });
  await qemu.until(async () => {
    const path = `${directory}/look`;
    return (await qemu.memory({ path, bytes: 0x21000 }))[0x20000] !== 0;
  });
  return qemu;
}

function writerArgs(directory: string): string[] {
  // Read-only, so that two QEMUs can have it.
  const drive = `file=${directory}/boot.img,format=raw,if=floppy,readonly=on`;
  return ["-machine", "pc", "-name", "writer", "-drive", drive];
}

function startWaiting(directory: string, args: readonly string[]): Promise<TestQemu> {
  return TestQemu.start({ directory, name: "destination", args: [...args, "-incoming", "defer"] });
}

/** Parameters and capabilities, to be compared. */
async function settingsOf(qemu: TestQemu): Promise<unknown> {
  return [
    await qemu.qmp.execute("query-migrate-parameters"),
    await qemu.qmp.execute("query-migrate-capabilities"),
  ];
}

/** What lies in a runtime directory. */
function filesIn(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name);
}

function runtimeIn(directory: string): string {
  const path = `${directory}/run`;
  Deno.mkdirSync(path);
  return path;
}

for (const land of ["stream", "process", "mapped"] as const satisfies LandingMode[]) {
  qemuTest(
    `QemuSource and QemuDestination move a running VM when pages land by ${land}`,
    async (directory) => {
      const memory = land === "mapped"
        ? [
          "-object",
          "memory-backend-memfd,id=m0,size=32M,share=on",
          "-machine",
          "memory-backend=m0",
        ]
        : ["-object", "memory-backend-ram,id=m0,size=32M", "-machine", "memory-backend=m0"];
      await Deno.writeFile(`${directory}/boot.img`, writingBootSector());
      const args = [...writerArgs(directory), ...memory];
      await using from = await TestQemu.start({ directory, name: "source", args });
      await from.until(async () =>
        (await from.memory({ path: `${directory}/look`, bytes: 0x21000 }))[0x20000] !== 0
      );
      await using to = await startWaiting(directory, args);
      const runtimeDirectory = runtimeIn(directory);
      const before = await settingsOf(to);

      {
        await using source: SourceVm & AsyncDisposable = await QemuSource.attach(from.qmpPath, {
          runtimeDirectory,
        });
        await using destination: DestinationVm & AsyncDisposable = await QemuDestination.attach(
          to.qmpPath,
          { runtimeDirectory, land },
        );
        const ends: VmEnd[] = [];
        source.onEnd = (end) => ends.push(end);
        destination.onEnd = (end) => ends.push(end);
        assert.equal(source.before, "running");
        assert.equal(source.facts.name, "writer");
        assert.equal(source.facts.memoryBytes, memoryBytes);
        assert.deepEqual(source.facts.blocks, destination.facts.blocks);
        assert.deepEqual(await destination.probe(), { landing: land, notes: [] });

        const sink = await destination.open();
        const pump = new Pump(await source.start({ downtimeLimitMs: 200 }), sink);
        await pump.run();
        assert.ok(pump.pageCount > 0 && pump.zeroCount > 0);
        const stoppedAtMs = source.stoppedAtMs;
        assert.ok(stoppedAtMs !== null);
        await sink.load(pump.stateBytes);
        sink.close();
        assert.equal(await destination.status(), "paused");

        assert.equal(await source.release(), "stopped");
        assert.equal(await from.runState(), "postmigrate");
        const counters = await source.counters();
        assert.ok(counters.dirtySyncCount > 0 && counters.normal > 0 && counters.duplicate > 0);
        const sent = await from.memory({ path: `${directory}/sent`, bytes: memoryBytes });
        const arrived = await to.memory({ path: `${directory}/arrived`, bytes: memoryBytes });
        assert.equal(
          Buffer.compare(arrived, sent),
          0,
          "the memory that arrived is the memory that left",
        );

        const ranAtMs = await destination.run();
        assert.ok(ranAtMs > stoppedAtMs);
        assert.equal(await destination.status(), "running");
        await destination.announce();
        await to.until(async () => {
          const now = await to.memory({ path: `${directory}/now`, bytes: memoryBytes });
          return now[0x20000] !== arrived[0x20000];
        });
        await source.quit();
        assert.equal(source.cpuSeconds(), null);
        assert.ok((destination.cpuSeconds() ?? 0) > 0);
        await source.restore();
        await destination.restore();
        assert.deepEqual(ends, []);
      }
      assert.deepEqual(await settingsOf(to), before);
      assert.deepEqual(filesIn(runtimeDirectory), []);
    },
  );
}

for (const stage of ["the live phase", "the last round"]) {
  qemuTest(`QemuSource.cancel() brings the VM back when it is in ${stage}`, async (directory) => {
    await using qemu = await startWriter(directory);
    const runtimeDirectory = runtimeIn(directory);
    const before = await settingsOf(qemu);
    {
      await using source = await QemuSource.attach(qemu.qmpPath, { runtimeDirectory });
      const settings = stage === "the live phase" ? { maxBandwidth: 65_536 } : {};
      const pages = await source.start({ ...settings, autoConverge: true, downtimeLimitMs: 100 });
      assert.equal(filesIn(runtimeDirectory).filter((name) => !name.endsWith(".lock")).length, 0);
      const pump = new Pump(pages, null);
      await pump.run(() => pump.pageCount > 5 && (stage === "the live phase" || pump.hasStopped));
      assert.equal(pump.hasStopped, stage === "the last round");
      if (!pump.hasStopped) {
        await source.tune({ downtimeLimitMs: 50, autoConverge: false });
        assert.ok((await source.progress())?.remainingBytes ?? 0 > 0);
      }
      assert.equal(await source.cancel(), "running");
      await assert.rejects(pages.next(pump));
      assert.equal(await qemu.runState(), "running");
      await source.restore();
      assert.deepEqual(await settingsOf(qemu), before);
    }
    assert.deepEqual(filesIn(runtimeDirectory), []);
  });
}

qemuTest(
  "QemuSource leaves the VM as it was when it is disposed in the last round",
  async (directory) => {
    await using qemu = await startWriter(directory);
    const runtimeDirectory = runtimeIn(directory);
    const before = await settingsOf(qemu);
    {
      await using source = await QemuSource.attach(qemu.qmpPath, { runtimeDirectory });
      const pump = new Pump(await source.start({}), null);
      await pump.run();
      assert.equal(await qemu.runState(), "finish-migrate");
    }
    assert.equal(await qemu.runState(), "running");
    assert.deepEqual(await settingsOf(qemu), before);
    assert.deepEqual(filesIn(runtimeDirectory), []);
  },
);

qemuTest("QemuSource.resume() runs the VM again when it was released", async (directory) => {
  await using qemu = await startWriter(directory);
  await using source = await QemuSource.attach(qemu.qmpPath, {
    runtimeDirectory: runtimeIn(directory),
  });
  await new Pump(await source.start({}), null).run();
  assert.equal(await source.release(), "stopped");
  assert.equal(await source.cancel(), "postmigrate");
  await source.resume();
  assert.equal(await qemu.runState(), "running");
});

qemuTest(
  "QemuSource.release() returns resumed when the VM has gone back before",
  async (directory) => {
    await using qemu = await startWriter(directory);
    await using source = await QemuSource.attach(qemu.qmpPath, {
      runtimeDirectory: runtimeIn(directory),
    });
    const ended = Promise.withResolvers<VmEnd>();
    source.onEnd = ended.resolve;
    const pages = await source.start({});
    await new Pump(pages, null).run();
    await qemu.qmp.execute("migrate_cancel");
    assert.notEqual((await ended.promise).kind, "gone");
    await qemu.until(async () => await qemu.runState() === "running");
    assert.equal(await source.release(), "resumed");
  },
);

qemuTest(
  "QemuSource.onEnd says gone when a QEMU is killed that was released",
  async (directory) => {
    await using qemu = await startWriter(directory);
    const runtimeDirectory = runtimeIn(directory);
    await using source = await QemuSource.attach(qemu.qmpPath, { runtimeDirectory });
    const end = Promise.withResolvers<SourceEnd>();
    source.onEnd = end.resolve;
    await new Pump(await source.start({}), null).run();
    assert.equal(await source.release(), "stopped");
    Deno.kill(qemu.pid, "SIGKILL");
    assert.deepEqual(await end.promise, { kind: "gone" });
    assert.equal(await source.status(), "gone");
  },
);

qemuTest("QemuSource.onEnd says gone when QEMU is killed, a zombie included", async (directory) => {
  await using qemu = await startWriter(directory);
  await using source = await QemuSource.attach(qemu.qmpPath, {
    runtimeDirectory: runtimeIn(directory),
  });
  const ended = Promise.withResolvers<VmEnd>();
  source.onEnd = ended.resolve;
  await new Pump(await source.start({}), null).run();
  Deno.kill(qemu.pid, "SIGKILL");
  assert.deepEqual(await ended.promise, { kind: "gone" });
  assert.equal(await source.release(), "gone");
  assert.equal(await source.cancel(), "gone");
  assert.equal(await source.progress(), null);
  await source.restore();
});

for (const ran of [true, false]) {
  const state = ran ? "paused" : "prelaunch";
  qemuTest(
    `QemuSource and QemuDestination keep a VM ${state} when it did not run`,
    async (directory) => {
      const args = ["-machine", "q35", "-S"];
      await using from = await TestQemu.start({ directory, name: "source", args });
      if (ran) {
        await from.qmp.execute("cont");
        await from.qmp.execute("stop");
      }
      await using to = await startWaiting(directory, ["-machine", "q35"]);
      const runtimeDirectory = runtimeIn(directory);
      await using source = await QemuSource.attach(from.qmpPath, { runtimeDirectory });
      await using destination = await QemuDestination.attach(to.qmpPath, { runtimeDirectory });
      assert.equal(source.before, state);
      const sink = await destination.open();
      const pump = new Pump(await source.start({}), sink);
      await pump.run();
      await sink.load(pump.stateBytes);
      assert.equal(await destination.status(), state);
      assert.equal(source.stoppedAtMs, null);
      assert.equal(await source.release(), "stopped");
      assert.equal(await destination.status(), state);
      await destination.quit();
      assert.equal(await destination.status(), "gone");
    },
  );
}

qemuTest(
  "QemuSource.cancel() returns postmigrate when a VM that did not run was in its last round",
  async (directory) => {
    const args = ["-machine", "q35", "-S"];
    await using qemu = await TestQemu.start({ directory, name: "source", args });
    await using source = await QemuSource.attach(qemu.qmpPath, {
      runtimeDirectory: runtimeIn(directory),
    });
    await new Pump(await source.start({}), null).run();
    // QEMU 7.2 leaves it there; later ones put it back.
    assert.ok(["postmigrate", "prelaunch"].includes(await source.cancel()));
  },
);

qemuTest("QemuSink.load() rejects with failed when the state is damaged", async (directory) => {
  await using from = await startWriter(directory);
  await using to = await startWaiting(directory, writerArgs(directory));
  const runtimeDirectory = runtimeIn(directory);
  await using source = await QemuSource.attach(from.qmpPath, { runtimeDirectory });
  await using destination = await QemuDestination.attach(to.qmpPath, { runtimeDirectory });
  const sink = await destination.open();
  const pump = new Pump(await source.start({}), sink);
  await pump.run();
  // Another name for the first device: no such section here.
  const state = pump.stateBytes;
  state[6] = (state[6] ?? 0) ^ 1;
  await assert.rejects(sink.load(state), (error) => isKvmError(error, "failed"));
  assert.equal(await source.cancel(), "running");
});

qemuTest("QemuDestination.open() can be undone when no byte was written", async (directory) => {
  await using qemu = await startWaiting(directory, ["-machine", "q35"]);
  const runtimeDirectory = runtimeIn(directory);
  const before = await settingsOf(qemu);
  {
    await using destination = await QemuDestination.attach(qemu.qmpPath, { runtimeDirectory });
    using _sink = await destination.open();
  }
  assert.deepEqual(await settingsOf(qemu), before);
  assert.equal(await qemu.runState(), "inmigrate");
  assert.deepEqual(filesIn(runtimeDirectory), []);
});

qemuTest("attach() refuses when the VM cannot be migrated", async (directory) => {
  await using running = await TestQemu.start({
    directory,
    name: "source",
    args: ["-machine", "q35"],
  });
  await using waiting = await startWaiting(directory, ["-machine", "q35"]);
  const runtimeDirectory = runtimeIn(directory);
  const options = { runtimeDirectory };
  await assert.rejects(QemuSource.attach(waiting.qmpPath, options), (e) => isKvmError(e, "state"));
  await assert.rejects(
    QemuDestination.attach(running.qmpPath, options),
    (e) => isKvmError(e, "state"),
  );
  await running.qmp.execute("migrate-set-capabilities", {
    capabilities: [{ capability: "xbzrle", state: true }],
  });
  await assert.rejects(
    QemuSource.attach(running.qmpPath, options),
    (error) => isKvmError(error, "capability") && /xbzrle/.test(error.message),
  );
  assert.deepEqual(filesIn(runtimeDirectory), []);
});

qemuTest("QemuSource.progress() returns null while QEMU hangs", async (directory) => {
  await using qemu = await startWriter(directory);
  await using source = await QemuSource.attach(qemu.qmpPath, {
    runtimeDirectory: runtimeIn(directory),
  });
  await source.start({ maxBandwidth: 65_536 });
  Deno.kill(qemu.pid, "SIGSTOP");
  try {
    assert.equal(await source.progress(), null);
  } finally {
    Deno.kill(qemu.pid, "SIGCONT");
  }
  await qemu.until(async () => await source.progress() !== null);
  assert.equal(await source.cancel(), "running");
});

qemuTest(
  "QemuSource.start() puts everything back when QEMU refuses to migrate",
  async (directory) => {
    // QEMU has no migration for this device.
    const args = ["-machine", "q35", "-device", "nvme,serial=1"];
    await using qemu = await TestQemu.start({ directory, name: "source", args });
    const runtimeDirectory = runtimeIn(directory);
    const before = await settingsOf(qemu);
    {
      await using source = await QemuSource.attach(qemu.qmpPath, { runtimeDirectory });
      await assert.rejects(
        source.start({}),
        (error) => isKvmError(error, "state") && /nvme/.test(error.message),
      );
      assert.deepEqual(await settingsOf(qemu), before);
    }
    assert.equal(await qemu.runState(), "running");
    assert.deepEqual(filesIn(runtimeDirectory), []);
  },
);

qemuTest(
  "QemuSource.start() leaves a migration alone when somebody else has begun it",
  async (directory) => {
    const args = ["-machine", "q35", "-S"];
    await using qemu = await TestQemu.start({ directory, name: "source", args });
    const runtimeDirectory = runtimeIn(directory);
    await using source = await QemuSource.attach(qemu.qmpPath, { runtimeDirectory });
    await qemu.qmp.execute("migrate-set-parameters", { "max-bandwidth": 4096 });
    await qemu.qmp.execute("migrate", { uri: "exec:cat > /dev/null" });
    const active = async () => (await readMigration(qemu.qmp)).status === "active";
    await qemu.until(active);
    const before = await settingsOf(qemu);
    await assert.rejects(source.start({}), QmpError);
    assert.equal(await active(), true);
    assert.deepEqual(await settingsOf(qemu), before);
    await assert.rejects(
      QemuDestination.attach(qemu.qmpPath, { runtimeDirectory }),
      (error) => error instanceof QmpError && error.code === "busy",
    );
  },
);

function isKvmError(error: unknown, code: string): error is KvmError {
  return error instanceof KvmError && error.code === code;
}
