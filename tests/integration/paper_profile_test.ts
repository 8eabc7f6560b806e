/**
 * The lab profile between two real QEMUs: each of its suites, damage on its wire, and that nobody gets it unasked.
 *
 * @module
 */

import assert from "node:assert/strict";
import { AgentProcess } from "../../cli/demo/agent_process.ts";
import { paperSuiteIds } from "../../ciphers/paper_suites.ts";
import { PAGE_BYTES, RECORD_HEADER_BYTES } from "../../migration/limits.ts";
import { recordTypes } from "../../migration/record.ts";
import {
  EditingRelay,
  type FrameEdit,
  RECORD_AT,
  recordHeaderOf,
} from "../support/editing_relay.ts";
import { qemuTest } from "../support/qemu.ts";
import { endReceive, VmPair } from "../support/vm_pair.ts";

const paper = ["--profile", "paper"];

for (const suite of paperSuiteIds) {
  qemuTest(`a VM arrives byte-identical under the paper's suite ${suite}`, async () => {
    await using pair = await VmPair.bootSectors();
    const receiver = await pair.receive(...paper);
    const { sent, received } = await pair.move(receiver, { args: [...paper, "--cipher", suite] });
    for (const { report, stderr } of [sent, received]) {
      assert.equal(report?.profile, "paper");
      assert.equal(report?.suite, suite);
      assert.match(stderr, /^warning: the paper's profile is for the lab/m);
      assert.match(report?.warnings.join("\n") ?? "", /the paper's profile is for the lab/);
    }
    assert.equal(sent.report?.mistakes.detected, 0);
    await pair.hosts.checkClean();
  });
}

/** Plaintext of a lab record: behind its header and its time. */
const PLAINTEXT_AT = RECORD_AT + RECORD_HEADER_BYTES + 8;

/** Flips a bit inside a page of the first record that has pages; `pagesOf` says how many it had. */
function flipInPage(): { edit: FrameEdit; pages: () => number } {
  let pages = 0;
  return {
    pages: () => pages,
    edit(frame) {
      if (pages > 0 || recordHeaderOf(frame) === null) return;
      if (frame[PLAINTEXT_AT] !== recordTypes.pages) return;
      pages = frame[PLAINTEXT_AT + 2]!;
      // Type, block, count and the list of pages; the flag of the first page; half of it.
      const at = PLAINTEXT_AT + 3 + 4 * pages + 1 + PAGE_BYTES / 2;
      frame[at] = frame[at]! ^ 0x10;
    },
  };
}

qemuTest(
  "a page that is damaged in the lab is skipped, and sent again in the last round",
  async () => {
    // Nothing is dirtied: but for its mark the page would not be sent again.
    await using pair = await VmPair.bootSectors({ dirtyMiBPerSecond: 0, workingSetMiB: 4 });
    const receiver = await pair.receive(...paper);
    const { edit, pages } = flipInPage();
    await using relay = new EditingRelay(receiver.port, edit);
    const { sent, received } = await pair.move(receiver, { args: paper, port: relay.port });
    assert.ok(pages() > 0, "nothing was damaged");
    const { mistakes, rounds, reconnects } = sent.report!;
    assert.equal(mistakes.detected, 1);
    assert.equal(received.report?.mistakes.detected, 1);
    // What the firmware or the guest wrote since was sent anyway.
    assert.ok(mistakes.repaired > 0 && mistakes.repaired <= pages());
    assert.equal(reconnects, 0);
    const last = rounds!.at(-1)!;
    assert.ok(rounds!.length > 1 && last.pages.user >= mistakes.repaired);
  },
);

qemuTest("a sealed receive refuses the paper's profile, and the reverse", async () => {
  await using pair = await VmPair.bootSectors();
  for (const [receives, sends] of [[[], paper], [paper, []]] as const) {
    const receiver = await pair.receive(...receives);
    const { report } = await pair.refuse(receiver, { args: sends });
    assert.match(report?.error?.message ?? "", /the other side speaks another profile/);
    assert.match(report?.error?.hint ?? "", /the same --profile to send and receive/);
    await endReceive(receiver);
  }
});

qemuTest("the paper's profile does not leave this machine unless it is told to", async () => {
  await using pair = await VmPair.bootSectors();
  const { hosts, source, destination } = pair;
  const settings = await source.settings();
  const commands = [
    [
      ...["send", "--qmp", source.process.qmpPaths[0]!, "--to", "192.0.2.1:7900"],
      ...["--peer", hosts.b.key, "--state-dir", hosts.a.stateDir],
    ],
    [
      ...["receive", "--qmp", destination.process.qmpPaths[0]!, "--listen", "0.0.0.0:0"],
      ...["--allow", hosts.a.key, "--state-dir", hosts.b.stateDir],
    ],
  ];
  for (const command of commands) {
    await using agent = new AgentProcess([...command, ...paper]);
    const { code, report } = await agent.ended;
    assert.equal(code, 2);
    assert.match(report?.error?.message ?? "", /^Cannot use the paper's profile with \d/);
    assert.match(report?.error?.hint ?? "", /--lab-network/);
    assert.equal(report?.profile, "paper");
  }
  assert.deepEqual(await source.settings(), settings);
  assert.deepEqual([await source.status(), await destination.status()], ["running", "inmigrate"]);
});
