import assert from "node:assert/strict";
import { MigrationError } from "../../migration/errors.ts";
import { TamperAlarm, type TamperAlarmOptions } from "../../migration/tamper_alarm.ts";
import { FakeClock } from "../support/fake_clock.ts";

const alarm = new MigrationError("tampering", "Cannot send page 3");

/** An alarm of which everything is kept that it does. */
function world(options: Partial<TamperAlarmOptions> = {}) {
  const repair = {
    alarm: null as MigrationError | null,
    exhausted: false,
    goOn: () => void did.push("go on"),
  };
  const state = { released: false };
  const did: string[] = [];
  const tamper = new TamperAlarm({
    clock: new FakeClock(),
    damaged: (sequence) => [`record ${sequence}`],
    repair,
    flush: () => did.push("flush"),
    released: () => state.released,
    onTamper: (text) => did.push(text),
    askTamper: undefined,
    giveUp: (reason) => did.push(`give up: ${reason.message}`),
    answered: () => did.push("answered"),
    ...options,
  });
  return { tamper, repair, state, did };
}

Deno.test("TamperAlarm.damaged() tells what was hit, and gives up at an alarm when nobody is to be asked", () => {
  const { tamper, repair, did } = world();
  tamper.damaged(7);
  assert.deepEqual(did.splice(0), ["Damaged on the way: record 7"]);
  repair.alarm = alarm;
  tamper.damaged(8);
  assert.deepEqual(did, ["give up: Cannot send page 3"]);
});

Deno.test("TamperAlarm.damaged() asks once at a time, and does as it is told", async () => {
  for (const [answer, then] of [[true, "go on"], [false, "give up"], [null, "give up"]] as const) {
    const answers: PromiseWithResolvers<boolean>[] = [];
    const { tamper, repair, did } = world({
      onTamper: () => {},
      askTamper: (text) => {
        assert.equal(text, alarm.message);
        answers.push(Promise.withResolvers());
        return answers.at(-1)!.promise;
      },
    });
    repair.alarm = alarm;
    tamper.damaged(1);
    tamper.damaged(2);
    assert.equal(answers.length, 1);
    assert.ok(tamper.asking);
    if (answer === null) answers[0]!.reject(new Error("no terminal"));
    else answers[0]!.resolve(answer);
    await new Promise((resolve) => setTimeout(resolve));
    assert.ok(!tamper.asking);
    assert.deepEqual(
      did,
      then === "go on"
        ? ["go on", "flush", "answered"]
        : ["give up: Cannot send page 3", "answered"],
    );
    tamper.damaged(3);
    assert.equal(answers.length, 2);
  }
});

Deno.test("TamperAlarm.damaged() asks nobody when the repair budget is used up, or the VM was let go", () => {
  const askTamper = () => assert.fail("asked");
  const { tamper, repair, state, did } = world({ askTamper, onTamper: () => {} });
  repair.alarm = alarm;
  repair.exhausted = true;
  tamper.damaged(1);
  assert.deepEqual(did.splice(0), ["give up: Cannot send page 3"]);
  state.released = true;
  tamper.damaged(2);
  assert.deepEqual(did, ["go on", "flush"]);
});

Deno.test("TamperAlarm.asking is over once the VM is let go, answered or not", () => {
  const { tamper, repair, state } = world({ askTamper: () => new Promise(() => {}) });
  repair.alarm = alarm;
  tamper.damaged(1);
  assert.ok(tamper.asking);
  state.released = true;
  assert.ok(!tamper.asking);
});

Deno.test("TamperAlarm.damaged() gives up when nothing can be sealed again, and throws it once the VM was let go", () => {
  const { tamper, state, did } = world({
    damaged: () => {
      throw new Error("the device is lost");
    },
  });
  tamper.damaged(1);
  assert.deepEqual(did, ["give up: Cannot send again what was damaged: the device is lost"]);
  state.released = true;
  // The connection ends with it: nobody would notice anything else there.
  assert.throws(() => tamper.damaged(2), { name: "MigrationError", code: "vm" });
});

Deno.test("TamperAlarm.damaged() gives up when what was held cannot be sealed on the administrator's word", async () => {
  const { tamper, repair, did } = world({
    askTamper: () => Promise.resolve(true),
    onTamper: () => {},
  });
  repair.alarm = alarm;
  repair.goOn = () => {
    throw new Error("the device is lost");
  };
  tamper.damaged(1);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(did, [
    "give up: Cannot send again what was damaged: the device is lost",
    "answered",
  ]);
});

Deno.test("TamperAlarm hears no answer any more once the VM is let go", async () => {
  const answer = Promise.withResolvers<boolean>();
  const { tamper, repair, state, did } = world({
    askTamper: () => answer.promise,
    onTamper: () => {},
  });
  repair.alarm = alarm;
  tamper.damaged(1);
  state.released = true;
  answer.resolve(true);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(did, []);
});

Deno.test("TamperAlarm.damaged() throws what breaks the protocol", () => {
  const error = new MigrationError("protocol", "Cannot repair record 2");
  const { tamper, did } = world({
    damaged: () => {
      throw error;
    },
  });
  assert.throws(() => tamper.damaged(2), error);
  assert.deepEqual(did, []);
});
