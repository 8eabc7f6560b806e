/**
 * Policies on both ends of real migrations: what they agree on is what protects the VM, and where they do not agree
 * nothing of it leaves the source.
 *
 * @module
 */

import assert from "node:assert/strict";
import { FRAME_HEADER_BYTES } from "../../migration/limits.ts";
import { EditingRelay } from "../support/editing_relay.ts";
import { until } from "../support/patience.ts";
import { writePolicy } from "../support/policy_file.ts";
import { qemuTest } from "../support/qemu.ts";
import { endReceive, VmPair } from "../support/vm_pair.ts";

const policies = new URL("../../scripts/policies/", import.meta.url).pathname;
const byLabel = ["--policy", `${policies}by_label.ts`];
const lab = ["--policy", `${policies}paper_user_pages.ts`];
/** A level of this name alone. */
const level = (suite: string, more: Record<string, unknown> = {}) => ({
  levels: { confidential: { suites: [suite], ...more } },
});

qemuTest("a VM goes with the level that its labels choose, and both reports say so", async () => {
  await using pair = await VmPair.bootSectors();
  const receiver = await pair.receive(...byLabel, "--sensitivity", "confidential");
  const args = [...byLabel, "--label", "pci", "--label", "web"];
  const { sent, received } = await pair.move(receiver, { args });
  for (const { report } of [sent, received]) {
    assert.equal(report?.vm?.sensitivity, "restricted");
    assert.deepEqual(new Set(Object.values(report!.suites!)), new Set(["aes-256-gcm"]));
  }
  await pair.hosts.checkClean();
});

qemuTest("a VM goes by the lab's policy where both ends are told the lab's profile", async () => {
  await using pair = await VmPair.bootSectors();
  const args = [...lab, "--profile", "paper"];
  const { sent, received } = await pair.move(await pair.receive(...args), { args });
  for (const { report } of [sent, received]) {
    assert.deepEqual([report?.profile, report?.suite], ["paper", "rc4-round"]);
    assert.equal(report?.vm?.sensitivity, "lab");
  }
});

interface Refusal {
  what: string;
  receive: readonly string[];
  send: readonly string[];
  code?: 2 | 3;
  message: RegExp;
}

qemuTest("send ends before a byte of the VM has left where the policies do not agree", async () => {
  await using pair = await VmPair.bootSectors();
  const { directory } = pair.hosts;
  const write = async (policy: Parameters<typeof writePolicy>[1]) =>
    ["--policy", await writePolicy(directory, policy)] as const;
  const gcm = await write(level("aes-256-gcm"));
  const chacha = await write(level("chacha20-poly1305"));
  const elsewhere = await write(level("aes-256-gcm", { to: ["host-c"] }));
  const textInChacha = await write(
    level("aes-256-gcm", { classes: { kernelText: ["chacha20-poly1305"] } }),
  );
  const refusals: Refusal[] = [
    {
      what: "the destination demands a higher level",
      receive: [...byLabel, "--sensitivity", "restricted"],
      send: [...byLabel, "--label", "internal"],
      message: /the destination refuses: the VM's sensitivity is internal, .* below restricted/,
    },
    {
      what: "the source demands suites that the destination's policy has not",
      receive: chacha,
      send: gcm,
      message: /the destination refuses: no cipher suite for pages of class user is acceptable/,
    },
    {
      what: "the destination demands suites that the source does not offer",
      receive: gcm,
      send: ["--cipher", "aes-128-gcm"],
      message: /the destination refuses: no cipher suite for pages of class user is acceptable/,
    },
    {
      what: "one class of pages is left without a suite",
      receive: textInChacha,
      send: gcm,
      message: /the destination refuses: no cipher suite for pages of class kernelText is/,
    },
    {
      what: "the destination does not know the level",
      receive: gcm,
      send: [...byLabel, "--label", "pci"],
      message: /the source's sensitivity restricted is no level of this side's policy test/,
    },
    {
      what: "the policy lets the VM go to others only",
      receive: gcm,
      send: elsewhere,
      message: /^Cannot move the VM: policy test lets no VM of level confidential go to /,
    },
    {
      what: "a level is of the lab, and the run is not",
      receive: [],
      send: lab,
      message:
        /^Cannot move the VM: level lab is of profile paper, and this run is of profile sealed/,
    },
    {
      what: "the destination's level is of the lab, and the run is not",
      receive: lab,
      send: [],
      message: /the destination refuses: level lab is of profile paper, and this run is of/,
    },
    {
      what: "the operator names a level that is none",
      receive: gcm,
      send: [...byLabel, "--sensitivity", "restrictd"],
      code: 2,
      message: /^Cannot use sensitivity restrictd: .*did you mean restricted/,
    },
  ];
  for (const { what, receive, send, code = 3, message } of refusals) {
    const receiver = await pair.receive(...receive);
    const { report } = await pair.refuse(receiver, { args: send, codes: [code] });
    assert.match(report?.error?.message ?? "", message, what);
    assert.notEqual(report?.error?.hint, "", what);
    await endReceive(receiver);
  }
  await pair.hosts.checkClean();
});

qemuTest("receive refuses a level that its policy has not before it listens", async () => {
  await using pair = await VmPair.bootSectors();
  const args = [...byLabel, "--sensitivity", "secret"];
  const { code, report } = await pair.hosts.receiveAnyway(pair.destination, { args }).ended;
  assert.equal(code, 2);
  assert.match(report?.error?.message ?? "", /^Cannot use sensitivity secret: policy by-label has/);
  assert.equal(await pair.destination.status(), "inmigrate");
});

qemuTest(
  "no byte of OFFER or ACCEPT can be changed, and then the policies' suite is used",
  async () => {
    await using pair = await VmPair.bootSectors();
    const policy = await writePolicy(pair.hosts.directory, {
      levels: { any: { suites: ["aes-256-gcm", "aes-128-gcm"] } },
    });
    const receiver = await pair.receive("--policy", policy);
    const options = { args: ["--policy", policy] };
    for (const direction of ["to destination", "to source"] as const) {
      // The sealed message: its length and content, here and there, and its tag.
      for (const share of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
        let changed = false;
        await using relay = new EditingRelay(receiver.port, (frame, place) => {
          if (place.direction !== direction || place.number !== 2) return;
          const last = frame.length - 1;
          const at = FRAME_HEADER_BYTES + Math.round(share * (last - FRAME_HEADER_BYTES));
          frame[at] = frame[at]! ^ 4;
          changed = true;
        });
        await pair.refuse(receiver, { ...options, port: relay.port });
        assert.ok(changed, "nothing was changed");
      }
    }
    const { sent, received } = await pair.move(receiver, options);
    for (const { report } of [sent, received]) assert.equal(report?.suite, "aes-256-gcm");
  },
);

qemuTest("the VM runs on at the source when its policy throws in a later round", async () => {
  // It writes faster than the wire carries: only the policy can end this.
  await using pair = await VmPair.bootSectors({ dirtyMiBPerSecond: 40, workingSetMiB: 8 });
  const { source, destination, hosts } = pair;
  const policy = await writePolicy(hosts.directory, {
    name: "tired",
    levels: { any: { suites: ["aes-256-gcm"] } },
    round: `({ round }) => { if (round < 2) return {}; throw new RangeError("enough of it"); }`,
  });
  const receiver = await pair.receive();
  const { code, report } = await hosts.send(source, receiver.port, {
    args: [
      ...["--policy", policy, "--max-bandwidth", "20MiB/s", "--downtime-limit", "1ms"],
      ...["--max-time", "60s"],
    ],
  }).ended;
  assert.equal(code, 1);
  assert.match(report?.error?.message ?? "", /^Cannot go on: policy tired failed: .*enough of it/);
  assert.match(report?.error?.hint ?? "", /policy check/);
  assert.ok(report!.rounds!.length > 2, `${report!.rounds!.length} rounds`);
  assert.equal(report?.sourceState, "running");
  await source.moreBeats(2);
  assert.equal((await receiver.agent.ended).code, 1);
  await until("the other copy ends", async () => await destination.status() === "gone");
  await hosts.checkClean();
});
