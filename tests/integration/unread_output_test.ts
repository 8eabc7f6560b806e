/**
 * `send --json` whose reader has stopped reading: a full pipe must not keep a VM standing still.
 */

import assert from "node:assert/strict";
import type { MigrationReport } from "../../cli/report.ts";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { until } from "../support/patience.ts";
import { delay, qemuTest } from "../support/qemu.ts";
import { WatchedVm } from "../support/watched_vm.ts";

/** More than a pipe holds. */
const FILLING_BYTES = 1 << 20;
/** How long it takes to be full, amply: nothing tells. */
const FILLS_MS = 500;

qemuTest("send moves a VM while nobody reads what it prints", async () => {
  await using hosts = await MigrationHosts.make();
  const vm = { guest: { bootSector: await hosts.bootSector() }, memoryMiB: 32, name: "web" };
  await using source = await WatchedVm.start(vm);
  await source.moreBeats(3);
  await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
  const { agent: receive, port } = await hosts.receive(destination);
  using pipe = await FullPipe.make(`${hosts.directory}/pipe`);
  const send = hosts.send(source, port, { hold: ["stopping"], wrapper: pipe.wrapper });
  await pipe.readUntil((text) => text.includes('"type":"held"'));

  const filled = pipe.fill();
  // Where the test fails before, the pipe is closed under it.
  filled.catch(() => {});
  await delay(FILLS_MS);
  await send.go();
  await until("a VM at the destination", async () => await destination.status() === "running");
  await until("no VM at the source", async () => await source.status() === "gone");
  assert.equal((await receive.ended).code, 0);
  assert.ok(!send.hasEnded, "it has more to say");

  // Nothing that it said is lost.
  await pipe.readUntil((text) => /^{"type":"report".*}\n/m.test(text) && pipe.isDrained);
  await filled;
  assert.equal((await send.ended).code, 0);
  const lines: MigrationReport[] = pipe.text.trim().split("\n").map((line) => JSON.parse(line));
  assert.equal(lines.at(-1)!.outcome, "completed");
  await hosts.checkClean();
});

/** A pipe for an agent's stdout that a test reads when it likes, and fills. */
class FullPipe implements Disposable {
  readonly #reading: Deno.FsFile;
  readonly #writing: Deno.FsFile;
  readonly #path: string;
  #fillingRead = 0;
  /** What was read, the filling left out. */
  text = "";

  private constructor(path: string, ends: { reading: Deno.FsFile; writing: Deno.FsFile }) {
    this.#path = path;
    this.#reading = ends.reading;
    this.#writing = ends.writing;
  }

  static async make(path: string): Promise<FullPipe> {
    const { success } = await new Deno.Command("mkfifo", { args: [path] }).output();
    assert.ok(success, "mkfifo");
    // With both ends in hand: neither waits for somebody at the other.
    const reading = await Deno.open(path, { read: true, write: true });
    return new FullPipe(path, { reading, writing: await Deno.open(path, { write: true }) });
  }

  /** For an agent: its stdout goes here. */
  get wrapper(): string[] {
    return ["sh", "-c", 'exec "$@" > "$0"', this.#path];
  }

  /** Whether all of the filling was read. */
  get isDrained(): boolean {
    return this.#fillingRead === FILLING_BYTES;
  }

  /** Leaves no room. Resolves when it has been read far enough. */
  async fill(): Promise<void> {
    const bytes = new Uint8Array(FILLING_BYTES);
    for (let at = 0; at < bytes.length;) at += await this.#writing.write(bytes.subarray(at));
  }

  async readUntil(condition: (text: string) => boolean): Promise<void> {
    const into = new Uint8Array(65_536);
    while (!condition(this.text)) {
      const count = await this.#reading.read(into) ?? 0;
      const said = into.subarray(0, count).filter((byte) => byte !== 0);
      this.#fillingRead += count - said.length;
      this.text += new TextDecoder().decode(said);
    }
  }

  [Symbol.dispose](): void {
    this.#reading.close();
    this.#writing.close();
  }
}
