import assert from "node:assert/strict";
import { processStatus } from "../../cli/process_status.ts";
import type { VmProcess } from "../../migration/ports.ts";

async function myself(): Promise<VmProcess> {
  const stat = await Deno.readTextFile("/proc/self/stat");
  return {
    pid: Deno.pid,
    startTime: stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]!,
    bootId: (await Deno.readTextFile("/proc/sys/kernel/random/boot_id")).trim(),
  };
}

Deno.test("processStatus() tells a process from another of the same PID", async () => {
  const me = await myself();
  assert.equal(await processStatus(me), "present");
  assert.equal(await processStatus({ ...me, startTime: `${me.startTime}0` }), "gone");
  assert.equal(await processStatus({ ...me, bootId: "an earlier boot" }), "gone");
});

Deno.test("processStatus() calls a process gone that has ended", async () => {
  const child = new Deno.Command("true").spawn();
  await child.status;
  assert.equal(await processStatus({ ...await myself(), pid: child.pid }), "gone");
});
