/**
 * The leak of the paper's rule: what a process of the guest writes into a file, a pipe or a terminal lies in pages of the
 * kernel, and those go in clear.
 *
 * @see docs/paper.md, W4
 * @module
 */

import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { CaptureRelay } from "../../cli/demo/capture_relay.ts";
import { guestSecrets } from "../../cli/guest/linux_guest.ts";
import type { ProfileId } from "../../migration/profile.ts";
import { qemuTest, readGuestMemory, testLoad, testMemoryMiB } from "../support/qemu.ts";
import { VmPair } from "../support/vm_pair.ts";

const secrets = guestSecrets(testLoad.secretToken);
const names = ["heap", "file", "pipe", "tty"] as const;

/** Moves a Linux guest. @returns which of its secrets passed on the wire in clear, how often */
async function capture(profile: ProfileId): Promise<Record<typeof names[number], number>> {
  await using pair = await VmPair.linux({ dirtyMiBPerSecond: 1 });
  // Each is there to be found: a wire without it means that it was hidden.
  const memory = Buffer.from(
    await readGuestMemory(pair.source.process, 0, testMemoryMiB * 1024 * 1024),
  );
  for (const name of names) assert.ok(memory.includes(secrets[name]), `no secret in the ${name}`);
  const args = ["--profile", profile];
  const receiver = await pair.receive(...args);
  using relay = new CaptureRelay(
    () => Deno.connect({ hostname: "127.0.0.1", port: receiver.port }),
    { needles: names.map((name) => secrets[name]) },
  );
  // All memory passes while the VM runs: a slow machine has no time for its page tables once it stands still.
  const live = ["--downtime-limit", "20ms"];
  const { sent } = await pair.move(receiver, { args: [...args, ...live], port: relay.port });
  const { report } = sent;
  assert.equal(report?.profile, profile);
  assert.ok(relay.bytes > report!.bytes.guest, "the relay did not see it all");
  if (profile === "paper") {
    const { kernelData } = report!.rounds![0]!.pages;
    assert.ok(kernelData > 0, `the guest was not read: ${report!.monitor?.why}`);
  }
  const [heap = 0, file = 0, pipe = 0, tty = 0] = relay.counts;
  return { heap, file, pipe, tty };
}

qemuTest(
  "attack: the paper's rule shows what processes wrote to a file, a pipe and a tty",
  async () => {
    const { heap, file, pipe, tty } = await capture("paper");
    assert.ok(file > 0, "the file's secret did not pass");
    assert.ok(pipe > 0, "the pipe's secret did not pass");
    assert.ok(tty > 0, "the terminal's secret did not pass");
    // On a page of user space: this one the paper hides.
    assert.equal(heap, 0);
  },
);

qemuTest("the sealed profile shows none of a guest's secrets", async () => {
  assert.deepEqual(await capture("sealed"), { heap: 0, file: 0, pipe: 0, tty: 0 });
});
