import assert from "node:assert/strict";
import { Admission } from "../../migration/admission.ts";
import { Connection } from "../../migration/connection.ts";
import { FRAME_DATA, FrameReader, writeFrameHeader } from "../../migration/frame.ts";
import { MAX_HALF_OPEN } from "../../migration/limits.ts";
import { NoiseInitiator, type NoiseResult } from "../../migration/noise.ts";
import { MESSAGE_1_BYTES, MESSAGE_2_BYTES, OPEN } from "../../migration/opening.ts";
import { PROLOGUE } from "../../migration/profile.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { type LoopbackEnd, loopbackPair } from "../support/loopback.ts";
import { offerOf } from "../support/scripted_peers.ts";
import { identities, SimulatedMigration } from "../support/simulated_migration.ts";

function admission(clock: FakeClock): Admission {
  return new Admission({
    identity: identities.destination,
    allowed: [identities.source.publicKey],
    clock,
    joinKey: () => null,
    mayRecover: () => false,
  });
}

/** Message 1 of a source. */
async function message1(
  { kind = OPEN, prologue = PROLOGUE, psk = new Uint8Array(32), identity = identities.source } = {},
): Promise<{ noise: NoiseInitiator; message: Uint8Array }> {
  const noise = new NoiseInitiator({
    identity,
    remotePublic: identities.destination.publicKey,
    prologue,
    psk,
  });
  const message = await noise.writeMessage1(Uint8Array.of(kind, ...new Uint8Array(16).fill(5)));
  return { noise, message };
}

async function write(end: LoopbackEnd, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await end.write(bytes.subarray(at));
}

/** Bytes until the other side closes. */
async function readToEnd(end: LoopbackEnd): Promise<Uint8Array> {
  const bytes: number[] = [];
  const into = new Uint8Array(1_000);
  for (let count; (count = await end.read(into)) !== null;) bytes.push(...into.subarray(0, count));
  return Uint8Array.from(bytes);
}

/** The handshake as far as message 2. */
async function shake(end: LoopbackEnd): Promise<{ keys: NoiseResult; reader: FrameReader }> {
  const { noise, message } = await message1();
  await write(end, message);
  const reader = new FrameReader(end);
  return { keys: await noise.readMessage2((await reader.exactly(MESSAGE_2_BYTES))!), reader };
}

Deno.test("Admission.admit() lets in a source that proves its key and makes an offer", async () => {
  using clock = new FakeClock();
  await using run = new SimulatedMigration();
  const [there, here] = loopbackPair();
  const door = admission(clock);
  const admitted = door.admit(here);
  const { keys, reader } = await shake(there);
  const { handshakeHash } = keys;
  assert.equal(door.halfOpen, 1);
  using connection = new Connection({ transport: there, reader, keys, clock, onCut: () => {} });
  const offer = offerOf(run);
  const offerBytes = connection.send(offer);
  const result = await admitted;
  assert.ok(result?.kind === OPEN);
  using _own = result.connection;
  assert.deepEqual(result.offer, offer);
  assert.deepEqual(result.offerBytes, offerBytes);
  assert.deepEqual(result.publicKey, identities.source.publicKey);
  assert.equal(result.migrationId, "05".repeat(16));
  assert.deepEqual(result.handshakeHash, handshakeHash);
  assert.equal(door.halfOpen, 0);
  assert.equal(clock.pending, 0);
});

const strangers: Record<string, () => Promise<Uint8Array>> = {
  "another key": async () => (await message1({ identity: identities.stranger })).message,
  "another prologue": async () =>
    (await message1({ prologue: new TextEncoder().encode("sealift/2") })).message,
  "another kind of connection": async () => (await message1({ kind: 3 })).message,
  "noise": () => Promise.resolve(crypto.getRandomValues(new Uint8Array(MESSAGE_1_BYTES))),
  "zeros": () => Promise.resolve(new Uint8Array(MESSAGE_1_BYTES)),
};

for (const [what, say] of Object.entries(strangers)) {
  Deno.test(`Admission.admit() closes without a word on ${what}`, async () => {
    using clock = new FakeClock();
    const [there, here] = loopbackPair();
    const admitted = admission(clock).admit(here);
    await write(there, await say());
    assert.equal(await admitted, null);
    assert.equal((await readToEnd(there)).length, 0);
    assert.ok(here.closed);
    assert.equal(clock.pending, 0);
    there.close();
  });
}

Deno.test("Admission.admit() does not let in who replays message 1", async () => {
  using clock = new FakeClock();
  const { message } = await message1();
  const [there, here] = loopbackPair();
  const admitted = admission(clock).admit(here);
  // The recorded message 1, and then a guess at what follows.
  await write(there, message);
  const frame = new Uint8Array(8 + 40);
  writeFrameHeader(new DataView(frame.buffer), 0, 1, 40);
  await write(there, frame);
  assert.equal(await admitted, null);
  assert.equal((await readToEnd(there)).length, MESSAGE_2_BYTES);
  there.close();
});

Deno.test("Admission.admit() drops a source whose first frame is a record, or no OFFER", async () => {
  using clock = new FakeClock();
  for (const says of ["record", "DONE"] as const) {
    const [there, here] = loopbackPair();
    const admitted = admission(clock).admit(here);
    const { keys, reader } = await shake(there);
    using connection = new Connection({ transport: there, reader, keys, clock, onCut: () => {} });
    if (says === "DONE") connection.send({ type: "DONE" });
    else {
      const frame = new Uint8Array(8 + 64);
      writeFrameHeader(new DataView(frame.buffer), 0, FRAME_DATA, 64);
      connection.outbox.put(frame);
    }
    assert.equal(await admitted, null);
    assert.ok(here.closed);
  }
  assert.equal(clock.pending, 0);
});

Deno.test("Admission drops the oldest half-open connection for a new one, and each after its time", async () => {
  using clock = new FakeClock();
  const door = admission(clock);
  const ends = Array.from({ length: MAX_HALF_OPEN + 3 }, () => loopbackPair());
  const admitted = ends.map(([, here]) => door.admit(here));
  assert.equal(door.halfOpen, MAX_HALF_OPEN);
  assert.deepEqual(await Promise.all(admitted.slice(0, 3)), [null, null, null]);
  assert.deepEqual(ends.map(([, here]) => here.closed), ends.map((_, i) => i < 3));
  await Promise.all(admitted);
  assert.equal(door.halfOpen, 0);
  assert.equal(clock.pending, 0);
  for (const [there] of ends) there.close();
});

/** A source that has its answer, and has not said who it is yet. */
async function answered(door: Admission, clock: FakeClock) {
  const [there, here] = loopbackPair();
  const admitted = door.admit(here);
  const { keys, reader } = await shake(there);
  return {
    here,
    admitted,
    connection: new Connection({ transport: there, reader, keys, clock, onCut: () => {} }),
  };
}

Deno.test("Admission keeps who has said message 1 of an allowed key, however many dial behind it", async () => {
  using clock = new FakeClock();
  await using run = new SimulatedMigration();
  const door = admission(clock);
  const { admitted, connection } = await answered(door, clock);
  const ends = Array.from({ length: 3 * MAX_HALF_OPEN }, () => loopbackPair());
  const strangers = ends.map(([, here]) => door.admit(here));
  assert.equal(door.halfOpen, MAX_HALF_OPEN + 1);
  connection.send(offerOf(run));
  const result = await admitted;
  assert.ok(result?.kind === OPEN);
  door.close();
  await Promise.all(strangers);
  for (const [there] of ends) there.close();
  for (const one of [result.connection, connection]) one[Symbol.dispose]();
});

Deno.test("Admission drops the oldest of those who have said message 1 for a new one, and each after its time", async () => {
  using clock = new FakeClock();
  const door = admission(clock);
  const sources: Awaited<ReturnType<typeof answered>>[] = [];
  while (sources.length < MAX_HALF_OPEN + 3) sources.push(await answered(door, clock));
  assert.equal(door.halfOpen, MAX_HALF_OPEN);
  assert.deepEqual(sources.map(({ here }) => here.closed), sources.map((_, i) => i < 3));
  for (const { admitted } of sources) assert.equal(await admitted, null);
  assert.equal(door.halfOpen, 0);
  assert.equal(clock.pending, 0);
  for (const { connection } of sources) connection[Symbol.dispose]();
});

Deno.test("Admission answers a message 1 that comes again, and keeps it among those who have only dialled", async () => {
  using clock = new FakeClock();
  const door = admission(clock);
  const { message } = await message1();
  const ends = Array.from({ length: MAX_HALF_OPEN + 2 }, () => loopbackPair());
  const admitted: Promise<unknown>[] = [];
  for (const [there, here] of ends) {
    admitted.push(door.admit(here));
    await write(there, message);
    assert.ok(await new FrameReader(there).exactly(MESSAGE_2_BYTES));
  }
  // The first of all, whose it was first, and the last who said it again.
  assert.equal(door.halfOpen, 1 + MAX_HALF_OPEN);
  assert.equal(await admitted[1], null);
  door.close();
  for (const each of admitted) assert.equal(await each, null);
  for (const [there] of ends) there.close();
});

Deno.test("Admission.close() ends every half-open connection, and lets nobody in after it", async () => {
  using clock = new FakeClock();
  const door = admission(clock);
  const [first, second] = [loopbackPair(), loopbackPair()];
  const waiting = door.admit(first[1]);
  door.close();
  assert.equal(await waiting, null);
  assert.equal(await door.admit(second[1]), null);
  assert.ok(second[1].closed);
  assert.equal(clock.pending, 0);
});
