import assert from "node:assert/strict";
import { shownClasses } from "../../cli/class_map.ts";
import { inspectVm } from "../../cli/inspect_run.ts";
import { writeBootSector } from "../../cli/guest/boot_sector.ts";
import { QemuProcess } from "../../cli/guest/qemu_process.ts";
import { asObject } from "../../kvm/json_values.ts";
import { libc } from "../../kvm/libc.ts";
import { qemuTest, qmpExecute, savedTestGuest, testLoad, testMemoryMiB } from "../support/qemu.ts";
import { TempDir } from "../support/temp_dir.ts";

// Stays open for the life of the process: opened here, it is no leak of the first test.
libc();

for (const memory of ["private", "memfd", "file"] as const) {
  qemuTest(`inspectVm() tells the classes of a running VM with ${memory} memory`, async () => {
    const saved = await savedTestGuest();
    await using vm = await saved.start({ memory });
    const found = await inspectVm(vm.qmpPaths[0]!);
    assert.equal(found.why, null);
    assert.equal(found.levels, 4);
    assert.deepEqual(found.blocks.map(({ name }) => name), ["m0"]);
    const pages = shownClasses.reduce((sum, name) => sum + found.counts[name].pages, 0);
    assert.equal(pages, testMemoryMiB * 256 + 2);
    // The load, the process of its beats and that of its secrets, and at most two of Linux's own.
    assert.ok(found.addressSpaces >= 3 && found.addressSpaces <= 5, `${found.addressSpaces}`);
    assert.ok(found.counts.user.pages >= testLoad.workingSetMiB * 256);
    assert.ok(found.counts.user.pages < testLoad.workingSetMiB * 256 + 2048);
    assert.ok(found.counts.kernelText.pages > 2048);
    assert.ok(found.counts.kernelData.pages > 4096);
    assert.ok(found.counts.zero.pages > 0);
    const { status } = asObject(await qmpExecute(vm, "query-status"), "query-status");
    assert.equal(status, "running");
  });
}

for (const memory of ["private", "memfd"] as const) {
  qemuTest(`inspectVm() takes no memory for what a guest never touched, ${memory}`, async () => {
    await using directory = await TempDir.make();
    const bootSector = `${directory.path}/boot.img`;
    await writeBootSector(bootSector, { dirtyMiBPerSecond: 0, workingSetMiB: 2 });
    await using vm = await QemuProcess.start({ memory, memoryMiB: 2048, guest: { bootSector } });
    await vm.waitForLine(0, "HB 1", 60_000);
    const before = residentKib(vm.pid);
    const found = await inspectVm(vm.qmpPaths[0]!);
    const grownKib = residentKib(vm.pid) - before;
    assert.equal(found.counts.user.pages + found.counts.zero.pages, 2048 * 256 + 2);
    assert.ok(grownKib < 16 * 1024, `${grownKib} KiB more`);
  });
}

/** Resident memory of a process, its page tables included. */
function residentKib(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return ["VmRSS", "VmPTE"].reduce(
    (sum, name) => sum + Number(new RegExp(`^${name}:\\s*(\\d+) kB`, "m").exec(status)?.[1]),
    0,
  );
}

qemuTest("inspect writes a report and a picture", async () => {
  await using directory = await TempDir.make();
  const svg = `${directory.path}/map.svg`;
  const saved = await savedTestGuest();
  await using vm = await saved.start();
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--no-prompt", "cli/migrate.ts", "inspect"],
      ...["--qmp", vm.qmpPaths[0]!, "--svg", svg, "--json"],
    ],
    cwd: new URL("../../", import.meta.url),
    stderr: "null",
  }).output();
  assert.equal(code, 0);
  const report = JSON.parse(new TextDecoder().decode(stdout));
  assert.equal(report.type, "report");
  assert.equal(report.outcome, "completed");
  assert.equal(report.why, null);
  assert.ok(report.addressSpaces >= 3 && report.refreshMs > 0);
  assert.deepEqual(Object.keys(report.classes), [...shownClasses]);
  assert.match(await Deno.readTextFile(svg), /^<svg [^]*m0[^]*<\/svg>\n$/);
});

qemuTest("inspectVm() says why when the guest is not Linux in 64 bits", async () => {
  await using directory = await TempDir.make();
  const bootSector = `${directory.path}/boot.img`;
  await writeBootSector(bootSector, { dirtyMiBPerSecond: 1, workingSetMiB: 2 });
  await using vm = await QemuProcess.start({ memoryMiB: 64, guest: { bootSector } });
  await vm.waitForLine(0, "HB 1", 60_000);
  const found = await inspectVm(vm.qmpPaths[0]!);
  assert.match(found.why ?? "", /vCPU 0 is in 32-bit mode/);
  assert.equal(found.addressSpaces, 0);
  const { user, zero } = found.counts;
  assert.ok(user.pages >= 512);
  assert.equal(user.pages + zero.pages, 64 * 256 + 2);
});
