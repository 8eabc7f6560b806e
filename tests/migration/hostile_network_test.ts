import assert from "node:assert/strict";
import type { Connection } from "../../migration/connection.ts";
import { MAX_HALF_OPEN } from "../../migration/limits.ts";
import type { Message } from "../../migration/messages.ts";
import { JOIN, MESSAGE_1_BYTES, RECOVER } from "../../migration/opening.ts";
import type { LoopbackEnd } from "../support/loopback.ts";
import { dialAs, scriptedSource } from "../support/scripted_peers.ts";
import { identities, migrate, SimulatedMigration } from "../support/simulated_migration.ts";

/** A migration that takes a while, so that there is time for more than itself. */
const slow = { pageCounts: [200], seed: 4, source: { liveRounds: 2, paceMs: 20 } };

function idOf(run: SimulatedMigration): Uint8Array {
  return Uint8Array.from(run.source.id.match(/../g)!, (byte) => parseInt(byte, 16));
}

async function say(end: LoopbackEnd, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await end.write(bytes.subarray(at));
}

/** Whether the other side closes, without having said more than `bytes`. */
async function closesAfter(end: LoopbackEnd, bytes: number): Promise<void> {
  let said = 0;
  const into = new Uint8Array(1_000);
  for (let count; (count = await end.read(into)) !== null;) said += count;
  assert.ok(said <= bytes, `${said}`);
  end.close();
}

const attacks: Record<string, (run: SimulatedMigration) => Promise<void>> = {
  "JOIN by another key": async (run) => {
    const attack = dialAs(run, { kind: JOIN, id: idOf(run), identity: identities.stranger });
    await assert.rejects(attack, { code: "handshake" });
  },
  "JOIN with its key, without the join key": async (run) => {
    await assert.rejects(dialAs(run, { kind: JOIN, id: idOf(run) }), { code: "handshake" });
    const psk = new Uint8Array(32).fill(7);
    await assert.rejects(dialAs(run, { kind: JOIN, id: idOf(run), psk }), { code: "handshake" });
  },
  "JOIN and RECOVER of another migration": async (run) => {
    for (const kind of [JOIN, RECOVER]) {
      await assert.rejects(dialAs(run, { kind, id: new Uint8Array(16) }), { code: "handshake" });
    }
  },
  "RECOVER by another key": async (run) => {
    const attack = dialAs(run, { kind: RECOVER, id: idOf(run), identity: identities.stranger });
    await assert.rejects(attack, { code: "handshake" });
  },
  "RECOVER that says nothing that confirms it": async (run) => {
    const connection = await dialAs(run, { kind: RECOVER, id: idOf(run) });
    connection.outbox.put(crypto.getRandomValues(new Uint8Array(60)));
    assert.equal(await connection.nextFrame().catch(() => null), null);
    connection[Symbol.dispose]();
  },
  "RECOVER by what says that it was the destination": async (run) => {
    const connection = await dialAs(run, { kind: RECOVER, id: idOf(run) });
    connection.send({
      type: "STATUS",
      side: "destination",
      journal: "loaded",
      runState: "paused",
      migration: null,
    });
    assert.equal(await connection.nextMessage().catch(() => null), null);
    connection[Symbol.dispose]();
  },
  "a thousand silent connections": async (run) => {
    const silent = Array.from({ length: 1_000 }, () => run.loopback.dial());
    await run.clock.sleep(100);
    for (const end of silent) if (!end.closed) end.close();
  },
  "a storm of dials that say noise": async (run) => {
    for (let i = 0; i < 300; i++) {
      const end = run.loopback.dial();
      await say(end, crypto.getRandomValues(new Uint8Array(MESSAGE_1_BYTES)));
      await closesAfter(end, 0);
    }
  },
};

for (const [what, attack] of Object.entries(attacks)) {
  Deno.test(`Destination is not disturbed by ${what}`, async () => {
    let attacked = false;
    const { source, destination, run } = await migrate({
      ...slow,
      sourceEntered: async (state, run) => {
        if (state !== "copying" && state !== "finishing") return;
        await attack(run);
        attacked = true;
      },
    });
    const story = run.world.log.join("\n");
    assert.ok(attacked);
    assert.equal(source.outcome, "completed", story);
    assert.equal(destination.outcome, "completed", story);
    assert.equal(source.reconnects, 0);
    assert.equal(source.mistakes.detected, 0);
  });
}

Deno.test("Source joins again past a thousand silent connections", async () => {
  const { source } = await migrate({
    ...slow,
    sourceEntered: (state, run) => {
      if (state !== "finishing") return;
      for (let i = 0; i < 1_000; i++) run.loopback.dial();
      run.injector.cut();
    },
  });
  assert.equal(source.outcome, "completed");
  assert.equal(source.reconnects, 1);
});

Deno.test("Source joins again past strangers that dial more often than a message goes there and back", async () => {
  let cut = false;
  let joined = false;
  const { source, run } = await migrate({
    ...slow,
    // RESUME takes its time, in which more dial than may be half open.
    fault: ({ direction, connection, index }) =>
      direction === "there" && connection > 0 && index === 1
        ? { kind: "delay", ms: 2 * MAX_HALF_OPEN }
        : undefined,
    sourceOptions: { onNote: (text) => void (joined ||= text === "Joined again") },
    sourceEntered: (state, run) => {
      if (state !== "copying") return;
      cut = true;
      run.injector.cut();
      void (async () => {
        for (; !joined && !run.loopback.closed; await run.clock.sleep(1)) run.loopback.dial();
      })();
    },
  });
  const story = run.world.log.join("\n");
  assert.ok(cut);
  assert.equal(source.outcome, "completed", story);
  assert.equal(source.reconnects, 1, story);
});

Deno.test("Source joins again past who listens, and says its message 1 before it is read", async () => {
  const copies: { close(): void }[] = [];
  await using run: SimulatedMigration = new SimulatedMigration({
    ...slow,
    fault: ({ direction, connection, index, bytes }) => {
      if (direction !== "there" || connection === 0 || index !== 0) return undefined;
      const copy = run.loopback.dial();
      copies.push(copy);
      void copy.write(bytes.slice()).catch(() => {});
      return { kind: "delay", ms: 5 };
    },
    sourceEntered: (state, run) => {
      if (state === "copying") run.injector.cut();
    },
  });
  const { source } = await run.run();
  assert.ok(copies.length > 0);
  assert.equal(source.outcome, "completed", run.world.log.join("\n"));
  assert.equal(source.reconnects, 1);
  for (const copy of copies) copy.close();
});

Deno.test("Destination is not disturbed by a replay of all that was said over an earlier connection", async () => {
  const recorded: Uint8Array[][] = [];
  let replayed = 0;
  const { source, destination } = await migrate({
    ...slow,
    fault: ({ direction, connection, bytes }) => {
      if (direction === "there") (recorded[connection] ??= []).push(bytes.slice());
      return undefined;
    },
    sourceEntered: async (state, run) => {
      if (state === "copying") run.injector.cut();
      if (state !== "finishing") return;
      // The opening one, and the one that joined.
      for (const connection of [recorded[0]!, recorded[1]!]) {
        const end = run.loopback.dial();
        for (const bytes of connection.slice(0, 5)) await say(end, bytes).catch(() => {});
        // No more than message 2 comes back.
        await closesAfter(end, 48);
        replayed++;
      }
    },
  });
  assert.equal(replayed, 2);
  assert.equal(source.outcome, "completed");
  assert.equal(destination.outcome, "completed");
  assert.equal(source.reconnects, 1);
});

/** What the destination answers to a RESUME: the types, up to HAVE; null when it closes without. */
async function resumed(connection: Connection, sequence: number, attempt: number) {
  connection.send({ type: "RESUME", attempt, lanes: [{ lane: 0, sequence }] });
  const types: Message["type"][] = [];
  for (let next; (next = await connection.nextMessage().catch(() => null)) !== null;) {
    types.push(next.message.type);
    if (next.message.type === "HAVE") {
      return { types, next: next.message.lanes[0]!.sequence };
    }
  }
  return null;
}

Deno.test("Destination takes a connection only for a later attempt than the last, and drops the old one only then", async () => {
  await using run = new SimulatedMigration({ pageCounts: [4] });
  const ends = run.destination.run();
  const id = crypto.getRandomValues(new Uint8Array(16));
  using source = await scriptedSource(run, { id });
  source.everything();
  await run.clock.sleep(50);
  const join = () => dialAs(run, { kind: JOIN, id, psk: source.joinKey });
  const last = source.sealer.lastSequence;

  // One that has more acknowledged than was ever sent is broken.
  using beyond = await join();
  assert.equal(await resumed(beyond, last + 1, 1), null);
  assert.ok(!source.connection.closed);
  source.connection.send({ type: "PING", nonce: 1, lanes: [{ lane: 0, sequence: last }] });
  await run.clock.sleep(50);
  assert.ok(source.received.includes("PONG"));

  using first = await join();
  assert.deepEqual(await resumed(first, 0, 5), { types: ["HAVE"], next: last + 1 });
  await source.closed();
  for (const attempt of [5, 4]) {
    using old = await join();
    assert.equal(await resumed(old, 0, attempt), null);
  }
  first.send({ type: "PING", nonce: 2, lanes: [{ lane: 0, sequence: last }] });
  assert.equal((await first.nextMessage())!.message.type, "PONG");
  using second = await join();
  assert.ok(await resumed(second, last, 6) !== null);
  assert.equal(await first.nextMessage().catch(() => null), null);

  // RECOVER ends the join key.
  using recovery = await dialAs(run, { kind: RECOVER, id });
  recovery.send({
    type: "STATUS",
    side: "source",
    journal: "open",
    runState: "running",
    migration: null,
  });
  assert.equal((await recovery.nextMessage())!.message.type, "STATUS");
  await assert.rejects(join(), { code: "handshake" });
  recovery.send({ type: "DISCARD" });
  assert.equal((await recovery.nextMessage())!.message.type, "DISCARDED");
  assert.equal((await ends).destinationState, "discarded");
  assert.equal(run.world.destination, "gone");
});

Deno.test("Destination tells every damaged record again to who joins, before HAVE", async () => {
  await using run = new SimulatedMigration({ pageCounts: [4] });
  const ends = run.destination.run();
  const id = crypto.getRandomValues(new Uint8Array(16));
  using source = await scriptedSource(run, { id });
  source.everything();
  await run.clock.sleep(50);
  const frame = new Uint8Array(8 + 24 + 20);
  const view = new DataView(frame.buffer);
  const next = source.sealer.lastSequence + 1;
  frame[0] = 2;
  view.setUint32(4, 44);
  view.setUint32(8 + 4, 1);
  view.setUint32(8 + 12, next);
  view.setUint32(8 + 16, 20);
  source.connection.outbox.put(frame);
  await run.clock.sleep(50);
  assert.ok(source.received.includes("MISTAKE"));
  using joined = await dialAs(run, { kind: JOIN, id, psk: source.joinKey });
  assert.deepEqual(await resumed(joined, next - 1, 1), {
    types: ["MISTAKE", "HAVE"],
    next: next + 1,
  });
  run.stopDestination.abort();
  await ends;
});
