/**
 * What people get wrong, with real QEMUs: one line that says what, one that says what to do, the right exit code, and
 * every VM is as it was. The transcripts are in tests/transcripts/bad_input.
 *
 * @module
 */

import assert from "node:assert/strict";
import { AgentProcess } from "../../cli/demo/agent_process.ts";
import { generateIdentityFile } from "../../cli/state_directory.ts";
import { qemuTest } from "../support/qemu.ts";
import { runTranscript } from "../support/run_transcript.ts";
import { rootTest, SmallDisk } from "../support/small_disk.ts";
import { TestQemu } from "../support/test_qemu.ts";

const folder = new URL("../transcripts/bad_input/", import.meta.url);
const uuid = "6f1c0f4c-2f0e-4b0f-9b1d-2f0a9c3e5d77";
const otherUuid = "0d0e0f00-2f0e-4b0f-9b1d-2f0a9c3e5d77";
const migrationStatus = async (vm: TestQemu) =>
  (await vm.qmp.execute("query-migrate") as { status?: string }).status;

/** A directory, two identities, and whatever is started in it. */
class World implements AsyncDisposable {
  readonly directory: string;
  readonly words: Record<string, string> = {};
  readonly #stack = new AsyncDisposableStack();
  #vms: { vm: TestQemu; state: string }[] = [];

  private constructor(directory: string) {
    this.directory = directory;
    this.#stack.defer(() => Deno.remove(directory, { recursive: true }));
  }

  /** `state` is the state directory of the transcript's commands, `other` that of the other host. */
  static async make(): Promise<World> {
    const world = new World(await Deno.makeTempDir({ prefix: "sealift-bad-" }));
    for (const [name, word] of [["state", "KEY"], ["other", "OTHER_KEY"]] as const) {
      await Deno.mkdir(`${world.directory}/${name}`, { mode: 0o700 });
      world.words[word] = await generateIdentityFile(`${world.directory}/${name}/identity`);
    }
    // As root the kernel asks nobody: these two are what lets it.
    const drop = "-dac_override,-dac_read_search";
    world.words["UNPRIVILEGED"] = Deno.uid() === 0 ? `setpriv --bounding-set ${drop}` : "env";
    return world;
  }

  /** A QEMU; its free monitor is `$NAME`, a second one `$NAME_2`, the one that the test holds `$NAME_HELD`. */
  async vm(name: string, options: {
    state?: "running" | "inmigrate";
    machine?: string;
    memoryMebibytes?: number;
    uuid?: string;
    args?: readonly string[];
  } = {}): Promise<TestQemu> {
    const { state = "running", machine = "pc", args = [], memoryMebibytes = 16 } = options;
    const base = `${this.directory}/${name}`;
    const vm = this.#stack.use(
      await TestQemu.start({
        directory: this.directory,
        name,
        memoryMebibytes,
        args: [
          ...["-machine", machine, "-uuid", options.uuid ?? uuid, "-name", name],
          ...["-qmp", `unix:${base}.2.qmp,server=on,wait=off`],
          ...(state === "inmigrate" ? ["-incoming", "defer"] : []),
          ...args,
        ],
      }),
    );
    const word = name.toUpperCase();
    this.words[word] = vm.qmpPath;
    this.words[`${word}_2`] = `${base}.2.qmp`;
    this.words[`${word}_HELD`] = `${base}.test.qmp`;
    this.words[`${word}_PID`] = String(vm.pid);
    this.#vms.push({ vm, state });
    return vm;
  }

  /** A `receive` on the other host, that lets the transcript's commands in; it listens at `$TO`. */
  async receiver(vm: TestQemu): Promise<AgentProcess> {
    const agent = this.agent([
      ...["receive", "--qmp", vm.qmpPath, "--listen", "127.0.0.1:0", "--land", "stream"],
      ...["--allow", this.words["KEY"]!, "--state-dir", `${this.directory}/other`],
    ]);
    const listening = await agent.line("listening");
    if (listening === null) assert.fail((await agent.ended).stderr);
    this.words["TO"] = String(listening["address"]);
    return agent;
  }

  agent(args: readonly string[], hold: readonly string[] = []): AgentProcess {
    return this.#stack.use(new AgentProcess(args, { hold }));
  }

  /** A port that something else listens at, `$TAKEN`, and one that nobody listens at, `$FREE`. */
  ports(): void {
    const taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#stack.defer(() => taken.close());
    this.words["TAKEN"] = `127.0.0.1:${taken.addr.port}`;
    using free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.words["FREE"] = `127.0.0.1:${free.addr.port}`;
  }

  /** Runs the transcript; afterwards every VM is in the state that it was started in. */
  async run(name: string): Promise<void> {
    const text = await Deno.readTextFile(new URL(name, folder));
    await runTranscript(text, { name, directory: this.directory, words: this.words });
    await this.checkStates();
  }

  async checkStates(): Promise<void> {
    for (const { vm, state } of this.#vms) assert.equal(await vm.runState(), state);
  }

  /** From here on this VM is in another state. */
  expect(vm: TestQemu, state: string): void {
    this.#vms = this.#vms.map((it) => it.vm === vm ? { vm, state } : it);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

qemuTest("send says what is wrong and what to do, and the VM runs on", async () => {
  await using world = await World.make();
  world.ports();
  await world.vm("source");
  const waiting = await world.vm("waiting", { state: "inmigrate" });
  await world.vm("other", { state: "inmigrate" });
  await world.vm("size", { memoryMebibytes: 32 });
  await world.vm("machine", { machine: "q35" });
  await world.vm("uuid", { uuid: otherUuid });
  const xbzrle = await world.vm("xbzrle");
  await xbzrle.qmp.execute("migrate-set-capabilities", {
    capabilities: [{ capability: "xbzrle", state: true }],
  });
  const moved = await world.vm("moved");
  await moved.qmp.execute("migrate", { uri: "exec:cat > /dev/null" });
  await moved.until(async () => await moved.runState() === "postmigrate");
  world.expect(moved, "postmigrate");
  await Deno.writeFile(`${world.directory}/disk.raw`, new Uint8Array(512));
  await world.vm("drive", {
    args: ["-drive", `file=${world.directory}/disk.raw,format=raw,if=virtio`],
  });
  const receive = await world.receiver(waiting);
  await world.run("send.txt");
  // It refused all of them and goes on listening, and a line says so each time.
  const notes = receive.lines.filter(({ type }) => type === "note").map(({ text }) => String(text));
  assert.equal(notes.filter((text) => text.startsWith("Refused: ")).length, 4, notes.join("\n"));
  assert.ok(notes.includes("A connection did not prove an allowed key, and was dropped"));
  assert.equal(await migrationStatus(waiting), undefined);
  receive.signal("SIGTERM");
  assert.equal((await receive.ended).code, 1);
  await world.checkStates();
});

qemuTest("send and receive are refused when another agent works with the VM", async () => {
  await using world = await World.make();
  const source = await world.vm("source");
  const waiting = await world.vm("waiting", { state: "inmigrate" });
  const receive = await world.receiver(waiting);
  const send = world.agent([
    ...["send", "--qmp", source.qmpPath, "--to", world.words["TO"]!, "--peer"],
    ...[world.words["OTHER_KEY"]!, "--state-dir", `${world.directory}/state`],
  ], ["offering"]);
  assert.notEqual(await send.line("held"), null);
  world.words["SEND_PID"] = String(send.pid);
  world.words["RECEIVE_PID"] = String(receive.pid);
  await world.run("two_agents.txt");
  send.signal("SIGTERM");
  assert.equal((await send.ended).code, 1);
  receive.signal("SIGTERM");
  assert.equal((await receive.ended).code, 1);
  await world.checkStates();
});

qemuTest("receive says what is wrong and what to do, and its QEMU waits on", async () => {
  await using world = await World.make();
  world.ports();
  await world.vm("running");
  await world.vm("waiting", { state: "inmigrate" });
  await world.run("receive.txt");
});

qemuTest("send --dry-run tells of every check on both ends", async () => {
  await using world = await World.make();
  world.ports();
  await world.vm("source");
  await world.vm("uuid", { uuid: otherUuid });
  const waiting = await world.vm("waiting", { state: "inmigrate" });
  await world.receiver(waiting);
  await world.run("dry_run.txt");
  assert.deepEqual(
    [...Deno.readDirSync(`${world.directory}/other/migrations`)],
    [],
    "a dry run leaves no journal",
  );
});

rootTest("send says that a disk is too full for a journal, here or there", async () => {
  await using world = await World.make();
  await world.vm("source");
  const waiting = await world.vm("waiting", { state: "inmigrate" });
  using here = SmallDisk.mount(`${world.directory}/full`);
  world.words["FULL"] = here.path;
  await Deno.mkdir(`${world.directory}/other/migrations`, { mode: 0o700 });
  using there = SmallDisk.mount(`${world.directory}/other/migrations`);
  await Deno.copyFile(`${world.directory}/state/identity`, `${here.path}/identity`);
  here.fill();
  there.fill();
  const receive = await world.receiver(waiting);
  await world.run("full_disk.txt");
  const { code, report } = await receive.ended;
  assert.equal(code, 1);
  assert.equal(report?.error?.code, "journal");
});
