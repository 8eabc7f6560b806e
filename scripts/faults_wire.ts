/**
 * What a bad wire costs, and that it costs nothing else: `deno task faults:wire`.
 *
 * One VM with random memory is moved again and again, each time into a new destination, through a relay that flips bits
 * or cuts the wire. While source and destination both stand still, before the release, their whole memory is compared.
 *
 * @module
 */

import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import type { AgentEnd } from "../cli/demo/agent_process.ts";
import { ramEqual } from "../cli/demo/proof.ts";
import type { MigrationReport } from "../cli/report.ts";
import { hashBlocks, locateBlocks } from "../kvm/guest_memory.ts";
import { readProcess } from "../kvm/process.ts";
import { readFacts } from "../kvm/qemu_facts.ts";
import { MigrationHosts } from "../tests/support/migration_hosts.ts";
import { Random } from "../tests/support/random.ts";
import { BenchVm, writeIdleGuest } from "./bench/bench_vm.ts";
import { describeMachine } from "./bench/machine.ts";
import { waitForQuiet } from "./bench/quiet.ts";
import { median } from "./bench/statistics.ts";
import { type PlannedCut, Wire } from "./faults/wire.ts";

const USAGE = `deno task faults:wire [options]
  --seed N        which flips and cuts (a random one, printed)
  --pairs N       pairs with and without flips (15)
  --random-mib N  random memory of the VM (600)
  --only LIST     of flips,storm,cuts,stopped,limit (all of these) and long
  --out FILE      also write all of it there, as JSON`;

const MIB = 2 ** 20;
/** Whatever hangs here is a fault. */
const HANG_MS = 180_000;
/** What a flipped bit in each 10 MiB may cost. */
const MAX_SLOWDOWN = 1.05;
const LONG = ["--reconnect", "600s", "--max-stop", "30s"];
const MAX_STOP_MS = 3_000;
/** After `--max-stop` the source's VM runs again within this. */
const BACK_MS = 1_000;

/** What may be under way when the wire is cut, window and sockets: QEMU sends so much more, and may have stopped then. */
const IN_FLIGHT_BYTES = 96 * MIB;

/** One migration through a wire. */
interface Move {
  report: MigrationReport;
  code: number;
  /** Whether all RAM was compared, and the same; null for a migration that did not get so far. */
  equal: boolean | null;
  flips: number;
  cuts: number;
}

/** What a check found, a line each. */
interface Check {
  name: string;
  passed: boolean;
  text: string;
}

interface MoveOptions {
  /** Waits until the machine has nothing else to do: for what is timed. */
  quiet?: boolean;
  args?: readonly string[];
  /** State that `send` is held at, besides `releasing`. */
  hold?: string;
  prepare?: (wire: Wire) => void;
  /** Called when it is held there. */
  atHold?: (wire: Wire) => void;
}

/** A source that is moved again and again, and everything around it. */
class Bench implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly #sizes: { memoryMiB: number; randomMiB: number };
  readonly #directory: string;
  readonly #guest: string;
  readonly source: BenchVm;
  readonly random: Random;
  readonly checks: Check[] = [];

  private constructor(
    parts: Pick<Bench, "source" | "random"> & {
      sizes: { memoryMiB: number; randomMiB: number };
      directory: string;
      guest: string;
      stack: AsyncDisposableStack;
    },
  ) {
    this.source = parts.source;
    this.random = parts.random;
    this.#sizes = parts.sizes;
    this.#directory = parts.directory;
    this.#guest = parts.guest;
    this.#stack = parts.stack;
  }

  static async make(options: { randomMiB: number; seed: number }): Promise<Bench> {
    await using stack = new AsyncDisposableStack();
    const directory = await Deno.makeTempDir({ prefix: "sealift-wire-" });
    stack.defer(() => Deno.remove(directory, { recursive: true }));
    const sizes = { memoryMiB: options.randomMiB + 64, randomMiB: options.randomMiB };
    const guest = await writeIdleGuest(directory);
    const source = stack.use(await BenchVm.start(sizes, { guest, directory }));
    await source.process.waitForLine(0, "HB 1", 60_000);
    source.fillRandom(sizes);
    const random = new Random(options.seed);
    return new Bench({ source, random, sizes, directory, guest, stack: stack.move() });
  }

  /** Bytes of a migration, about. */
  get bytes(): number {
    return this.#sizes.randomMiB * MIB;
  }

  /** Moves the VM into a new destination, and takes it back. */
  async move(options: MoveOptions = {}): Promise<Move> {
    const { source } = this;
    await using hosts = await MigrationHosts.make();
    await using destination = await BenchVm.start(this.#sizes, {
      guest: this.#guest,
      directory: this.#directory,
      destination: "prealloc",
    });
    const { agent: receive, port } = await hosts.receive(destination);
    await using wire = new Wire(port);
    options.prepare?.(wire);
    const hold = [...(options.hold === undefined ? [] : [options.hold]), "releasing"];
    if (options.quiet === true) await waitForQuiet();
    const args = ["--keep-source", ...(options.args ?? LONG)];
    const send = hosts.send(source, wire.port, { hold, args });
    if (options.hold !== undefined && await send.line("held", options.hold) !== null) {
      options.atHold?.(wire);
      await send.go();
    }
    let equal: boolean | null = null;
    const ended = within(send.ended);
    const held = await Promise.race([send.line("held", "releasing"), ended.then(() => null)]);
    if (held !== null) {
      equal = ramEqual(await hashed(source), await hashed(destination));
      await send.go();
    }
    const { code, report } = await ended;
    assert.ok(report !== null, "send says nothing");
    if (code !== 0) receive.signal("SIGINT");
    await within(receive.ended);
    if (code === 0) await destination.reaches("running");
    const { flips, cuts } = wire;
    assert.deepEqual(hosts.leftovers(), []);
    if (report.sourceState !== "running") await source.qmp.execute("cont");
    await source.reaches("running");
    return { report, code, equal, flips, cuts };
  }

  check(name: string, passed: boolean, text: string): void {
    this.checks.push({ name, passed, text });
    console.error(`${passed ? "pass" : "FAIL"}  ${name}: ${text}`);
  }

  /** 0 to 1. */
  readonly fraction = (): number => this.random.below(2 ** 31) / 2 ** 31;

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/** SHA-256 of every RAM block that has an address. */
async function hashed({ qmp, process: { pid } }: BenchVm): Promise<Map<string, string>> {
  const { blocks } = await locateBlocks(qmp, (await readFacts(qmp, readProcess(pid))).blocks);
  return await hashBlocks({ pid, blocks: blocks.filter((block) => block !== null) });
}

async function within(ended: Promise<AgentEnd>): Promise<AgentEnd> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("an agent hangs")), HANG_MS);
  try {
    return await Promise.race([ended, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** One flipped bit in 10 MiB: whole, the same bytes, hardly slower. */
async function flips(bench: Bench, { pairs }: { pairs: number }): Promise<void> {
  const times: { clean: number; flipped: number }[] = [];
  let [flipped, repaired] = [0, 0];
  const good = ({ code, equal }: Move) => code === 0 && equal === true;
  let allGood = true;
  // The first pair fills caches.
  for (let pair = 0; pair <= pairs; pair++) {
    const clean = () => bench.move({ quiet: true });
    const bad = () =>
      bench.move({ quiet: true, prepare: (wire) => wire.flipEvery(10 * MIB, bench.fraction) });
    const moves = pair % 2 === 0
      ? { clean: await clean(), bad: await bad() }
      : { bad: await bad(), clean: await clean() };
    allGood &&= good(moves.clean) && good(moves.bad);
    flipped += moves.bad.flips;
    repaired += moves.bad.report.mistakes.detected;
    const time = { clean: moves.clean.report.totalMs!, flipped: moves.bad.report.totalMs! };
    console.error(
      `  pair ${pair}: ${time.clean.toFixed(0)} ms clean, ${
        time.flipped.toFixed(0)
      } ms with ${moves.bad.flips} flips`,
    );
    if (pair > 0) times.push(time);
  }
  const ratio = median(times.map(({ clean, flipped }) => flipped / clean));
  bench.check(
    "1 flipped bit in 10 MiB: completes, byte-identical",
    allGood && flipped > 0,
    `${flipped} flips, ${repaired} damaged records, all memory compared`,
  );
  bench.check(
    "1 flipped bit in 10 MiB: at most 5 % slower",
    ratio <= MAX_SLOWDOWN,
    `${ratio.toFixed(3)} x, the median of ${times.length} pairs; medians of ${
      bench.bytes / MIB
    } MiB ${median(times.map(({ clean }) => clean)).toFixed(0)} and ${
      median(times.map(({ flipped }) => flipped)).toFixed(0)
    } ms`,
  );
}

/** One flipped bit in each MiB: completes or gives up because of tampering, and never hangs. */
async function storm(bench: Bench): Promise<void> {
  const move = await bench.move({
    prepare: (wire) => wire.flipEvery(MIB, bench.fraction),
  });
  const { code, equal, report } = move;
  bench.check(
    "1 flipped bit in 1 MiB: completes or stops with exit 4",
    (code === 0 && equal === true) || (code === 4 && report.sourceState === "running"),
    `exit ${code} after ${
      (report.totalMs! / 1000).toFixed(1)
    } s and ${move.flips} flips, ${report.mistakes.detected} damaged records`,
  );
}

/** The wire is cut at random bytes while the VM runs. */
async function cuts(bench: Bench): Promise<void> {
  for (const [count, downs] of [[1, [30_000]], [3, [0, 10_000]], [10, [0, 2_000]]] as const) {
    const [from, to] = downs.length === 1 ? [downs[0], downs[0]] : downs;
    const plan: PlannedCut[] = Array.from({ length: count }, () => ({
      atBytes: Math.floor(bench.fraction() * (bench.bytes - IN_FLIGHT_BYTES)),
      downMs: from + Math.floor(bench.fraction() * (to - from)),
    }));
    const { code, equal, report, cuts } = await bench.move({ prepare: (wire) => wire.plan(plan) });
    bench.check(
      `cut ${count} times while the VM runs`,
      code === 0 && equal === true && cuts === count && report.reconnects >= count,
      `exit ${code}, ${cuts} cuts for ${
        plan.map(({ downMs }) => (downMs / 1000).toFixed(1)).join(", ")
      } s, joined ${report.reconnects} times, downtime ${report.downtimeMs?.toFixed(0)} ms`,
    );
  }
}

/** One long night: the wire is away for two minutes while the VM runs. Only when it is asked for. */
async function long(bench: Bench): Promise<void> {
  const plan = [{ atBytes: Math.floor(bench.bytes / 2), downMs: 120_000 }];
  const { code, equal, report, cuts } = await bench.move({ prepare: (wire) => wire.plan(plan) });
  bench.check(
    "cut for 120 s while the VM runs",
    code === 0 && equal === true && cuts === 1,
    `exit ${code}, joined ${report.reconnects} times, ${
      (report.totalMs / 1000).toFixed(1)
    } s in all, downtime ${report.downtimeMs?.toFixed(0)} ms`,
  );
}

/** The wire is cut for 2 s while the VM is stopped: that is downtime. */
async function stopped(bench: Bench): Promise<void> {
  const { code, equal, report } = await bench.move({
    hold: "stopping",
    atHold: (wire) => wire.down(2_000),
  });
  bench.check(
    "cut for 2 s while the VM is stopped",
    code === 0 && equal === true && report.downtimeMs! >= 1_900,
    `exit ${code}, downtime ${report.downtimeMs?.toFixed(0)} ms, joined ${report.reconnects} times`,
  );
}

/** `--max-stop` runs out before the release. */
async function limit(bench: Bench): Promise<void> {
  const { source } = bench;
  const from = source.events.length;
  const { code, report } = await bench.move({
    args: ["--reconnect", "5s", "--max-stop", `${MAX_STOP_MS}ms`],
    hold: "finishing",
    atHold: (wire) => wire.down(),
  });
  const stop = await source.event("STOP", from);
  const resume = await source.event("RESUME", source.events.indexOf(stop));
  const stoodMs = resume.hostTimeMs! - stop.hostTimeMs! - report.holdMs;
  bench.check(
    "--max-stop runs out before the release: the source runs again within 1 s",
    code === 1 && report.sourceState === "running" && stoodMs <= MAX_STOP_MS + BACK_MS,
    `exit ${code}, ${(stoodMs - MAX_STOP_MS).toFixed(0)} ms after --max-stop`,
  );
}

const usual = { flips, storm, cuts, stopped, limit } as const;
const parts = { ...usual, long } as const;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seed: { type: "string", default: String(crypto.getRandomValues(new Uint32Array(1))[0]) },
      pairs: { type: "string", default: "15" },
      "random-mib": { type: "string", default: "600" },
      only: { type: "string", default: Object.keys(usual).join(",") },
      out: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.error(USAGE);
    return 0;
  }
  const seed = Number(values.seed);
  console.error(`seed ${seed}`);
  await using bench = await Bench.make({ randomMiB: Number(values["random-mib"]), seed });
  for (const name of values.only.split(",")) {
    await parts[name as keyof typeof parts](bench, { pairs: Number(values.pairs) });
  }
  const report = {
    command: ["deno task faults:wire", ...Deno.args].join(" "),
    seed,
    date: new Date().toISOString(),
    machine: await describeMachine(),
    checks: bench.checks,
  };
  if (values.out !== undefined) {
    await Deno.writeTextFile(values.out, `${JSON.stringify(report, null, 1)}\n`);
  }
  const failed = bench.checks.filter(({ passed }) => !passed).length;
  console.log(`${bench.checks.length - failed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main());
