import assert from "node:assert/strict";
import { bootSector } from "../../cli/guest/boot_sector.ts";
import { examineHeartbeats, parseHeartbeats } from "../../cli/guest/heartbeat.ts";
import { guestSecrets, linuxCommandLine } from "../../cli/guest/linux_guest.ts";
import { qemuArguments, type QemuOptions } from "../../cli/guest/qemu_arguments.ts";

const encoder = new TextEncoder();

function chunks(...texts: string[]) {
  return texts.map((text, i) => ({ atMs: i * 10, bytes: encoder.encode(text) }));
}

Deno.test("parseHeartbeats() gives a line the time of its end when it is cut between chunks", () => {
  assert.deepEqual(parseHeartbeats(chunks("HB 9\nH", "B 1", "0\nHB 11\n", "HB 12")), [
    { n: 9, atMs: 0 },
    { n: 10, atMs: 20 },
    { n: 11, atMs: 20 },
  ]);
});

Deno.test("parseHeartbeats() passes over what is not a beat", () => {
  assert.deepEqual(parseHeartbeats(chunks("B 7\nHB x\nHB 8\r\nHB -1\n")), [{ n: 8, atMs: 0 }]);
});

Deno.test("examineHeartbeats() finds lost and repeated beats and the longest gap", () => {
  const beats = [[1, 0], [2, 10], [4, 60], [4, 70]].map(([n = 0, atMs = 0]) => ({ n, atMs }));
  assert.deepEqual(examineHeartbeats(beats), {
    breaks: [{ after: 2, next: 4 }, { after: 4, next: 4 }],
    longestGapMs: 50,
    longestGapAfter: 2,
  });
  assert.equal(examineHeartbeats([]).longestGapAfter, null);
});

Deno.test("linuxCommandLine() has the load but none of the secrets", () => {
  const line = linuxCommandLine({ dirtyMiBPerSecond: 3, workingSetMiB: 5, secretToken: "abc" });
  assert.match(line, /sealift\.dirty=3 sealift\.set=5 sealift\.secret=abc$/);
  for (const secret of Object.values(guestSecrets("abc"))) assert.ok(!line.includes(secret));
});

Deno.test("linuxCommandLine() refuses what would be another parameter", () => {
  const load = { dirtyMiBPerSecond: 3, workingSetMiB: 5, secretToken: "abc" };
  assert.throws(() => linuxCommandLine({ ...load, secretToken: "a init=/bin/sh" }), RangeError);
  assert.throws(() => linuxCommandLine({ ...load, dirtyMiBPerSecond: 0.5 }), RangeError);
  assert.throws(() => linuxCommandLine({ ...load, workingSetMiB: -1 }), RangeError);
});

Deno.test("bootSector() is bootable, and refuses numbers that it cannot hold", () => {
  const load = { dirtyMiBPerSecond: 16, workingSetMiB: 16 };
  const sector = bootSector(load);
  assert.equal(sector.length, 512);
  assert.deepEqual([sector[510], sector[511]], [0x55, 0xaa]);
  assert.throws(() => bootSector({ ...load, beginMiB: 3 }), RangeError);
  assert.throws(() => bootSector({ ...load, workingSetMiB: 1025 }), RangeError);
  assert.throws(() => bootSector({ ...load, beatMs: 55 }), RangeError);
  assert.throws(() => bootSector({ ...load, dirtyMiBPerSecond: NaN }), RangeError);
});

Deno.test("qemuArguments() names the RAM block the same whatever the memory is", () => {
  const options: QemuOptions = { guest: { bootSector: "/x" }, memoryMiB: 64, accel: "kvm" };
  for (const memory of ["private", "memfd", "file"] as const) {
    const args = qemuArguments({ ...options, memory }, "/d").join(" ");
    assert.match(args, /-machine q35,memory-backend=m0 /);
    assert.match(args, /-object memory-backend-(ram|memfd|file),id=m0,size=64M/);
  }
});

Deno.test("qemuArguments() gives emulated RAM no size that is a multiple of 256 KiB", () => {
  const options: QemuOptions = { guest: { bootSector: "/x" }, memoryMiB: 64, accel: "tcg" };
  const args = qemuArguments(options, "/d").join(" ");
  assert.match(args, /-m 65544K /);
  assert.match(args, /,id=m0,size=65544K/);
});
