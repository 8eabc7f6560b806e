/**
 * A script's whole migration: both ends in one process, between two real QEMUs.
 *
 * @module
 */

import assert from "node:assert/strict";
import { examineHeartbeats, parseHeartbeats } from "../../cli/guest/heartbeat.ts";
import {
  type CipherSuite,
  defaultRegistry,
  definePolicy,
  migrate,
  MigrationError,
  nodeCryptoSuites,
  receive,
} from "../../mod.ts";
import { compareRam, GuestRam } from "../support/guest_ram.ts";
import { qemuTest } from "../support/qemu.ts";
import { VmPair } from "../support/vm_pair.ts";

// Stays open for the life of the process: opened here, it is no leak of the first test.
defaultRegistry();

/** Below 64 KiB the guest has its stack and the firmware its data: both change while it runs. */
const FIRST_STILL_PAGE = 16;

const own: CipherSuite = { ...nodeCryptoSuites()[0]!, id: "example.com/own" };

const policy = definePolicy({
  name: "script",
  levels: {
    ordinary: { suites: ["aes-256-gcm"] },
    payment: { suites: ["example.com/own"], classes: { kernelText: ["aes-256-gcm"] } },
  },
  select: ({ name, labels }) => name === "pair" && labels.includes("pci") ? "payment" : "ordinary",
});

qemuTest(
  "migrate() and receive() move a VM in one process, by a policy and a suite of its own",
  async () => {
    // Nothing is dirtied: what is compared afterwards is what was moved.
    await using pair = await VmPair.bootSectors({ dirtyMiBPerSecond: 0, workingSetMiB: 4 });
    const { hosts, source, destination } = pair;
    const states: string[] = [];
    const rounds: number[] = [];
    const receiving = await receive({
      qmp: destination.process.qmpPaths[0]!,
      listen: "127.0.0.1:0",
      allow: [hosts.a.key],
      stateDir: hosts.b.stateDir,
      policy,
      sensitivity: "payment",
      suites: [own],
      onState: (state) => states.push(state),
    });
    assert.equal(receiving.landing, "mapped");
    const sent = await migrate({
      qmp: source.process.qmpPaths[0]!,
      to: receiving.address,
      peer: hosts.b.key,
      stateDir: hosts.a.stateDir,
      policy,
      labels: ["pci"],
      suites: [own],
      keepSource: true,
      maxStopMs: 60_000,
      onRound: ({ round }) => rounds.push(round),
    });
    const received = await receiving.result;
    for (const { outcome, error, suites, vm } of [sent, received]) {
      assert.deepEqual([outcome, error], ["completed", null]);
      assert.equal(suites?.user, own.id);
      assert.equal(suites?.kernelText, "aes-256-gcm");
      assert.equal(vm.sensitivity, "payment");
    }
    assert.deepEqual([sent.sourceState, sent.destinationState], ["postmigrate", "running"]);
    assert.equal(states.at(-1), "running");
    assert.equal(rounds[0], 0);
    assert.deepEqual(hosts.journal("source", sent.id), ["open", "releasing", "released", "done"]);

    using ram = await GuestRam.open(source, "memfd");
    using otherRam = await GuestRam.open(destination, "memfd");
    const { differing, comparedBytes } = await compareRam(ram, otherRam);
    assert.deepEqual(differing.filter((page) => page >= FIRST_STILL_PAGE), []);
    assert.ok(comparedBytes >= 4 * 2 ** 20);
    await destination.moreBeats(5);
    const beats = parseHeartbeats([...source.process.serial(0), ...destination.process.serial(0)]);
    assert.deepEqual(examineHeartbeats(beats).breaks, []);
    await hosts.checkClean();
  },
);

qemuTest(
  "migrate() says no, or is told to end, and leaves the VM and nothing else behind",
  async () => {
    await using pair = await VmPair.bootSectors();
    const { hosts, source, destination } = pair;
    const settings = await source.settings();
    const common = {
      qmp: source.process.qmpPaths[0]!,
      peer: hosts.b.key,
      stateDir: hosts.a.stateDir,
    };
    await assert.rejects(migrate({ ...common, to: "nowhere" }), (error) => {
      assert.ok(error instanceof MigrationError && error.code === "usage");
      return true;
    });
    const stop = new AbortController();
    const receiving = await receive({
      qmp: destination.process.qmpPaths[0]!,
      listen: "127.0.0.1:0",
      allow: [hosts.a.key],
      stateDir: hosts.b.stateDir,
      policy,
      sensitivity: "payment",
      suites: [own],
      signal: stop.signal,
    });
    const refused = await migrate({ ...common, to: receiving.address, policy, suites: [own] });
    assert.equal(refused.outcome, "refused");
    assert.match(refused.error?.message ?? "", /the VM's sensitivity is ordinary/);
    // Nobody came: the destination is told to end.
    stop.abort();
    const { outcome, destinationState } = await receiving.result;
    assert.deepEqual([outcome, destinationState], ["aborted", null]);
    assert.deepEqual(await source.settings(), settings);
    assert.deepEqual([await source.status(), await destination.status()], ["running", "inmigrate"]);
    await hosts.checkClean();
  },
);
