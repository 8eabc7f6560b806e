import assert from "node:assert/strict";
import { Heard } from "../../migration/destination_heard.ts";
import { MigrationError } from "../../migration/errors.ts";
import type { Message } from "../../migration/messages.ts";
import { type DestinationState, destinationTransitions } from "../../migration/states.ts";

const states = Object.keys(destinationTransitions) as DestinationState[];

const FINISH: Message = {
  type: "FINISH",
  lanes: [{ lane: 0, sequence: 7 }],
  pages: 4,
  records: 7,
  damaged: { count: 0, sha256: "0".repeat(64) },
};
const RELEASE: Message = { type: "RELEASE" };
const DISCARD: Message = { type: "DISCARD" };
const ABORT: Message = { type: "ABORT", code: "tampering", text: "too much was damaged" };

/** The states in which the message is answered with what the state has to say. */
function answered(message: Message): DestinationState[] {
  return states.filter((state) => {
    try {
      return new Heard().hear(message, state);
    } catch {
      return false;
    }
  });
}

Deno.test("Heard.hear() asks for the state's word again when its first may have been lost", () => {
  assert.deepEqual(answered(FINISH), ["loaded"]);
  assert.deepEqual(answered(RELEASE), ["refusing", "stuck", "running", "discarded"]);
  assert.deepEqual(answered(DISCARD), ["running", "discarded"]);
  assert.deepEqual(answered(ABORT), ["running", "discarded"]);
  assert.deepEqual(answered({ type: "DONE" }), []);
});

Deno.test("Heard.hear() takes no RELEASE before LOADED, and nothing that is a destination's to say", () => {
  for (const state of ["listening", "receiving", "loading"] as const) {
    const heard = new Heard();
    assert.throws(() => heard.hear(RELEASE, state), { code: "protocol", message: /before LOADED/ });
    assert.equal(heard.released, false);
  }
  assert.throws(() => new Heard().hear({ type: "DISCARDED" }, "loaded"), {
    code: "protocol",
    message: "Cannot go on: DISCARDED is not for a destination",
  });
});

Deno.test("Heard.hear() takes DONE for the end only while the VM runs here", () => {
  for (const state of states) {
    const heard = new Heard();
    heard.hear({ type: "DONE" }, state);
    assert.equal(heard.done, state === "running", state);
  }
});

Deno.test("Heard.hear() is not dismissed by whoever speaks to a VM that runs", () => {
  const heard = new Heard();
  heard.hear(ABORT, "running");
  assert.equal(heard.dismissed, null);
  assert.equal(heard.tampered, false);
  heard.waiter.check();
});

Deno.test("Heard.hear() interrupts what is waited for with the source's words, and remembers damage", async () => {
  const heard = new Heard();
  const waiting = heard.waiter.until(() => heard.finish);
  heard.hear(ABORT, "receiving");
  await assert.rejects(waiting, {
    code: "tampering",
    message: "Cannot go on: the source gave up: too much was damaged",
  });
  assert.equal(heard.tampered, true);
  heard.hear(DISCARD, "receiving");
  assert.equal(heard.dismissed?.code, "interrupted", "the last word counts");
  assert.throws(() => heard.waiter.check(), { code: "tampering" }, "the first one interrupts");
});

Deno.test("Heard only wakes who waits behind the shield, whatever comes", async () => {
  const lost = new MigrationError("cut", "the connection is lost");
  const ends: [name: string, tell: (heard: Heard) => void, told: (heard: Heard) => unknown][] = [
    ["stop()", (heard) => heard.stop(), (heard) => heard.stopAsked],
    ["lose()", (heard) => heard.lose(lost), (heard) => heard.lost],
    ["vmEnded()", (heard) => heard.vmEnded({ kind: "gone" }), (heard) => heard.gone],
    ["DISCARD", (heard) => heard.hear(DISCARD, "loaded"), (heard) => heard.dismissed],
    ["RELEASE", (heard) => heard.hear(RELEASE, "loaded"), (heard) => heard.released],
  ];
  for (const [name, tell, told] of ends) {
    const heard = new Heard();
    heard.waiter.shield();
    const waiting = heard.waiter.until(() => told(heard) as object | boolean | null);
    tell(heard);
    assert.ok(await waiting, name);
    heard.waiter.check();
  }
});
