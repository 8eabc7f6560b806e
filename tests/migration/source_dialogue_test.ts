import assert from "node:assert/strict";
import type { MigrationError } from "../../migration/errors.ts";
import type { Message } from "../../migration/messages.ts";
import { SourceDialogue } from "../../migration/source_dialogue.ts";
import type { SourceState } from "../../migration/states.ts";
import { HandClock } from "../support/hand_clock.ts";

const loaded = { type: "LOADED", pages: 3, records: 4 } as const;
const running = {
  type: "RUNNING",
  sinceResumeUs: 500,
  cpuMs: { agent: 1, qemu: null },
} as const;
const finish = { lanes: [], pages: 5, damaged: { count: 0, sha256: "" } };
const abort = { type: "ABORT", code: "vm", text: "no memory" } as const;

function world(at: SourceState = "copying") {
  const clock = new HandClock();
  const said: Message[] = [];
  const reasons: MigrationError[] = [];
  const now = { state: at, records: 7 };
  const dialogue = new SourceDialogue({
    clock,
    state: () => now.state,
    send: (message) => said.push(message),
    finish: () => ({ ...finish, records: now.records }),
    giveUp: (reason) => reasons.push(reason),
  });
  return { clock, said, reasons, now, dialogue };
}

Deno.test("SourceDialogue.sayAgain() says what the state wants said, as things are by then", () => {
  const { said, now, dialogue } = world();
  dialogue.sayAgain();
  now.state = "finishing";
  dialogue.sayAgain();
  assert.deepEqual(said, []);
  dialogue.finish();
  now.records = 8;
  dialogue.sayAgain();
  now.state = "releasing";
  dialogue.sayAgain();
  assert.deepEqual(
    said.splice(0),
    [7, 8, 8].map((records) => ({ ...finish, type: "FINISH", records })),
  );
  now.state = "released";
  dialogue.release();
  dialogue.sayAgain();
  assert.deepEqual(said.splice(0), [{ type: "RELEASE" }, { type: "RELEASE" }]);
  // Not without a look at QEMU.
  now.state = "discarding";
  dialogue.sayAgain();
  assert.deepEqual(said, []);
});

Deno.test("SourceDialogue.sayAgain() says ABORT only once the VM is seen to be here", () => {
  const { said, dialogue } = world("aborting");
  dialogue.sayAgain();
  assert.deepEqual(said, []);
  dialogue.abort(abort);
  dialogue.sayAgain();
  assert.deepEqual(said, [abort, abort]);
});

Deno.test("SourceDialogue.hear() takes no answer before its question", () => {
  const { now, dialogue } = world("finishing");
  assert.throws(() => dialogue.hear(loaded), { code: "protocol" });
  dialogue.finish();
  assert.throws(() => dialogue.hear(running), { code: "protocol" });
  dialogue.hear(loaded);
  assert.deepEqual(dialogue.loaded, { pages: 3, records: 4 });
  now.state = "released";
  dialogue.release();
  dialogue.hear(running);
  assert.throws(() => dialogue.hear({ type: "DONE" }), { code: "protocol" });
});

Deno.test("SourceDialogue.running is of the RUNNING that came first", () => {
  const { clock, dialogue } = world("released");
  dialogue.release();
  dialogue.hear(running);
  clock.pass(10);
  dialogue.hear(running);
  assert.deepEqual(dialogue.running, { atMs: 1_000, sinceResumeUs: 500 });
});

Deno.test("SourceDialogue.hear() gives up on DISCARDED that nobody asked for, and on no other", () => {
  for (const state of ["copying", "finishing", "aborting", "discarding", "released"] as const) {
    const { reasons, dialogue } = world(state);
    dialogue.hear({ type: "DISCARDED" });
    assert.ok(dialogue.discarded);
    assert.equal(reasons.length, state === "copying" || state === "finishing" ? 1 : 0, state);
  }
});

Deno.test("SourceDialogue.takeRefusal() hands out each ABORT once", () => {
  const { reasons, dialogue } = world("released");
  dialogue.hear(abort);
  dialogue.hear({ ...abort, code: "tampering" });
  assert.deepEqual(reasons.map(({ code }) => code), ["vm", "tampering"]);
  assert.equal(dialogue.takeRefusal()?.code, "tampering");
  assert.equal(dialogue.refusal, null);
  assert.equal(dialogue.takeRefusal(), null);
});
