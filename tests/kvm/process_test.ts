import assert from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { cpuSeconds, isGone, isNoSuchProcess, parseStat, readProcess } from "../../kvm/process.ts";

const rest = "S 1 7 7 0 -1 4194560 0 0 0 0 12 34 0 0 20 0 1 0 5678 1024 3 18446744073709551615";

function test(name: string, fn: () => void | Promise<void>): void {
  Deno.test({ name, permissions: "inherit", fn });
}

test("parseStat() finds the fields when the name has parentheses and spaces", () => {
  for (const name of ["cat", "a b", "x) S 1 2 (y", ")"]) {
    assert.deepEqual(parseStat(`7 (${name}) ${rest}\n`), {
      state: "S",
      userTicks: 12,
      systemTicks: 34,
      startTime: "5678",
    });
  }
});

test("parseStat() throws unsupported when it is no such line", () => {
  for (const line of ["", "7 (cat)", "7 (cat) S 1 2", `7 (cat) ${rest.replace("5678", "-1")}`]) {
    assert.throws(
      () => parseStat(line),
      (error) => error instanceof KvmError && error.code === "unsupported",
    );
  }
});

test("readProcess() names this process", () => {
  const own = readProcess(Deno.pid);
  assert.equal(own.pid, Deno.pid);
  assert.equal(own.uid, Deno.uid());
  assert.match(own.startTime, /^\d+$/);
  assert.match(own.bootId, /^[0-9a-f-]{36}$/);
  assert.equal(isGone(own), false);
  assert.ok((cpuSeconds(Deno.pid) ?? 0) > 0);
});

test("isGone() is true when the start time or the boot is another", () => {
  const own = readProcess(Deno.pid);
  assert.equal(isGone({ ...own, startTime: `${own.startTime}0` }), true);
  assert.equal(isGone({ ...own, bootId: "0" }), true);
});

test("isNoSuchProcess() tells a file of a process that was reaped after it was opened", async () => {
  const child = new Deno.Command("sleep", { args: ["600"] }).spawn();
  using stat = Deno.openSync(`/proc/${child.pid}/stat`);
  child.kill("SIGKILL");
  await child.status;
  assert.throws(() => stat.readSync(new Uint8Array(1)), isNoSuchProcess);
  assert.equal(isNoSuchProcess(new Deno.errors.NotFound("no (os error 2)")), false);
});

test("isGone() is true when a process is a zombie, and when it was reaped", async () => {
  // The child's parent becomes a program that never reaps it.
  const parent = new Deno.Command("sh", {
    args: ["-c", "sleep 600 > /dev/null & echo $!; exec sleep 600"],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const reader = parent.stdout.getReader();
  const child = Number(new TextDecoder().decode((await reader.read()).value));
  const parentProcess = readProcess(parent.pid);
  try {
    const process = readProcess(child);
    assert.equal(isGone(process), false);
    Deno.kill(child, "SIGKILL");
    while (readProcess(child).state !== "Z") await new Promise((done) => setTimeout(done, 5));
    assert.equal(isGone(process), true);
    assert.equal(isGone(parentProcess), false);
  } finally {
    parent.kill("SIGKILL");
    await parent.status;
    await reader.cancel();
  }
  assert.equal(isGone(parentProcess), true);
  assert.equal(cpuSeconds(parent.pid), null);
  assert.throws(
    () => readProcess(parent.pid),
    (error) => error instanceof KvmError && error.code === "gone",
  );
});
