/**
 * Who comes to a destination's door, how many of them, and what is kept of them.
 */

import assert from "node:assert/strict";
import type { Connection } from "../../migration/connection.ts";
import { MAX_JUDGED_OFFERS } from "../../migration/limits.ts";
import type { Message } from "../../migration/messages.ts";
import { JOIN, OPEN, RECOVER } from "../../migration/opening.ts";
import type { Transport } from "../../migration/ports.ts";
import { Loopback } from "../support/loopback.ts";
import { dialAs, offerOf, type ScriptedSource, scriptedSource } from "../support/scripted_peers.ts";
import { migrate, SimulatedMigration } from "../support/simulated_migration.ts";

/** Where connections are reset before they are taken, some for each that is not. */
class ResetsLoopback extends Loopback {
  #resets = 0;
  #left = 0;

  get resets(): number {
    return this.#resets;
  }

  override async accept(): Promise<Transport> {
    if (this.#left-- > 0) {
      this.#resets++;
      throw new Error("Socket is not connected (os error 107)");
    }
    const transport = await super.accept();
    this.#left = 5;
    return transport;
  }
}

Deno.test("Destination.run() listens on when connections are reset before they are taken", async () => {
  const loopback = new ResetsLoopback();
  const { source, destination } = await migrate({
    prepare: (run) => {
      run.loopback = loopback;
      // Whoever comes first is followed by resets.
      loopback.dial().close();
    },
    sourceEntered: (state, run) => {
      if (state !== "copying" && state !== "finishing") return;
      loopback.dial().close();
      run.injector.cut();
    },
  });
  assert.equal(source.outcome, "completed");
  assert.equal(destination.outcome, "completed");
  assert.equal(source.reconnects, 2);
  assert.ok(loopback.resets >= 10, `${loopback.resets}`);
});

Deno.test("Destination.run() says few words about many strangers", async () => {
  await using run = new SimulatedMigration({});
  const ends = run.destination.run();
  for (let i = 0; i < 200; i++) run.loopback.dial().close();
  await run.clock.sleep(2_000);
  assert.deepEqual(run.notes, ["A connection did not prove an allowed key, and was dropped"]);
  run.loopback.dial().close();
  await run.clock.sleep(2_000);
  assert.deepEqual(run.notes.slice(1), [
    "200 connections did not prove an allowed key, and were dropped",
  ]);
  run.stopDestination.abort();
  await ends;
});

Deno.test("Destination refuses offers when too many wait for its policy, and goes on to judge the others", async () => {
  const verdicts: (() => void)[] = [];
  await using run = new SimulatedMigration({
    judge: async () => {
      await new Promise<void>((resolve) => verdicts.push(resolve));
      return { refusal: { code: "policy", text: "never", hint: null } };
    },
  });
  const ends = run.destination.run();
  const offering = async () => {
    const id = crypto.getRandomValues(new Uint8Array(16));
    const connection = await dialAs(run, { kind: OPEN, id });
    connection.send(offerOf(run));
    return connection;
  };
  const waiting: Connection[] = [];
  for (let i = 0; i < MAX_JUDGED_OFFERS; i++) waiting.push(await offering());
  await run.clock.sleep(100);
  assert.equal(verdicts.length, MAX_JUDGED_OFFERS);
  const refused = await offering();
  const answer = await refused.nextMessage();
  assert.ok(answer?.message.type === "REFUSE");
  assert.equal(answer.message.code, "busy");
  assert.equal(verdicts.length, MAX_JUDGED_OFFERS);
  for (const verdict of verdicts.splice(0)) verdict();
  for (const connection of waiting) assert.equal(await answerTo(connection, run), "REFUSE");
  const later = await offering();
  await run.clock.sleep(100);
  assert.equal(verdicts.length, 1);
  verdicts[0]!();
  assert.equal(await answerTo(later, run), "REFUSE");
  run.stopDestination.abort();
  await ends;
  for (const connection of [...waiting, refused, later]) connection[Symbol.dispose]();
});

async function microtasks(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await Promise.resolve();
}

Deno.test("Destination.run() leaves no connection open, whenever it ends while an offer is answered", async () => {
  const answers = new Set<string | null>();
  for (let moment = 0; moment < 20; moment++) {
    await using run = new SimulatedMigration({});
    const probe = run.destinationVm.probe.bind(run.destinationVm);
    // The last that is awaited before the answer.
    run.destinationVm.probe = async () => {
      const found = await probe();
      void microtasks(moment).then(() => run.stopDestination.abort());
      return found;
    };
    const ends = run.destination.run();
    const id = crypto.getRandomValues(new Uint8Array(16));
    const connection = await dialAs(run, { kind: OPEN, id });
    connection.send(offerOf(run));
    let answer = await answerTo(connection, run);
    answers.add(answer);
    if (answer !== null) answer = await answerTo(connection, run);
    assert.equal(answer, null);
    await ends;
    connection[Symbol.dispose]();
  }
  assert.ok(answers.has("ACCEPT") && answers.has("REFUSE"), `${[...answers]}`);
});

/** A destination that has everything of a VM and is held where it begins to load it. */
class Held implements AsyncDisposable {
  readonly id: Uint8Array = crypto.getRandomValues(new Uint8Array(16));
  readonly run: SimulatedMigration;
  readonly #goOn = Promise.withResolvers<void>();
  readonly #ends: Promise<unknown>;
  #source: ScriptedSource | null = null;
  readonly #connections: Connection[] = [];

  private constructor() {
    this.run = new SimulatedMigration({
      pageCounts: [4],
      destinationEntered: (state) => state === "loading" ? this.#goOn.promise : undefined,
    });
    this.#ends = this.run.destination.run();
  }

  static async atLoading(): Promise<Held> {
    const held = new Held();
    held.#source = await scriptedSource(held.run, { id: held.id });
    held.#source.everything();
    held.#source.finish();
    await held.run.clock.sleep(100);
    assert.equal(held.run.destination.state, "loading");
    return held;
  }

  /** Lets it load. */
  goOn(): void {
    this.#goOn.resolve();
  }

  /** A connection of that kind, that has said nothing yet. */
  async dial(kind: number): Promise<Connection> {
    const { run, id } = this;
    const psk = kind === JOIN ? { psk: this.#source!.joinKey } : {};
    const connection = await dialAs(run, { kind, id, ...psk });
    this.#connections.push(connection);
    return connection;
  }

  /** One of `recover`, that has said how the source stands. */
  async recover(): Promise<Connection> {
    const connection = await this.dial(RECOVER);
    connection.send({
      type: "STATUS",
      side: "source",
      journal: "open",
      runState: "gone",
      migration: null,
    });
    await connection.outbox.drained();
    return connection;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.goOn();
    this.run.stopDestination.abort();
    await this.#ends;
    for (const connection of this.#connections) connection[Symbol.dispose]();
    this.#source?.[Symbol.dispose]();
    await this.run[Symbol.asyncDispose]();
  }
}

/** The next message's type; null when the other side has closed, `silence` when it does neither. */
async function answerTo(
  connection: Connection,
  { clock }: SimulatedMigration,
): Promise<Message["type"] | "silence" | null> {
  const answer = connection.nextMessage().then((next) => next?.message.type ?? null, () => null);
  return await Promise.race([answer, clock.sleep(20_000).then(() => "silence" as const)]);
}

Deno.test("Destination lets the last RECOVER alone wait for what is being loaded, and closes the others at once", async () => {
  await using held = await Held.atLoading();
  const earlier: Connection[] = [];
  for (let i = 0; i < 20; i++) earlier.push(await held.recover());
  const last = await held.recover();
  // Nothing has been loaded yet.
  for (const connection of earlier) assert.equal(await answerTo(connection, held.run), null);
  assert.equal(held.run.destination.state, "loading");
  held.goOn();
  assert.equal(await answerTo(last, held.run), "STATUS");
  last.send({ type: "DISCARD" });
  assert.equal(await answerTo(last, held.run), "DISCARDED");
  assert.equal(held.run.world.destination, "gone");
  assert.equal(held.run.notes.filter((text) => text === "The source recovers").length, 1);
});

Deno.test("Destination answers a RECOVER that comes when another one waits no more", async () => {
  await using held = await Held.atLoading();
  held.goOn();
  const first = await held.recover();
  assert.equal(await answerTo(first, held.run), "STATUS");
  const second = await held.recover();
  assert.equal(await answerTo(second, held.run), "STATUS");
  assert.equal(await answerTo(first, held.run), null);
  second.send({ type: "DISCARD" });
  assert.equal(await answerTo(second, held.run), "DISCARDED");
});

Deno.test("Destination takes no JOIN that began before a RECOVER and says RESUME after it", async () => {
  await using held = await Held.atLoading();
  held.goOn();
  const joining = await held.dial(JOIN);
  const recovering = await held.recover();
  assert.equal(await answerTo(recovering, held.run), "STATUS");
  joining.send({ type: "RESUME", attempt: 1, lanes: [{ lane: 0, sequence: 0 }] });
  assert.equal(await answerTo(joining, held.run), null);
  recovering.send({ type: "DISCARD" });
  assert.equal(await answerTo(recovering, held.run), "DISCARDED");
});

Deno.test("Destination lets the last JOIN alone wait for what is landing, and closes the others at once", async () => {
  const landMs = 5_000;
  await using run = new SimulatedMigration({ pageCounts: [4], destination: { paceMs: landMs } });
  const ends = run.destination.run();
  const id = crypto.getRandomValues(new Uint8Array(16));
  using source = await scriptedSource(run, { id });
  source.everything();
  await run.clock.sleep(100);
  const landedAtMs = run.clock.now() + landMs - 200;
  const joining: Connection[] = [];
  for (let attempt = 1; attempt <= 20; attempt++) {
    const connection = await dialAs(run, { kind: JOIN, id, psk: source.joinKey });
    connection.send({ type: "RESUME", attempt, lanes: [{ lane: 0, sequence: 0 }] });
    await connection.outbox.drained();
    joining.push(connection);
  }
  const last = joining.pop()!;
  for (const connection of joining) assert.equal(await answerTo(connection, run), null);
  assert.ok(run.clock.now() < landedAtMs);
  assert.equal(await answerTo(last, run), "HAVE");
  assert.ok(run.clock.now() >= landedAtMs);
  for (const connection of [...joining, last]) connection[Symbol.dispose]();
  run.stopDestination.abort();
  await ends;
});
