/**
 * Ends of a QEMU that are not what they seem: whether it may have run before it was gone.
 */

import assert from "node:assert/strict";
import { join } from "node:path";
import { QemuDestination } from "../../kvm/qemu_destination.ts";
import { QemuSource, type SourceEnd } from "../../kvm/qemu_source.ts";
import type { FakeStory } from "../support/fake_qemu.ts";
import "../support/preload_libraries.ts";
import { TempDir } from "../support/temp_dir.ts";

/** A process that is a QEMU as far as its monitor goes. */
class FakeQemu implements AsyncDisposable {
  readonly qmpPath: string;
  readonly #child: Deno.ChildProcess;

  private constructor(child: Deno.ChildProcess, qmpPath: string) {
    this.#child = child;
    this.qmpPath = qmpPath;
  }

  static async start(story: FakeStory, directory: string): Promise<FakeQemu> {
    const qmpPath = join(directory, "qmp");
    const script = join(import.meta.dirname!, "../support/fake_qemu.ts");
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--no-prompt", script, qmpPath, story],
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    const { value } = await reader.read();
    assert.equal(new TextDecoder().decode(value), "ready\n");
    reader.releaseLock();
    return new FakeQemu(child, qmpPath);
  }

  /** Has a destination go through its story. */
  begin(): void {
    this.#child.kill("SIGUSR1");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#child.stdout.cancel();
    await this.#child.status;
  }
}

/** A source whose migration was begun, and why it ended, once it has. */
async function begun(
  story: FakeStory,
  use: (vm: QemuSource, ended: Promise<SourceEnd>) => Promise<void>,
) {
  await using directory = await TempDir.make();
  await using qemu = await FakeQemu.start(story, directory.path);
  await using vm = await QemuSource.attach(qemu.qmpPath, { runtimeDirectory: directory.path });
  const { promise, resolve } = Promise.withResolvers<SourceEnd>();
  vm.onEnd = resolve;
  await vm.start({});
  await use(vm, promise);
}

Deno.test("QemuSource.onEnd is not told `gone` of a QEMU that said something last that nobody understood", async () => {
  await begun("source, garbled", async (vm, ended) => {
    const { kind } = await ended;
    assert.equal(kind, "failed");
    await assert.rejects(vm.cancel(), { code: "closed", message: /was not understood/ });
  });
});

Deno.test("QemuSource.onEnd is not told `gone` of a QEMU that left the migration before it stopped again and died", async () => {
  await begun("source, cancelled", async (vm, ended) => {
    const { kind } = await ended;
    assert.notEqual(kind, "gone");
    assert.equal(await vm.cancel(), "goneAfterResume");
  });
});

for (const story of ["source, moved on", "source, paused"] as const) {
  Deno.test(`QemuSource.release() says \`resumed\` of one that ran since SHUT(0), however it stands (${story})`, async () => {
    await begun(story, async (vm) => {
      while (vm.stoppedAtMs === null) await new Promise((resolve) => setTimeout(resolve, 5));
      assert.equal(await vm.release(), "resumed");
    });
  });
}

Deno.test("QemuSource.release() cannot tell what a VM was that was reset", async () => {
  await begun("source, reset", async (vm) => {
    while (vm.stoppedAtMs === null) await new Promise((resolve) => setTimeout(resolve, 5));
    await assert.rejects(vm.release(), { code: "state", message: /it was reset/ });
  });
});

Deno.test("QemuDestination.run() does not say that a VM runs whose QEMU is gone, and onEnd tells of both", async () => {
  await using directory = await TempDir.make();
  await using qemu = await FakeQemu.start("destination, ran", directory.path);
  await using vm = await QemuDestination.attach(qemu.qmpPath, { runtimeDirectory: directory.path });
  const kinds: string[] = [];
  const gone = new Promise<void>((resolve) => {
    vm.onEnd = ({ kind }) => {
      kinds.push(kind);
      if (kind === "gone") resolve();
    };
  });
  qemu.begin();
  await gone;
  assert.deepEqual(kinds, ["resumed", "gone"]);
  assert.ok(vm.hasRun);
  await assert.rejects(vm.run(), { code: "failed" });
});

Deno.test("QemuDestination.run() does not say that a VM runs whose `cont` is refused, though it ran earlier", async () => {
  await using directory = await TempDir.make();
  await using qemu = await FakeQemu.start("destination, ran and stopped", directory.path);
  await using vm = await QemuDestination.attach(qemu.qmpPath, { runtimeDirectory: directory.path });
  const ended = new Promise<void>((resolve) => vm.onEnd = () => resolve());
  qemu.begin();
  await ended;
  assert.ok(vm.hasRun);
  await assert.rejects(vm.run(), { code: "failed" });
});
