/**
 * What a destination says to who joins, and to nobody any more once it ends.
 */

import assert from "node:assert/strict";
import type { Connection } from "../../migration/connection.ts";
import { FRAME_DATA, writeFrameHeader } from "../../migration/frame.ts";
import {
  FRAME_HEADER_BYTES,
  MAX_QUEUED_CONTROL_BYTES,
  RECORD_HEADER_BYTES,
} from "../../migration/limits.ts";
import { encodeMessage } from "../../migration/messages.ts";
import { JOIN } from "../../migration/opening.ts";
import type { Fault, Unit } from "../support/fault_injector.ts";
import { Loopback } from "../support/loopback.ts";
import { dialAs, type ScriptedSource, scriptedSource } from "../support/scripted_peers.ts";
import { migrate, SimulatedMigration, usualLimits } from "../support/simulated_migration.ts";

const BODY_BYTES = 17;
const FORGED_BYTES = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + BODY_BYTES;

/** Records with good headers that nobody sealed, from `first` on. */
function forged(first: number, count: number): Uint8Array {
  const bytes = new Uint8Array(count * FORGED_BYTES);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) {
    const at = i * FORGED_BYTES;
    writeFrameHeader(view, at, FRAME_DATA, FORGED_BYTES - FRAME_HEADER_BYTES);
    view.setUint32(at + FRAME_HEADER_BYTES + 4, 1);
    view.setUint32(at + FRAME_HEADER_BYTES + 12, first + i);
    view.setUint32(at + FRAME_HEADER_BYTES + 16, BODY_BYTES);
  }
  return bytes;
}

/** A destination that has everything of a VM, and found so many records behind it damaged. */
class Damaged implements AsyncDisposable {
  readonly count = 16_000;
  readonly run: SimulatedMigration = new SimulatedMigration({
    pageCounts: [4],
    // Less than all that is told: who does not read it holds it up.
    prepare: (run) => run.loopback = new Loopback({ capacityBytes: 512 * 1024 }),
  });
  readonly #ends = this.run.destination.run();
  readonly #id = crypto.getRandomValues(new Uint8Array(16));
  readonly #connections: Connection[] = [];
  #source: ScriptedSource | null = null;
  #attempt = 0;
  /** The last record that opened. */
  position = 0;

  static async make(): Promise<Damaged> {
    const damaged = new Damaged();
    const { run, count } = damaged;
    const source = damaged.#source = await scriptedSource(run, { id: damaged.#id });
    source.everything();
    damaged.position = source.sealer.lastSequence;
    for (let said = 0; said < count; said += 2_000) {
      source.connection.outbox.put(forged(damaged.position + 1 + said, 2_000), { data: true });
      await run.clock.sleep(10);
    }
    assert.equal(source.received.filter((type) => type === "MISTAKE").length, count);
    return damaged;
  }

  /** One that has said RESUME, and acknowledges none of the damaged ones. */
  async join(): Promise<Connection> {
    const { run, position } = this;
    const connection = await dialAs(run, {
      kind: JOIN,
      id: this.#id,
      psk: this.#source!.joinKey,
    });
    this.#connections.push(connection);
    const lanes = [{ lane: 0, sequence: position }];
    connection.send({ type: "RESUME", attempt: ++this.#attempt, lanes });
    await connection.outbox.drained();
    return connection;
  }

  /** Ends the destination. */
  async end(): Promise<void> {
    this.run.stopDestination.abort();
    await Promise.race([this.#ends, this.run.tooLong()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
    for (const connection of this.#connections) connection[Symbol.dispose]();
    this.#source?.[Symbol.dispose]();
    await this.run[Symbol.asyncDispose]();
  }
}

/** Reads MISTAKEs up to HAVE. @returns how many there were, and what is due next; null when the other side has closed */
async function told(connection: Connection): Promise<{ mistakes: number; next: number } | null> {
  let mistakes = 0;
  for (let answer; (answer = await connection.nextMessage().catch(() => null)) !== null;) {
    const { message } = answer;
    if (message.type === "HAVE") return { mistakes, next: message.lanes[0]!.sequence };
    if (message.type === "MISTAKE") mistakes++;
  }
  return null;
}

Deno.test("Destination tells who joins of more damaged records than may wait to be written", async () => {
  await using damaged = await Damaged.make();
  const { count, position } = damaged;
  const one = encodeMessage({ type: "MISTAKE", lane: 0, sequence: position + count }).length;
  // Sealed, each is longer still.
  assert.ok(count * (one + FRAME_HEADER_BYTES + 16) > MAX_QUEUED_CONTROL_BYTES);
  const joined = await damaged.join();
  assert.deepEqual(await told(joined), { mistakes: count, next: position + count + 1 });
});

Deno.test("Destination lets another connection take the place of one that does not read what it is told", async () => {
  await using damaged = await Damaged.make();
  const { count, position, run } = damaged;
  const silent = await damaged.join();
  await run.clock.sleep(1_000);
  const joined = await damaged.join();
  assert.deepEqual(await told(joined), { mistakes: count, next: position + count + 1 });
  // What was on its way arrives; HAVE does not.
  assert.equal(await told(silent), null);
});

Deno.test("Destination counts the time of one that joins and does not read as time without a connection", async () => {
  await using damaged = await Damaged.make();
  await damaged.join();
  await damaged.run.clock.sleep(usualLimits.reconnectMs - 1_000);
  assert.equal(damaged.run.destination.state, "receiving");
  await damaged.run.clock.sleep(2_000);
  assert.equal(damaged.run.destination.state, "discarded");
});

Deno.test("Destination ends while one that joins does not read what it is told", async () => {
  await using damaged = await Damaged.make();
  const silent = await damaged.join();
  await damaged.run.clock.sleep(1_000);
  await damaged.end();
  assert.equal(await told(silent), null);
});

Deno.test("Destination closes a JOIN that waits for a landing when it ends, and acknowledges nothing more", async () => {
  const landMs = 20_000;
  await using run = new SimulatedMigration({ pageCounts: [4], destination: { paceMs: landMs } });
  const ends = run.destination.run();
  const id = crypto.getRandomValues(new Uint8Array(16));
  using source = await scriptedSource(run, { id });
  source.everything();
  await run.clock.sleep(100);
  using waiting = await dialAs(run, { kind: JOIN, id, psk: source.joinKey });
  waiting.send({ type: "RESUME", attempt: 1, lanes: [{ lane: 0, sequence: 0 }] });
  await waiting.outbox.drained();
  const answer = told(waiting);
  await run.clock.sleep(100);
  run.stopDestination.abort();
  const result = await Promise.race([ends, run.tooLong()]);
  assert.equal(result.outcome, "aborted", result.error?.message);
  assert.equal(result.reconnects, 0);
  assert.equal(await answer, null);
  assert.equal(run.world.destination, "gone");
  assert.equal(run.clock.pending, 0);
});

/** Cuts the first connection behind its first record that is longer than so many bytes. */
function cutBehind(longerThan: number): (unit: Unit) => Fault | undefined {
  let cut = false;
  return ({ direction, bytes }) => {
    if (cut || direction !== "there" || bytes[0] !== FRAME_DATA || bytes.length <= longerThan) {
      return undefined;
    }
    cut = true;
    return { kind: "cutAfter" };
  };
}

Deno.test("Destination loads no VM of which a page could not be landed while a JOIN waited for it", async () => {
  let fails = true;
  const { source, destination, run } = await migrate({
    fault: cutBehind(4096),
    prepare: ({ destinationVm, clock }) => {
      const open = destinationVm.open.bind(destinationVm);
      destinationVm.open = async () => {
        const sink = await open();
        const pages = sink.pages.bind(sink);
        sink.pages = async (...page) => {
          if (!fails) return await pages(...page);
          fails = false;
          await clock.sleep(200);
          throw new Error("no memory there");
        };
        return sink;
      };
    },
  });
  const story = run.world.log.join("\n");
  assert.match(destination.error?.message ?? "", /Cannot land in the VM: no memory there/, story);
  assert.equal(source.outcome, "aborted", story);
  assert.equal(run.world.source, "running", story);
});

Deno.test("Destination says why its QEMU could not be opened, though another connection came meanwhile", async () => {
  const { source, destination, run } = await migrate({
    fault: cutBehind(0),
    prepare: ({ destinationVm, clock }) => {
      destinationVm.open = async () => {
        await clock.sleep(200);
        throw new Error("migrate-incoming was refused");
      };
    },
  });
  const story = run.world.log.join("\n");
  assert.match(destination.error?.message ?? "", /migrate-incoming was refused/, story);
  assert.equal(source.outcome, "aborted", story);
  assert.equal(run.world.source, "running", story);
});

Deno.test("Source gives up, its VM running, when the destination ends while its JOIN waits there", async () => {
  const reconnectMs = 30_000;
  await using run = new SimulatedMigration({
    pageCounts: [400],
    seed: 5,
    source: { liveRounds: 40, busy: true },
    destination: { paceMs: 3_000 },
    limits: { reconnectMs },
  });
  const { sourceEnds, destinationEnds } = run.start();
  while (run.destination.landedBytes === 0) await run.clock.sleep(10);
  run.injector.cut();
  await run.clock.sleep(1_000);
  run.stopDestination.abort();
  const stoppedAtMs = run.clock.now();
  const destination = await Promise.race([destinationEnds, run.tooLong()]);
  assert.equal(destination.outcome, "aborted", destination.error?.message);
  assert.equal(destination.destinationState, "discarded");
  assert.ok(run.clock.now() - stoppedAtMs < reconnectMs);
  const source = await Promise.race([sourceEnds, run.tooLong()]);
  assert.equal(source.outcome, "aborted", source.error?.message);
  assert.equal(source.reconnects, 0);
  assert.equal(run.world.source, "running");
});

Deno.test("Destination gives a JOIN to no other migration than the one whose join key it proved", async () => {
  await using run = new SimulatedMigration({ pageCounts: [4] });
  const ends = run.destination.run();
  const id = crypto.getRandomValues(new Uint8Array(16));
  using first = await scriptedSource(run, { id });
  const joining = await dialAs(run, { kind: JOIN, id, psk: first.joinKey });
  first.connection[Symbol.dispose]();
  await run.clock.sleep(10);
  // Nothing was bound: who opens anew gets the place.
  using second = await scriptedSource(run);
  joining.send({ type: "RESUME", attempt: 1, lanes: [{ lane: 0, sequence: 0 }] });
  assert.equal(await told(joining), null);
  second.everything();
  await run.clock.sleep(100);
  assert.equal(run.destination.state, "receiving");
  assert.ok(second.received.includes("ACK"));
  assert.notEqual(run.destination.id, id.toHex());
  joining[Symbol.dispose]();
  run.stopDestination.abort();
  await ends;
});

Deno.test("Destination says how long the VM runs also to who joins just then", async () => {
  await using run = new SimulatedMigration({
    pageCounts: [4],
    destinationEntered: async (state, { injector, clock }) => {
      if (state !== "running") return;
      injector.cut();
      await clock.sleep(500);
    },
  });
  const { source } = await run.run();
  assert.equal(source.outcome, "completed", run.world.log.join("\n"));
  assert.equal(source.reconnects, 1);
  assert.ok(source.downtimeMs! >= 0 && source.downtimeMs! < 1_000, `${source.downtimeMs}`);
});
