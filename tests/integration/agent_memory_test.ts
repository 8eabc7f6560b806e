/**
 * Both agents hold their memory while a big VM moves, whatever the network does.
 *
 * `SEALIFT_TEST_SLOW_SECONDS=60` keeps the network slow for so long, instead of a few seconds.
 */

import assert from "node:assert/strict";
import { examineHeartbeats, parseHeartbeats } from "../../cli/guest/heartbeat.ts";
import { GuestRam } from "../support/guest_ram.ts";
import { MemorySampler } from "../support/memory_sampler.ts";
import { MigrationHosts } from "../support/migration_hosts.ts";
import { delay, qemuTest } from "../support/qemu.ts";
import { SlowRelay } from "../support/slow_relay.ts";
import { WatchedVm } from "../support/watched_vm.ts";

const MIB = 1024 * 1024;
const LIMIT_BYTES = 400 * MIB;
const MEMORY_MIB = 8 * 1024;
const DATA_MIB = 2 * 1024;
const HUGE_PAGE_BYTES = 2 * MIB;
const SLOW_BYTES_PER_SECOND = MIB;
const DEFAULT_SLOW_SECONDS = 8;

const slowSeconds = Number(Deno.env.get("SEALIFT_TEST_SLOW_SECONDS") ?? DEFAULT_SLOW_SECONDS);

qemuTest(
  `both agents stay under 400 MiB while 8 GiB move, also when the destination reads 1 MiB/s for ${slowSeconds} s, then everything`,
  async () => {
    await using hosts = await MigrationHosts.make();
    const vm = {
      guest: { bootSector: await hosts.bootSector({ beginMiB: 4096, workingSetMiB: 16 }) },
      memoryMiB: MEMORY_MIB,
    };
    // Private memory at both sources: looking for zeros, QEMU makes all of a file resident.
    await using first = await WatchedVm.start(vm);
    using ram = await GuestRam.open(first, "private");
    fillSparsely(ram);
    await first.moreBeats(5);
    await using second = await WatchedVm.start({ ...vm, incoming: "defer" });
    await moveBigVm(hosts, [first, second], { slowSeconds: 0 });
    await second.moreBeats(5);
    await using third = await WatchedVm.start({ ...vm, memory: "memfd", incoming: "defer" });
    await moveBigVm(hosts, [second, third], { slowSeconds });
    await third.moreBeats(5);
    const beats = [first, second, third].flatMap(({ process }) => process.serial(0));
    assert.deepEqual(examineHeartbeats(parseHeartbeats(beats)).breaks, []);
  },
);

async function moveBigVm(
  hosts: MigrationHosts,
  [source, destination]: [WatchedVm, WatchedVm],
  { slowSeconds }: { slowSeconds: number },
): Promise<void> {
  const receiver = await hosts.receive(destination);
  const bytesPerSecond = slowSeconds > 0 ? SLOW_BYTES_PER_SECOND : Infinity;
  await using relay = new SlowRelay(receiver.port, { bytesPerSecond });
  // At full speed there is nothing between them.
  const port = slowSeconds > 0 ? relay.port : receiver.port;
  const send = hosts.send(source, port, { args: ["--max-stop", "60s"] });
  using sendMemory = new MemorySampler(send.pid);
  using receiveMemory = new MemorySampler(receiver.agent.pid);
  if (slowSeconds > 0) {
    await send.line("state", "copying");
    await delay(slowSeconds * 1000);
    const tooMuch = 2 * slowSeconds * SLOW_BYTES_PER_SECOND;
    assert.ok(relay.passedBytes < tooMuch, `${relay.passedBytes} bytes passed: not slow`);
    relay.openUp();
  }
  const [sent, received] = await Promise.all([send.ended, receiver.agent.ended]);
  assert.deepEqual([sent.code, received.code], [0, 0], sent.stderr + received.stderr);
  assert.ok((sent.report?.bytes.guest ?? 0) > (DATA_MIB - 32) * MIB);
  const peaks = { send: sendMemory.peakBytes, receive: receiveMemory.peakBytes };
  console.log(
    `${MEMORY_MIB} MiB, slow for ${slowSeconds} s, by ${receiver.landing}: ` +
      `peak RssAnon + RssFile of send ${formatMiB(peaks.send)}, of receive ${
        formatMiB(peaks.receive)
      } in ${(sent.report!.totalMs / 1000).toFixed(1)} s`,
  );
  assert.ok(sendMemory.samples > 5 && receiveMemory.samples > 5);
  assert.ok(peaks.send < LIMIT_BYTES && peaks.receive < LIMIT_BYTES, JSON.stringify(peaks));
}

/** Data in one huge page of four, all over the RAM above what the guest and its firmware use. */
function fillSparsely(ram: GuestRam): void {
  const data = new Uint8Array(HUGE_PAGE_BYTES);
  for (let at = 0; at < data.length; at += 65_536) {
    crypto.getRandomValues(data.subarray(at, at + 65_536));
  }
  const step = Math.floor(MEMORY_MIB / DATA_MIB) * HUGE_PAGE_BYTES;
  for (let offset = 8 * step; offset + data.length <= ram.sizeBytes; offset += step) {
    ram.write(offset, data);
  }
}

function formatMiB(bytes: number): string {
  return `${(bytes / MIB).toFixed(0)} MiB`;
}
