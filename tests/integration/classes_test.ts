/**
 * A suite for each class of pages, on a real Linux guest: each seals its own, and none is spared the check.
 *
 * @module
 */

import assert from "node:assert/strict";
import { FRAME_HEADER_BYTES, PAGE_BYTES, RECORD_HEADER_BYTES } from "../../migration/limits.ts";
import { EditingRelay, recordHeaderOf } from "../support/editing_relay.ts";
import { writePolicy } from "../support/policy_file.ts";
import { qemuTest } from "../support/qemu.ts";
import { VmPair } from "../support/vm_pair.ts";

qemuTest("pages of each class arrive under the suite that the policy gives them", async () => {
  await using pair = await VmPair.linux();
  const policy = await writePolicy(pair.hosts.directory, {
    levels: { all: { suites: ["aes-256-gcm"], classes: { kernelText: ["aes-128-gcm"] } } },
  });
  const receiver = await pair.receive("--policy", policy);
  const { sent, received } = await pair.move(receiver, { args: ["--policy", policy] });
  const suites = {
    user: "aes-256-gcm",
    kernelText: "aes-128-gcm",
    kernelData: "aes-256-gcm",
    unmapped: "aes-256-gcm",
  };
  assert.deepEqual(sent.report?.suites, suites);
  assert.deepEqual(received.report?.suites, suites);
  const { monitor, rounds } = sent.report!;
  assert.ok(monitor!.refreshes > 1);
  const [first, ...later] = rounds!;
  for (const name of ["user", "kernelText", "kernelData"] as const) {
    assert.ok(first!.pages[name] > 256, `${first!.pages[name]} ${name}: ${monitor!.why}`);
  }
  // The guest's load writes all the time.
  assert.ok(later.some(({ pages }) => pages.user > 0));
  await pair.hosts.checkClean();
});

qemuTest("a flipped bit is found in a record of each class, under each suite", async () => {
  await using pair = await VmPair.linux();
  const classes = { kernelText: ["aes-128-gcm"], kernelData: ["chacha20-poly1305"] };
  const policy = await writePolicy(pair.hosts.directory, {
    levels: { all: { suites: ["aes-256-gcm"], classes } },
  });
  const receiver = await pair.receive("--policy", policy);
  /** Suites whose first record of a page or more was damaged. */
  const damaged = new Set<number>();
  await using relay = new EditingRelay(receiver.port, (frame) => {
    const header = recordHeaderOf(frame);
    if (header === null || header.bodyLength < PAGE_BYTES || damaged.has(header.suite)) return;
    damaged.add(header.suite);
    const at = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES + (header.bodyLength >> 1);
    frame[at] = frame[at]! ^ 1;
  });
  const options = { args: ["--policy", policy], port: relay.port };
  const { sent, received } = await pair.move(receiver, options);
  assert.deepEqual([...damaged].sort(), [0, 1, 2]);
  assert.equal(new Set(Object.values(sent.report!.suites!)).size, 3);
  for (const { report } of [sent, received]) assert.equal(report?.mistakes.detected, 3);
  assert.ok(sent.report!.mistakes.repaired > 0);
  assert.equal(sent.report!.reconnects, 0);
});
