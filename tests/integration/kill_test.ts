/**
 * SIGKILL of either agent and of either QEMU at a few moments: one copy runs at most, and never a stale one.
 */

import assert from "node:assert/strict";
import { examineHeartbeats, parseHeartbeats } from "../../cli/guest/heartbeat.ts";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { until } from "../support/patience.ts";
import { qemuTest } from "../support/qemu.ts";
import { WatchedVm } from "../support/watched_vm.ts";

/** Who dies when, and how everybody else ends. */
interface Death {
  victim: "send" | "receive" | "source" | "destination";
  hold: { side: "send" | "receive"; state: string };
  /** Exit codes; null of the one that was killed. */
  codes: { send: number | null; receive: number | null };
  /** Run states at the end. */
  source: string;
  destination: string;
  /** Last line of each journal. */
  journals: { source: string; destination: string };
}

const deaths: readonly Death[] = [
  {
    victim: "send",
    hold: { side: "send", state: "setup" },
    codes: { send: null, receive: 1 },
    source: "running",
    destination: "inmigrate",
    journals: { source: "open", destination: "" },
  },
  {
    victim: "send",
    hold: { side: "send", state: "stopping" },
    codes: { send: null, receive: 1 },
    source: "running",
    destination: "gone",
    journals: { source: "open", destination: "discarded" },
  },
  {
    victim: "send",
    hold: { side: "send", state: "releasing" },
    codes: { send: null, receive: 5 },
    source: "running",
    destination: "paused",
    journals: { source: "open", destination: "loaded" },
  },
  {
    victim: "send",
    hold: { side: "send", state: "released" },
    codes: { send: null, receive: 5 },
    source: "postmigrate",
    destination: "paused",
    journals: { source: "released", destination: "loaded" },
  },
  {
    victim: "receive",
    hold: { side: "receive", state: "loading" },
    codes: { send: 1, receive: null },
    source: "running",
    destination: "gone",
    journals: { source: "aborted", destination: "open" },
  },
  {
    victim: "receive",
    hold: { side: "receive", state: "loaded" },
    codes: { send: 1, receive: null },
    source: "running",
    destination: "paused",
    journals: { source: "aborted", destination: "loaded" },
  },
  {
    victim: "receive",
    hold: { side: "receive", state: "taking" },
    codes: { send: 5, receive: null },
    source: "postmigrate",
    destination: "paused",
    journals: { source: "released", destination: "loaded" },
  },
  {
    victim: "receive",
    hold: { side: "receive", state: "running" },
    codes: { send: 5, receive: null },
    source: "postmigrate",
    destination: "running",
    journals: { source: "released", destination: "running" },
  },
  {
    victim: "source",
    hold: { side: "send", state: "copying" },
    codes: { send: 5, receive: 1 },
    source: "gone",
    destination: "gone",
    journals: { source: "aborted", destination: "discarded" },
  },
  {
    victim: "source",
    hold: { side: "send", state: "releasing" },
    codes: { send: 0, receive: 0 },
    source: "gone",
    destination: "running",
    journals: { source: "done", destination: "running" },
  },
  {
    victim: "destination",
    hold: { side: "receive", state: "receiving" },
    codes: { send: 1, receive: 1 },
    source: "running",
    destination: "gone",
    journals: { source: "aborted", destination: "discarded" },
  },
  {
    victim: "destination",
    hold: { side: "send", state: "releasing" },
    codes: { send: 1, receive: 1 },
    source: "running",
    destination: "gone",
    journals: { source: "aborted", destination: "discarded" },
  },
  {
    victim: "destination",
    hold: { side: "receive", state: "taking" },
    codes: { send: 1, receive: 1 },
    source: "running",
    destination: "gone",
    journals: { source: "aborted", destination: "discarded" },
  },
];

const names = {
  send: "send",
  receive: "receive",
  source: "the source's QEMU",
  destination: "the destination's QEMU",
} as const;

for (const death of deaths) {
  const { victim, hold, source, destination } = death;
  qemuTest(
    `killing ${
      names[victim]
    } while ${hold.side} is at ${hold.state} leaves the source ${source} and the destination ${destination}`,
    () => kill(death),
  );
}

async function kill({ victim, hold, codes, journals, ...expected }: Death): Promise<void> {
  await using hosts = await MigrationHosts.make();
  const vm = { guest: { bootSector: await hosts.bootSector() }, memoryMiB: 64, name: "small" };
  await using source = await WatchedVm.start(vm);
  await source.moreBeats(5);
  await using destination = await WatchedVm.start({ ...vm, incoming: "defer" });
  const holdAt = (side: string) => hold.side === side ? { hold: [hold.state] } : {};
  const { agent: receive, port } = await hosts.receive(destination, holdAt("receive"));
  const send = hosts.send(source, port, {
    ...holdAt("send"),
    args: ["--max-stop", "60s", "--reconnect", "3s"],
  });
  const held = hold.side === "send" ? send : receive;
  if (await held.line("held", hold.state) === null) assert.fail((await held.ended).stderr);

  if (victim === "send") send.signal("SIGKILL");
  else if (victim === "receive") receive.signal("SIGKILL");
  else await (victim === "source" ? source : destination).process.kill();
  // Who is held goes on, having noticed or not.
  if (victim !== hold.side) await held.go();
  if (expected.destination === "inmigrate") {
    // Nothing is bound yet: it listens on until it is told to end.
    await until("the lost connection", () => receive.lines.some(({ type }) => type === "note"));
    assert.equal(await destination.status(), "inmigrate");
    receive.signal("SIGINT");
  }
  const [sent, received] = await Promise.all([send.ended, receive.ended]);
  const said = `${sent.stderr}\n${received.stderr}`;
  if (codes.send !== null) assert.equal(sent.code, codes.send, said);
  if (codes.receive !== null) assert.equal(received.code, codes.receive, said);

  const states = async () => [await source.status(), await destination.status()];
  await until(
    `${expected.source} and ${expected.destination}`,
    async () => (await states()).join() === [expected.source, expected.destination].join(),
  );
  const id = hosts.lastId("source");
  assert.equal(hosts.journal("source", id).at(-1) ?? "", journals.source);
  assert.equal(hosts.journal("destination", id).at(-1) ?? "", journals.destination);
  // The source ran on, or its memory went over whole: what runs has never lost a beat.
  const runsThere = expected.destination === "running";
  assert.equal(destination.hasRun, runsThere);
  if (runsThere) await destination.moreBeats(5);
  if (expected.source === "running") await source.moreBeats(5);
  assert.deepEqual(await states(), [expected.source, expected.destination]);
  const beats = [
    ...source.process.serial(0),
    ...(runsThere ? destination.process.serial(0) : []),
  ];
  assert.deepEqual(examineHeartbeats(parseHeartbeats(beats)).breaks, []);
}
