import assert from "node:assert/strict";
import { defaultRegistry } from "../../ciphers/registry.ts";
import type { Connection } from "../../migration/connection.ts";
import { MigrationError } from "../../migration/errors.ts";
import { JOIN_TIMEOUT_MS, PING_INTERVAL_MS } from "../../migration/limits.ts";
import type { Message } from "../../migration/messages.ts";
import { SourceLink } from "../../migration/source_link.ts";
import { connected } from "../support/connected.ts";
import { FakeClock } from "../support/fake_clock.ts";

// Opened here: a library that a test opens would count as its leak.
defaultRegistry();

/** A link, with what it told its user; `answers` plays the destination on each connection that joins. */
class Rig implements Disposable {
  readonly clock = new FakeClock();
  readonly told: string[] = [];
  readonly there: Connection[] = [];
  readonly link: SourceLink;
  lost: MigrationError | null = null;
  dials = 0;

  constructor(
    options: {
      answers?: (there: Connection, dial: number) => void | Promise<void>;
      joins?: (dial: number, signal: AbortSignal) => Promise<void>;
      reconnectMs?: number;
      onMistake?: (sequence: number) => void;
    } = {},
  ) {
    const { clock, told } = this;
    this.link = new SourceLink({
      clock,
      windowBytes: 2 ** 20,
      reconnectMs: options.reconnectMs ?? 10_000,
      join: async (_onCut, signal) => {
        const dial = ++this.dials;
        await options.joins?.(dial, signal);
        const [here, there] = connected(clock);
        this.there.push(there);
        void (async () => {
          await there.nextMessage();
          await options.answers?.(there, dial);
        })().catch(() => {});
        return here;
      },
      events: {
        onMessage: ({ type }) => told.push(type),
        onAcknowledged: () => {},
        onPulse: () => told.push("pulse"),
        onMistake: (sequence) => {
          told.push(`mistake ${sequence}`);
          options.onMistake?.(sequence);
        },
        onCut: () => told.push("cut"),
        onJoined: () => told.push("joined"),
        onLost: (error) => {
          this.lost = error;
          told.push("lost");
        },
      },
    });
    const [here, there] = connected(clock);
    this.there.push(there);
    this.link.start(here);
  }

  /** Seals records that nobody looks into. */
  put(first: number, last: number): void {
    const { window } = this.link;
    for (let sequence = first; sequence <= last; sequence++) {
      const slab = window.reserve(100);
      slab.view.setUint32(slab.usedBytes + 4, 92);
      window.commit(100, sequence);
    }
    window.flush();
  }

  say(message: Message): void {
    this.there.at(-1)!.send(message);
  }

  cut(): void {
    this.there.at(-1)![Symbol.dispose]();
  }

  /** Pulses apart. */
  get heard(): string[] {
    return this.told.filter((one) => one !== "pulse");
  }

  async end(): Promise<void> {
    await this.link.finish(10);
    for (const one of this.there) one[Symbol.dispose]();
    assert.equal(this.clock.pending, 0);
  }

  [Symbol.dispose](): void {
    this.clock[Symbol.dispose]();
  }
}

function have(sequence: number): Message {
  return { type: "HAVE", lanes: [{ lane: 0, sequence }] };
}

Deno.test("SourceLink joins again, hears of mistakes first, and takes HAVE for an acknowledgement", async () => {
  using rig = new Rig({
    answers: (there) => {
      there.send({ type: "MISTAKE", lane: 0, sequence: 3 });
      there.send(have(5));
    },
  });
  rig.put(1, 6);
  await rig.clock.sleep(10);
  rig.cut();
  await rig.clock.sleep(100);
  assert.deepEqual(rig.heard, ["cut", "mistake 3", "joined"]);
  assert.equal(rig.link.acknowledged, 4);
  assert.equal(rig.link.reconnects, 1);
  await rig.end();
});

const broken: Record<string, Message[]> = {
  "a record that was acknowledged": [have(2)],
  "a record beyond what was sent or reported": [have(9)],
  "another lane": [{ type: "HAVE", lanes: [{ lane: 1, sequence: 5 }] }],
  "no lane": [{ type: "HAVE", lanes: [] }],
};

for (const [what, says] of Object.entries(broken)) {
  Deno.test(`SourceLink gives up on a destination whose HAVE names ${what}`, async () => {
    using rig = new Rig({ answers: (there) => says.forEach((message) => there.send(message)) });
    rig.put(1, 6);
    rig.say({ type: "ACK", lane: 0, sequence: 2 });
    await rig.clock.sleep(10);
    rig.cut();
    await rig.clock.sleep(100);
    assert.equal(rig.lost?.code, "protocol");
    await rig.end();
  });
}

Deno.test("SourceLink takes a HAVE past what it sent when each record between was reported as damaged", async () => {
  using rig = new Rig({
    answers: (there) => {
      for (const sequence of [7, 8]) there.send({ type: "MISTAKE", lane: 0, sequence });
      there.send(have(9));
    },
  });
  rig.put(1, 6);
  rig.cut();
  await rig.clock.sleep(100);
  assert.deepEqual(rig.heard, ["cut", "mistake 7", "mistake 8", "joined"]);
  await rig.end();
});

Deno.test("SourceLink gives up when a record that was damaged cannot be opened again after a JOIN", async () => {
  using rig = new Rig({
    answers: (there) => {
      there.send({ type: "MISTAKE", lane: 0, sequence: 2 });
      there.send(have(4));
    },
    onMistake: () => {
      throw new MigrationError("vm", "Cannot open our own record 2: the suite failed");
    },
  });
  rig.put(1, 3);
  rig.cut();
  await rig.clock.sleep(3_000);
  assert.deepEqual(rig.heard, ["cut", "mistake 2", "lost"]);
  assert.equal(rig.lost?.code, "vm");
  await rig.end();
});

Deno.test("SourceLink tries again when who answers says nothing, something else breaks it, or nobody is there", async () => {
  using rig = new Rig({
    joins: async (dial, signal) => {
      if (dial === 1) throw new Error("connection refused");
      if (dial === 2) await new Promise((_, reject) => signal.addEventListener("abort", reject));
    },
    answers: (there, dial) => {
      if (dial === 3) there.outbox.put(crypto.getRandomValues(new Uint8Array(40)));
      if (dial === 5) there.send(have(1));
    },
    reconnectMs: 60_000,
  });
  rig.cut();
  const fromMs = rig.clock.now();
  while (!rig.told.includes("joined")) await rig.clock.sleep(10);
  assert.equal(rig.dials, 5);
  // The one that hung, and the one that was silent.
  assert.ok(rig.clock.now() - fromMs >= 2 * JOIN_TIMEOUT_MS);
  assert.equal(rig.lost, null);
  await rig.end();
});

Deno.test("SourceLink gives up once the time without a connection is used up, over all cuts", async () => {
  using rig = new Rig({
    joins: async (dial) => {
      if (dial % 10 !== 0) throw new Error("connection refused");
      await Promise.resolve();
    },
    answers: (there) => void there.send(have(1)),
    reconnectMs: 20_000,
  });
  let awayMs = 0;
  for (let cuts = 0; rig.lost === null; cuts++) {
    assert.ok(cuts < 20);
    const fromMs = rig.clock.now();
    rig.cut();
    await rig.clock.sleep(1);
    while (!rig.link.connected && rig.lost === null) await rig.clock.sleep(5);
    awayMs += rig.clock.now() - fromMs;
    await rig.clock.sleep(3_000);
  }
  assert.equal(rig.lost.code, "cut");
  assert.ok(awayMs >= 20_000 && awayMs < 20_500, `${awayMs}`);
  await rig.end();
});

Deno.test("SourceLink gives up in time when the dial hangs, and leaves nothing behind", async () => {
  using rig = new Rig({
    joins: (_, signal) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("late")))),
    reconnectMs: 2_000,
  });
  const fromMs = rig.clock.now();
  rig.cut();
  while (rig.lost === null) await rig.clock.sleep(10);
  assert.ok(rig.clock.now() - fromMs < 2_100);
  await rig.end();
});

Deno.test("SourceLink is not kept busy by somebody who cuts each connection at once", async () => {
  using rig = new Rig({
    answers: async (there) => {
      there.send(have(1));
      await there.outbox.drained();
      there[Symbol.dispose]();
    },
    reconnectMs: 30_000,
  });
  rig.cut();
  while (rig.lost === null) await rig.clock.sleep(100);
  assert.ok(rig.dials < 40, `${rig.dials}`);
  await rig.end();
});

Deno.test("SourceLink pulses on while there is no connection", async () => {
  using rig = new Rig({
    joins: () => Promise.reject(new Error("connection refused")),
    reconnectMs: 60_000,
  });
  rig.cut();
  await rig.clock.sleep(5 * PING_INTERVAL_MS + 10);
  assert.ok(rig.told.filter((one) => one === "pulse").length >= 5);
  await rig.end();
});

Deno.test("SourceLink refuses ACK of what was never sent, and any lane but 0", async () => {
  for (
    const message of [
      { type: "ACK", lane: 0, sequence: 7 },
      { type: "ACK", lane: 1, sequence: 1 },
      { type: "MISTAKE", lane: 1, sequence: 1 },
    ] satisfies Message[]
  ) {
    using rig = new Rig();
    rig.put(1, 6);
    rig.say(message);
    await rig.clock.sleep(10);
    assert.equal(rig.lost?.code, "protocol", JSON.stringify(message));
    await rig.end();
  }
});
