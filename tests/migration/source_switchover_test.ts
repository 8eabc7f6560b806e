/**
 * The source's side of the switchover on its own: what is written, done to QEMU and said, in which order. What two
 * agents make of it is in `source_destination_test.ts` and its neighbours.
 */

import assert from "node:assert/strict";
import { MigrationError } from "../../migration/errors.ts";
import type { Message } from "../../migration/messages.ts";
import type { SourceVm } from "../../migration/ports.ts";
import { SourceDialogue } from "../../migration/source_dialogue.ts";
import { SourceJournal } from "../../migration/source_journal.ts";
import { SourceSteps } from "../../migration/source_steps.ts";
import { SourceSwitchover } from "../../migration/source_switchover.ts";
import { StopBudget } from "../../migration/stop_budget.ts";
import { TamperAlarm } from "../../migration/tamper_alarm.ts";
import { Waiter } from "../../migration/waiter.ts";
import { Whereabouts } from "../../migration/whereabouts.ts";
import { HandClock } from "../support/hand_clock.ts";
import { MemoryJournals } from "../support/memory_journal.ts";
import { usualLimits } from "../support/simulated_migration.ts";

const loaded = { type: "LOADED", pages: 3, records: 4 } as const;
const running = {
  type: "RUNNING",
  sinceResumeUs: 500,
  cpuMs: { agent: 1, qemu: null },
} as const;

/** Whatever hangs on promises that are resolved has happened. */
const settled = () => new Promise((resolve) => setTimeout(resolve));

/** A source that has read its VM to the end; `answers` is what the destination says to each message. */
async function world(options: {
  answers?: Partial<Record<Message["type"], Message>>;
  /** Messages that it does not answer. */
  silent?: Message["type"][];
  /** How SHUT(0) ends. */
  end?: "stopped" | "gone" | "resumed";
  /** A line that the disk does not take. */
  diskFails?: string;
} = {}) {
  const { end = "stopped", diskFails, silent = [] } = options;
  const answers: Partial<Record<Message["type"], Message>> = {
    FINISH: loaded,
    RELEASE: running,
    ...options.answers,
  };
  const did: string[] = [];
  const clock = new HandClock();
  const waiter = new Waiter();
  const whereabouts = new Whereabouts();
  const journal = new SourceJournal({ clock, damage: () => ({ mistakes: 0, hits: [] }) });
  const states = ["open", "releasing", "released"];
  const journals = new MemoryJournals({
    fails: (append) => diskFails !== undefined && states[append] === diskFails,
    onLine: ({ state }) => did.push(`journal ${state}`),
  });
  await journal.begin(journals, { id: "a", facts: {} });
  const budget = new StopBudget({ clock, maxStopMs: 500, giveUp: (why) => waiter.interrupt(why) });
  const released = () => journal.released;
  const steps = new SourceSteps({ entered: undefined, budget, released });
  for (const state of ["offering", "starting", "setup", "copying", "stopping"] as const) {
    await steps.enter(state);
  }
  budget.begin(clock.now());
  const dialogue: SourceDialogue = new SourceDialogue({
    clock,
    state: () => steps.state,
    send: (message) => {
      did.push(message.type);
      const answer = answers[message.type];
      if (answer === undefined || silent.includes(message.type)) return;
      queueMicrotask(() => {
        dialogue.hear(answer);
        waiter.wake();
      });
    },
    finish: () => ({ lanes: [], records: 4, pages: 3, damaged: { count: 0, sha256: "" } }),
    giveUp: (reason) => waiter.interrupt(reason),
  });
  const vm: Pick<
    SourceVm,
    "before" | "counters" | "release" | "status" | "resume" | "quit" | "cpuSeconds"
  > = {
    before: "running",
    counters: () => Promise.resolve({ dirtySyncCount: 1, normal: 2, duplicate: 3 }),
    release: () => Promise.resolve(did.push("SHUT(0)")).then(() => end),
    status: () => Promise.resolve(end === "gone" ? "gone" : "postmigrate"),
    resume: () => Promise.resolve(did.push("cont")).then(() => {}),
    quit: () => Promise.resolve(did.push("quit")).then(() => {}),
    cpuSeconds: () => 9,
  };
  const switchover = new SourceSwitchover({
    options: {
      vm: vm as SourceVm,
      clock,
      limits: usualLimits,
      signal: new AbortController().signal,
    },
    waiter,
    steps,
    journal,
    budget,
    alarm: new TamperAlarm({
      clock,
      damaged: () => [],
      repair: { alarm: null, exhausted: false, goOn: () => {} },
      flush: () => {},
      released,
      onTamper: () => {},
      askTamper: undefined,
      giveUp: () => assert.fail("no alarm"),
      answered: () => {},
    }),
    link: { connected: true, vmReleased: () => {} },
    dialogue,
    whereabouts,
  });
  return { did, clock, waiter, whereabouts, dialogue, steps, switchover };
}

Deno.test("SourceSwitchover.handOver() lets go of the VM in the protocol's order", async () => {
  const { did, clock, whereabouts, steps, switchover } = await world();
  await switchover.handOver();
  assert.deepEqual(did, [
    "journal open",
    "FINISH",
    "journal releasing",
    "SHUT(0)",
    "journal released",
    "RELEASE",
    "journal done",
    "DONE",
    "quit",
  ]);
  assert.equal(steps.state, "done");
  assert.deepEqual([whereabouts.source, whereabouts.destination], ["quit", "running"]);
  assert.equal(switchover.qemuSeconds, 9);
  assert.equal(clock.pending, 0);
});

Deno.test("SourceSwitchover.handOver() says no RELEASE without its line: DISCARD, DISCARDED, then `cont`", async () => {
  const { did, whereabouts, steps, switchover } = await world({
    answers: { DISCARD: { type: "DISCARDED" } },
    diskFails: "released",
  });
  await assert.rejects(switchover.handOver(), { code: "journal" });
  assert.deepEqual(did.slice(2), [
    "journal releasing",
    "SHUT(0)",
    "DISCARD",
    "cont",
    "journal aborted",
  ]);
  assert.equal(steps.state, "aborted");
  assert.deepEqual([whereabouts.source, whereabouts.destination], ["running", "discarded"]);
});

Deno.test("SourceSwitchover.handOver() takes the VM back from a destination that cannot run it", async () => {
  const { did, steps, switchover } = await world({
    answers: {
      RELEASE: { type: "ABORT", code: "cannotRun", text: "no disk" },
      DISCARD: { type: "DISCARDED" },
    },
  });
  await assert.rejects(switchover.handOver(), /Cannot run the VM at the destination: no disk/);
  assert.deepEqual(did.slice(-4), ["RELEASE", "DISCARD", "cont", "journal aborted"]);
  assert.equal(steps.state, "aborted");
});

Deno.test("SourceSwitchover.handOver() can still be aborted when QEMU runs again after SHUT(0)", async () => {
  const { did, steps, switchover } = await world({ end: "resumed" });
  await assert.rejects(switchover.handOver(), /it runs again at the source/);
  assert.equal(did.at(-1), "SHUT(0)");
  assert.equal(steps.state, "releasing");
});

Deno.test("SourceSwitchover.handOver() goes forward when QEMU dies before SHUT(0)", async () => {
  const { did, clock, waiter, whereabouts, dialogue, steps, switchover } = await world({
    silent: ["FINISH"],
  });
  const handingOver = switchover.handOver();
  await settled();
  assert.deepEqual(did.splice(0), ["journal open", "FINISH"]);
  assert.equal(clock.pending, 1);
  whereabouts.gone = true;
  waiter.wake();
  await settled();
  // It can never run here again: --max-stop is over, and only the destination's word is waited for.
  assert.deepEqual(did.splice(0), ["journal released"]);
  assert.equal(clock.pending, 0);
  dialogue.hear(loaded);
  waiter.wake();
  await handingOver;
  assert.deepEqual(did, ["RELEASE", "journal done", "DONE"]);
  assert.equal(steps.state, "done");
  assert.equal(whereabouts.source, "gone");
});

Deno.test("SourceSwitchover.giveUp() ends the waiting for RUNNING, with the outcome unknown", async () => {
  const { waiter, steps, switchover } = await world({ silent: ["RELEASE"] });
  const handingOver = assert.rejects(switchover.handOver(), { code: "unknownOutcome" });
  await settled();
  assert.equal(steps.state, "released");
  switchover.giveUp(new MigrationError("interrupted", "Cannot go on: Ctrl-C"));
  waiter.wake();
  await handingOver;
  assert.equal(steps.state, "unknown");
});
