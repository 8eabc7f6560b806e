/**
 * Ctrl-C at each state of either side: where the VM is then, and what is left behind.
 */

import assert from "node:assert/strict";
import type { AgentEnd, AgentProcess } from "../../cli/demo/agent_process.ts";
import { examineHeartbeats, parseHeartbeats } from "../../cli/guest/heartbeat.ts";
import type { QemuOptions } from "../../cli/guest/qemu_arguments.ts";
import { MigrationHosts, type Receiver } from "../support/migration_hosts.ts";
import { until } from "../support/patience.ts";
import { qemuTest } from "../support/qemu.ts";
import { WatchedVm } from "../support/watched_vm.ts";

/** The promise is one second; a machine that is busy with other things takes longer. */
const RESUME_LIMIT_MS = 5_000;

/** QEMU's settings as an owner may have made them: none is QEMU's own default, none what a migration sets. */
const OWN_SETTINGS = {
  "max-bandwidth": 33 * 1024 * 1024,
  "downtime-limit": 77,
  "cpu-throttle-initial": 21,
  "announce-rounds": 3,
};

async function smallVm(hosts: MigrationHosts): Promise<QemuOptions> {
  return { guest: { bootSector: await hosts.bootSector() }, memoryMiB: 64, name: "small" };
}

/** Sends SIGINT. @returns how to ask for the milliseconds from then until QEMU says that its VM ran again */
function interrupt(agent: AgentProcess): { resumedAfterMs: (vm: WatchedVm) => number | null } {
  const [wallMs, atMs] = [Date.now(), performance.now()];
  agent.signal("SIGINT");
  return {
    resumedAfterMs: ({ events }) => {
      const resume = events.find((it) => it.name === "RESUME" && it.receivedMs >= atMs);
      return resume === undefined ? null : resume.hostTimeMs! - wallMs;
    },
  };
}

const stoppedStates = ["stopping", "finishing", "releasing"] as const;
/** Nothing has reached the destination's QEMU: `receive` goes on listening. */
const untouchedStates = ["connecting", "offering", "starting", "setup"] as const;
const sourceStates = [...untouchedStates, "copying", ...stoppedStates] as const;

qemuTest(
  "Ctrl-C at any state before SHUT leaves the VM running at the source within a second, and nothing else",
  async () => {
    await using hosts = await MigrationHosts.make();
    const vm = await smallVm(hosts);
    await using source = await WatchedVm.start(vm);
    await source.qmp.execute("migrate-set-parameters", OWN_SETTINGS);
    await source.moreBeats(5);
    const settings = await source.settings();
    const holdings = source.holdings();
    source.startAsking();
    const figures: string[] = [];
    let destination: WatchedVm | null = null;
    try {
      let receiver: Receiver | null = null;
      for (const state of sourceStates) {
        destination ??= await WatchedVm.start({ ...vm, incoming: "defer" });
        const waiting = await destination.settings();
        receiver ??= await hosts.receive(destination);
        // Until a destination answers: one that takes the connection and says nothing.
        using mute = Deno.listen({ hostname: "127.0.0.1", port: 0 });
        const isMute = state === "connecting";
        const send = hosts.send(source, isMute ? mute.addr.port : receiver.port, {
          hold: [state],
        });
        using _conn = isMute ? await mute.accept() : null;
        if (!isMute) await heldAt(send, state);
        const isStopped = stoppedStates.some((it) => it === state);
        // Its events say so: a QEMU that waits for somebody to read END does not answer.
        if (isStopped) await until(`stopped at ${state}`, () => source.isStopped);

        const { resumedAfterMs } = interrupt(send);
        const atMs = performance.now();
        await until(
          `running after ${state}`,
          async () => await source.status() === "running" && !await source.isMigrating(),
        );
        const seenAfterMs = performance.now() - atMs;
        const resumedMs = resumedAfterMs(source);
        assert.equal(resumedMs !== null, isStopped, state);
        figures.push(`${state} ${(resumedMs ?? seenAfterMs).toFixed(0)} ms`);
        assert.ok((resumedMs ?? seenAfterMs) < RESUME_LIMIT_MS, figures.join(", "));

        const { code, report, stderr } = await send.ended;
        assert.equal(code, 1, `${state}: ${stderr}`);
        assert.equal(report?.outcome, "aborted");
        assert.equal(report?.error?.code, "interrupted");
        assert.equal(report?.sourceState, "running");
        const isEarly = state === "connecting" || state === "offering";
        assert.deepEqual(
          hosts.journal("source", report?.id).at(-1),
          isEarly ? undefined : "aborted",
        );
        await source.moreBeats(5);
        assert.deepEqual(await source.settings(), settings, state);
        assert.equal(source.holdings().descriptors, holdings.descriptors, state);
        if (untouchedStates.some((it) => it === state)) {
          assert.equal(await destination.status(), "inmigrate", state);
          assert.deepEqual(await destination.settings(), waiting, state);
          continue;
        }
        const received: AgentEnd = await receiver.agent.ended;
        assert.equal(received.code, 1, `${state}: ${received.stderr}`);
        assert.equal(received.report?.destinationState, "discarded", state);
        assert.deepEqual(hosts.journal("destination", received.report?.id).at(-1), "discarded");
        assert.equal(await destination.status(), "gone", state);
        assert.equal(destination.hasRun, false, state);
        await hosts.checkClean();
        await destination[Symbol.asyncDispose]();
        destination = receiver = null;
      }
      console.log(`VM runs again after Ctrl-C: ${figures.join(", ")}`);

      // And it still can be moved.
      destination = await WatchedVm.start({ ...vm, incoming: "defer" });
      receiver = await hosts.receive(destination);
      const sent = await hosts.send(source, receiver.port).ended;
      assert.equal(sent.code, 0, sent.stderr);
      assert.equal((await receiver.agent.ended).code, 0);
      assert.ok(await source.stopAsking() > 0);
      await destination.moreBeats(5);
      const beats = [...source.process.serial(0), ...destination.process.serial(0)];
      assert.deepEqual(examineHeartbeats(parseHeartbeats(beats)).breaks, []);
      await hosts.checkClean();
    } finally {
      await destination?.[Symbol.asyncDispose]();
    }
  },
);

/** What becomes of both sides when `receive` gets Ctrl-C. */
interface ReceiverCase {
  /** Where which agent is held; the other one goes on as far as it can. */
  hold: { side: "send" | "receive"; state: string };
  codes: { send: number; receive: number };
  source: "running" | "gone";
  destination: "gone" | "paused" | "running";
  journals: { source: string; destination: string };
}

const receiverCases: readonly ReceiverCase[] = [
  {
    hold: { side: "receive", state: "receiving" },
    codes: { send: 1, receive: 1 },
    source: "running",
    destination: "gone",
    journals: { source: "aborted", destination: "discarded" },
  },
  {
    hold: { side: "receive", state: "loading" },
    codes: { send: 1, receive: 1 },
    source: "running",
    destination: "gone",
    journals: { source: "aborted", destination: "discarded" },
  },
  {
    // `receive` waits for RELEASE in `loaded`: what it has may be the only copy, or a stale one.
    hold: { side: "send", state: "releasing" },
    codes: { send: 1, receive: 5 },
    source: "running",
    destination: "paused",
    journals: { source: "aborted", destination: "loaded" },
  },
  {
    hold: { side: "receive", state: "taking" },
    codes: { send: 0, receive: 0 },
    source: "gone",
    destination: "running",
    journals: { source: "done", destination: "running" },
  },
  {
    hold: { side: "receive", state: "running" },
    codes: { send: 0, receive: 0 },
    source: "gone",
    destination: "running",
    journals: { source: "done", destination: "running" },
  },
];

for (const expected of receiverCases) {
  const { hold, codes } = expected;
  qemuTest(
    `Ctrl-C to receive while ${hold.side} is at ${hold.state} ends it with ${codes.receive}, and the source is ${expected.source}`,
    () => interruptReceiver(expected),
  );
}

async function interruptReceiver(expected: ReceiverCase): Promise<void> {
  const { hold, codes, journals } = expected;
  await using hosts = await MigrationHosts.make();
  const vm = await smallVm(hosts);
  await using source = await WatchedVm.start(vm);
  await source.qmp.execute("migrate-set-parameters", OWN_SETTINGS);
  await source.moreBeats(5);
  const settings = await source.settings();
  await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
  const holdAt = (side: string) => hold.side === side ? { hold: [hold.state] } : {};
  const { agent: receive, port } = await hosts.receive(destination, holdAt("receive"));
  const send = hosts.send(source, port, { ...holdAt("send"), args: ["--max-stop", "10s"] });
  await heldAt(hold.side === "send" ? send : receive, hold.state);
  // From its first byte on the destination's QEMU cannot wait for another migration.
  await until("an incoming migration", () => destination.hasIncoming());

  receive.signal("SIGINT");
  const received = await receive.ended;
  if (hold.side === "send") await send.go();
  const sent = await send.ended;
  assert.deepEqual({ send: sent.code, receive: received.code }, codes, sent.stderr);
  assert.equal(await source.status(), expected.source);
  assert.equal(await destination.status(), expected.destination);
  const id = received.report?.id;
  assert.equal(hosts.journal("source", id).at(-1), journals.source);
  assert.equal(hosts.journal("destination", id).at(-1), journals.destination);
  await hosts.checkClean();
  const runsHere = expected.source === "running";
  assert.equal(destination.hasRun, !runsHere);
  await (runsHere ? source : destination).moreBeats(5);
  if (runsHere) assert.deepEqual(await source.settings(), settings);
  const beats = [
    ...source.process.serial(0),
    ...(runsHere ? [] : destination.process.serial(0)),
  ];
  assert.deepEqual(examineHeartbeats(parseHeartbeats(beats)).breaks, []);
}

qemuTest("Ctrl-C to a receive that only listens leaves its QEMU as it was", async () => {
  await using hosts = await MigrationHosts.make();
  await using destination = await WatchedVm.start({ ...await smallVm(hosts), incoming: "defer" });
  const [settings, holdings] = [await destination.settings(), destination.holdings()];
  const { agent } = await hosts.receive(destination);
  agent.signal("SIGINT");
  const { code, report } = await agent.ended;
  assert.deepEqual([code, report?.outcome, report?.id], [1, "aborted", null]);
  assert.equal(await destination.status(), "inmigrate");
  assert.deepEqual(await destination.settings(), settings);
  assert.equal(destination.holdings().descriptors, holdings.descriptors);
  await hosts.checkClean();
});

qemuTest(
  "Ctrl-C ends a send whose QEMU hangs, and recover settles it when that goes on",
  async () => {
    await using hosts = await MigrationHosts.make();
    const vm = await smallVm(hosts);
    await using source = await WatchedVm.start(vm);
    await source.moreBeats(5);
    await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
    const receiver = await hosts.receive(destination);
    const send = hosts.send(source, receiver.port, { hold: ["copying"] });
    await heldAt(send, "copying");
    Deno.kill(source.process.pid, "SIGSTOP");
    send.signal("SIGINT");
    const { code, stderr, report } = await send.ended;
    assert.equal(code, 5, stderr);
    assert.match(stderr, /the source's QEMU hangs while it takes the VM back/);
    assert.deepEqual(hosts.journal("source", report?.id), ["open"]);
    Deno.kill(source.process.pid, "SIGCONT");
    await until("running", async () => await source.status() === "running");
    const recovered = await hosts.recover("source", {
      args: ["--to", `127.0.0.1:${receiver.port}`],
    }).ended;
    assert.equal(recovered.code, 0, recovered.stderr);
    assert.equal((await receiver.agent.ended).code, 1);
    await source.moreBeats(5);
    assert.equal(await destination.status(), "gone");
    assert.equal(destination.hasRun, false);
    await hosts.checkClean();
  },
);

async function heldAt(agent: AgentProcess, state: string): Promise<void> {
  if (await agent.line("held", state) === null) {
    assert.fail(`not held at ${state}: ${(await agent.ended).stderr}`);
  }
}
