import assert from "node:assert/strict";
import { join } from "node:path";
import { StreamReader } from "../../kvm/stream_reader.ts";
import { StreamWriter } from "../../kvm/stream_writer.ts";
import type { PageEvents, RamBlock } from "../../migration/ports.ts";
import { concat } from "../support/stream_builder.ts";

const qemu = "qemu-system-x86_64";
const noQemu = !hasQemu();
const memoryMebibytes = 16;
// Whatever hangs here fails here.
const patienceMs = 60_000;

/** A QEMU of a test: started, asked, and gone with its scope. */
class Qemu implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #qmp: Deno.Conn;
  readonly #lines: AsyncIterator<string>;

  private constructor(process: Deno.ChildProcess, qmp: Deno.Conn) {
    this.#process = process;
    this.#qmp = qmp;
    this.#lines = lines(qmp);
  }

  static async start(qmpPath: string, args: string[]): Promise<Qemu> {
    const process = new Deno.Command(qemu, {
      args: [
        ...["-m", `${memoryMebibytes}`, "-display", "none", "-accel", "tcg", "-net", "none"],
        ...["-qmp", `unix:${qmpPath},server=on,wait=off`, ...args],
      ],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    for (const deadlineMs = Date.now() + patienceMs;;) {
      try {
        const vm = new Qemu(process, await Deno.connect({ transport: "unix", path: qmpPath }));
        await vm.#lines.next(); // the greeting
        await vm.execute("qmp_capabilities");
        return vm;
      } catch (error) {
        if (Date.now() > deadlineMs) {
          await kill(process);
          throw error;
        }
        await pause(20);
      }
    }
  }

  async execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const request = new TextEncoder().encode(
      JSON.stringify({ execute: command, arguments: args }) + "\n",
    );
    for (let sent = 0; sent < request.length;) {
      sent += await this.#qmp.write(request.subarray(sent));
    }
    while (true) {
      const { value, done } = await this.#lines.next();
      assert.ok(!done, `QEMU is gone during ${command}`);
      const reply: Record<string, unknown> = JSON.parse(value);
      if ("error" in reply) assert.fail(`${command}: ${value}`);
      if ("return" in reply) return reply.return;
    }
  }

  /** A key of an answer that is an object. */
  async ask(command: string, key: string): Promise<unknown> {
    return (await this.execute(command) as Record<string, unknown>)[key];
  }

  async blocks(): Promise<RamBlock[]> {
    const table = await this.execute("human-monitor-command", { "command-line": "info ramblock" });
    return String(table).split(/\r?\n/).flatMap((line) => {
      const [, name, used] = /^\s*(\S+)\s+\S+ KiB\s+0x\w+\s+(0x\w+)/.exec(line) ?? [];
      return name === undefined ? [] : [{ name, bytes: Number(used) }];
    });
  }

  /** All guest RAM as the CPU sees it. */
  async memory(path: string): Promise<Uint8Array> {
    await this.execute("pmemsave", { val: 0, size: memoryMebibytes << 20, filename: path });
    return await Deno.readFile(path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#qmp.close();
    await kill(this.#process);
  }
}

/** Everything that came out of a source. */
class Capture implements PageEvents {
  /** The stream as it came. */
  readonly raw: Uint8Array[] = [];
  readonly setupPieces: Uint8Array[] = [];
  readonly statePieces: Uint8Array[] = [];
  readonly pages = new Map<string, Uint8Array | null>();
  records = 0;
  recordsAtStop = -1;
  setup(bytes: Uint8Array): void {
    this.setupPieces.push(bytes.slice());
  }
  page(block: number, page: number, bytes: Uint8Array): void {
    this.records++;
    this.pages.set(`${block} ${page}`, bytes.slice());
  }
  zero(block: number, page: number): void {
    this.records++;
    this.pages.set(`${block} ${page}`, null);
  }
  stopped(): void {
    assert.equal(this.recordsAtStop, -1);
    this.recordsAtStop = this.records;
  }
  state(bytes: Uint8Array): void {
    this.statePieces.push(bytes.slice());
  }
  drained(): void {}
}

const machines: { machine: string; args: string[]; runs: boolean }[] = [
  { machine: "q35", args: ["-nodefaults", "-S"], runs: false },
  { machine: "pc", args: ["-S"], runs: false },
  { machine: "q35", args: ["-device", "virtio-balloon-pci"], runs: true },
];

for (const { machine, args, runs } of machines) {
  const vm = `${machine} VM that is ${runs ? "running" : "paused"} (${args.join(" ")})`;
  Deno.test({
    name: `StreamReader reads and StreamWriter writes a ${vm} when QEMU is at both ends`,
    ignore: noQemu,
    permissions: "inherit",
    fn: () => move({ machine, args, runs }),
  });
}

async function move(options: { machine: string; args: string[]; runs: boolean }): Promise<void> {
  const { machine, args, runs } = options;
  const directory = await Deno.makeTempDir({ prefix: "stream-" });
  try {
    await using source = await Qemu.start(join(directory, "s.qmp"), ["-machine", machine, ...args]);
    if (runs) await pause(1_500); // the firmware runs and writes
    const blocks = await source.blocks();
    assert.ok(blocks.length >= 3);
    const capture = new Capture();
    using _socket = await capturePages(source, { directory, blocks, capture });

    // The source waits for SHUT, which it does not get: it is stopped and still has its memory.
    const total = blocks.reduce((sum, block) => sum + block.bytes, 0);
    assert.equal(capture.pages.size, total / 4096, "every page of every block");
    assert.ok(capture.recordsAtStop >= total / 4096, "END comes behind the first pass");
    const state = concat(...capture.statePieces);
    assert.equal(state[0], 4);
    assert.equal(state.at(-1), "}".charCodeAt(0));
    readAgain(concat(...capture.raw), { blocks, state });
    const memory = await source.memory(join(directory, "s.ram"));

    await using target = await Qemu.start(join(directory, "d.qmp"), [
      ...["-machine", machine, ...args.filter((arg) => arg !== "-S"), "-S", "-incoming", "defer"],
    ]);
    await writePages(target, { directory, blocks, capture });
    assert.ok(memory.some((byte) => byte !== 0));
    const arrived = await target.memory(join(directory, "d.ram"));
    assert.equal(arrived.findIndex((byte, at) => byte !== memory[at]), -1);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Migrates the source into a reader, to the end of the stream; the socket stays open. */
async function capturePages(
  source: Qemu,
  options: { directory: string; blocks: RamBlock[]; capture: Capture },
): Promise<Deno.Conn> {
  const { directory, blocks, capture } = options;
  const path = join(directory, "s.sock");
  using listener = Deno.listen({ transport: "unix", path });
  await source.execute("migrate-set-capabilities", {
    capabilities: [{ capability: "return-path", state: true }],
  });
  await source.execute("migrate-set-parameters", { "max-bandwidth": 0 });
  await source.execute("migrate", { uri: `unix:${path}` });
  const socket = await listener.accept();
  const reader = new StreamReader({ blocks });
  try {
    while (!reader.ended) {
      const space = reader.space();
      const count = await within(socket.read(space), "the source's stream");
      if (count === null) {
        reader.end();
        break;
      }
      capture.raw.push(space.slice(0, count));
      reader.advance(count, capture);
    }
    reader.end();
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** Reads a stream again, cut behind every byte of STATE: it must not end before its end. */
function readAgain(stream: Uint8Array, options: { blocks: RamBlock[]; state: Uint8Array }): void {
  const { blocks, state } = options;
  const reader = new StreamReader({ blocks });
  const again = new Capture();
  for (let at = 0; at < stream.length;) {
    assert.equal(reader.ended, false, `at byte ${at} of ${stream.length}`);
    const count = at < stream.length - state.length
      ? Math.min(65_536, stream.length - state.length - at)
      : 1;
    reader.space().set(stream.subarray(at, at + count));
    reader.advance(count, again);
    at += count;
  }
  assert.equal(reader.ended, true);
  const stateAgain = concat(...again.statePieces);
  assert.ok(
    stateAgain.length === state.length && stateAgain.every((byte, at) => byte === state[at]),
  );
}

/** Writes what was captured, re-encoded, to a destination; resolves when it is loaded and not running. */
async function writePages(
  target: Qemu,
  options: { directory: string; blocks: RamBlock[]; capture: Capture },
): Promise<void> {
  const { directory, blocks, capture } = options;
  const path = join(directory, "d.sock");
  await target.execute("migrate-incoming", { uri: `unix:${path}` });
  using socket = await Deno.connect({ transport: "unix", path });
  const write = async (bytes: Uint8Array) => {
    for (let sent = 0; sent < bytes.length;) sent += await socket.write(bytes.subarray(sent));
  };
  const setup = concat(...capture.setupPieces);
  const writer = new StreamWriter({ ...StreamWriter.parseSetup(setup, { blocks }), blocks });
  await write(setup);
  for (const block of blocks.keys()) {
    const pages = [...capture.pages].filter(([key]) => key.startsWith(`${block} `));
    const number = ([key]: [string, unknown]) => Number(key.split(" ")[1]);
    const zeros = pages.filter(([, bytes]) => bytes === null);
    await write(writer.zeros(block, Uint32Array.from(zeros, number)));
    const others = pages.filter((page): page is [string, Uint8Array] => page[1] !== null);
    for (let at = 0; at < others.length; at += 64) {
      const some = others.slice(at, at + 64);
      await write(
        writer.pages(
          block,
          Uint32Array.from(some, number),
          concat(...some.map(([, bytes]) => bytes)),
        ),
      );
    }
  }
  await write(writer.end());
  await write(concat(...capture.statePieces));
  for (const deadlineMs = Date.now() + patienceMs;; await pause(20)) {
    const status = await target.ask("query-migrate", "status");
    if (status === "completed") break;
    assert.ok(status !== "failed" && Date.now() < deadlineMs, `incoming migration: ${status}`);
  }
  assert.match(String(await target.ask("query-status", "status")), /^(paused|prelaunch)$/);
}

async function* lines(connection: Deno.Conn): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(65_536);
  let rest = "";
  while (true) {
    const count = await within(connection.read(buffer), "QMP");
    if (count === null) return;
    const parts = (rest + decoder.decode(buffer.subarray(0, count), { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    yield* parts;
  }
}

async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`nothing from ${what} for ${patienceMs} ms`)),
      patienceMs,
    );
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function kill(process: Deno.ChildProcess): Promise<void> {
  try {
    process.kill("SIGKILL");
  } catch {
    // It has ended by itself.
  }
  await process.status;
}

function hasQemu(): boolean {
  try {
    return new Deno.Command(qemu, { args: ["--version"] }).outputSync().success;
  } catch {
    return false;
  }
}
