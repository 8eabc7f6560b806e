/**
 * Policies that are wrong, or hostile, each in its process: the error says what and where, and nothing is left
 * behind (the sanitizers are on).
 *
 * @module
 */

import assert from "node:assert/strict";
import { paperSuiteTable } from "../../ciphers/paper_suites.ts";
import { sealedSuites } from "../../ciphers/sealed.ts";
import { CliError } from "../../cli/cli_error.ts";
import type { PolicyTimeLimits } from "../../cli/policy_pipe.ts";
import { PolicyProcess } from "../../cli/policy_process.ts";
import { TempDir } from "../support/temp_dir.ts";
import { sampleRound, sampleVm } from "../support/policy_samples.ts";

const root = new URL("../../", import.meta.url);
const suites = [...Object.values(sealedSuites), ...Object.values(paperSuiteTable)];
/** Long enough for a slow machine: only endless loops take all of it. */
const patient: PolicyTimeLimits = { startMs: 60_000, callMs: 60_000 };

const vm = { ...sampleVm, labels: ["pci"] };
const stats = sampleRound;

/** What a policy is but for its functions: it begins in line 2, and they come in line 3. */
const start = `import { definePolicy } from "${root.href}mod.ts";
export default definePolicy({ name: "x", levels: { low: { suites: ["aes-256-gcm"] } },
`;
/** Statements in line 2, before a policy that is right. */
const after = (statements: string) =>
  `import { definePolicy } from "${root.href}mod.ts";
${statements}
export default definePolicy({
  name: "x", levels: { low: { suites: ["aes-256-gcm"] } }, select: () => "low",
});
`;

interface Run {
  name?: string;
  timeLimits?: PolicyTimeLimits;
  onOutput?: (line: string) => void;
  use?: (policy: PolicyProcess) => Promise<unknown>;
}

/** Writes the policy, opens it, and asks it for a level. */
async function run(text: string, options: Run = {}): Promise<void> {
  await using directory = await TempDir.make();
  const { name = "policy.ts", timeLimits = patient, onOutput = () => {} } = options;
  const path = `${directory.path}/${name}`;
  await Deno.writeTextFile(path, text);
  await using policy = await PolicyProcess.open(path, { suites, timeLimits, onOutput });
  await (options.use ?? ((it) => it.select(vm)))(policy);
}

/** The policy is refused with this message: `policy.ts` there is its path, and what follows it the place. */
async function refused(text: string, message: RegExp, options: Run = {}): Promise<void> {
  await assert.rejects(run(text, options), (error) => {
    assert.ok(error instanceof CliError, String(error));
    assert.equal(error.code, "usage");
    assert.match(error.message.replace(/\S*\/(?=policy\.ts)/, ""), message);
    return true;
  });
}

Deno.test("PolicyProcess asks the policy, and passes on what it prints", async () => {
  const printed: string[] = [];
  const text = `${start}
    select: (vm) => { console.log("vm", vm.name); console.table([1]); return "low"; },
    round: (stats) => stats.converging ? {} : { autoConverge: true, maxBandwidth: 1e6 } });`;
  await run(text, {
    name: "pol icy#%20ä.ts",
    onOutput: (line) => printed.push(line),
    use: async (policy) => {
      assert.equal(policy.name, "x");
      assert.deepEqual(policy.levels, { low: { suites: ["aes-256-gcm"] } });
      const answers = await Promise.all([policy.select(vm), policy.select(vm)]);
      assert.deepEqual(answers, ["low", "low"]);
      assert.deepEqual(await policy.round?.(stats), { autoConverge: true, maxBandwidth: 1e6 });
    },
  });
  assert.equal(printed[0], "vm web1");
});

Deno.test("PolicyProcess runs the policies of scripts/policies", async () => {
  const levels: Record<string, string> = {};
  for (const { name } of Deno.readDirSync(new URL("scripts/policies/", root))) {
    const file = new URL(`scripts/policies/${name}`, root).pathname;
    await using policy = await PolicyProcess.open(file, { suites, timeLimits: patient });
    levels[name] = await policy.select(vm);
  }
  assert.deepEqual(levels, {
    "by_label.ts": "restricted",
    "paper_user_pages.ts": "lab",
    "sealed_everywhere.ts": "all",
  });
});

const wrong: Record<string, [text: string, message: RegExp]> = {
  "a syntax error": [
    "const a = 1;\nexport default { a: ;",
    /^Cannot use policy policy\.ts:2:21: SyntaxError: /,
  ],
  "no default export": [
    "export const policy = {};",
    /^Cannot use policy policy\.ts: it has no `export default definePolicy/,
  ],
  "an object that definePolicy() did not see": [
    `export default { name: "x", levels: {}, select: () => "low" };`,
    /^Cannot use policy policy\.ts: it has no `export default definePolicy/,
  ],
  "a typo": [
    `${start} select: () => "low", rounds: () => ({}) });`,
    /^Cannot use policy policy\.ts:2:16: rounds is not known here; did you mean round\?$/,
  ],
  "an unknown suite": [
    after("").replace("aes-256-gcm", "aes-256-gmc"),
    /^Cannot use policy policy\.ts:3:16: levels\.low\.suites\[0\] is no suite that is known here: aes-256-gmc; did you mean aes-256-gcm\?$/,
  ],
  "a suite of the lab in a sealed level": [
    after("").replace("aes-256-gcm", "rc4-round"),
    /^Cannot use policy policy\.ts:3:16: levels\.low\.suites\[0\] is a suite of the lab/,
  ],
  "levels in the wrong order": [
    after("").replace("low:", `high: { suites: ["aes-256-gcm"] }, low:`).replace(
      /"aes-256-gcm"\] \} \}/,
      `"aes-128-gcm"] } }`,
    ),
    /^Cannot use policy policy\.ts:3:16: levels\.low accepts aes-128-gcm .* weaker than aes-256-gcm/,
  ],
  "a throw at its top level": [
    after(`throw new Error("not today");`),
    /^Cannot use policy policy\.ts:2:7: Error: not today$/,
  ],
  "a throw in select": [
    `${start} select: (vm) => {\nthrow new TypeError("no " + vm.name);\n} });`,
    /^Cannot use policy policy\.ts:4:7: in select\(\): TypeError: no web1$/,
  ],
  "a throw in round": [
    `${start} select: () => "low", round: () => {\nthrow new RangeError("no"); } });`,
    /^Cannot use policy policy\.ts:4:7: in round\(\): RangeError: no$/,
  ],
  "a throw of something that is no error": [
    `${start} select: () => { throw "no"; } });`,
    /^Cannot use policy policy\.ts:2:16: in select\(\): no was thrown$/,
  ],
  "a level that it does not have": [
    `${start} select: () => "lwo" });`,
    /^Cannot use policy policy\.ts:2:16: select\(\) returned "lwo", which is none of its levels \(low\); did you mean low\?$/,
  ],
  "an asynchronous select": [
    `${start} select: async () => "low" });`,
    /^Cannot use policy policy\.ts:2:16: select\(\) returned a promise/,
  ],
  "settings that nobody knows": [
    `${start} select: () => "low", round: () => ({ autoConverg: true }) });`,
    /^Cannot use policy policy\.ts:2:16: round\(\)\.autoConverg is not known here; did you mean autoConverge\?$/,
  ],
  "a promise that nobody waits for": [
    after("Promise.reject(new Error('lost'));"),
    /^Cannot use policy policy\.ts:2:16: Error: lost$/,
  ],
  "a promise in select that nobody waits for": [
    `${start} select: () => { Deno.connect({ port: 9 }); return "low"; } });`,
    /^Cannot use policy policy\.ts:3:\d+: it asks for net access to "127\.0\.0\.1:9", and a policy has none$/,
  ],
  "a timer that throws": [
    after("setTimeout(() => { throw new Error('late'); });"),
    /^Cannot use policy policy\.ts:2:26: Error: late$/,
  ],
};

for (const [what, [text, message]] of Object.entries(wrong)) {
  Deno.test(`PolicyProcess refuses a policy with ${what}, and says where`, async () => {
    await refused(text, message);
  });
}

const denied: Record<string, [statement: string, asked: RegExp]> = {
  "reads a file": [
    `Deno.readTextFileSync("/etc/hostname");`,
    /read access to "\/etc\/hostname"/,
  ],
  "imports a file as text": [
    `import text from "/etc/hostname" with { type: "text" };`,
    /read access to "\/etc\/hostname"/,
  ],
  "imports another module": [`import "./other.ts";`, /read access to "\/.*\/other\.ts"/],
  "imports another module later": [
    `await import("./oth" + "er.ts");`,
    /read access to "\/.*\/other\.ts"/,
  ],
  "imports from the network": [
    `import "https://example.com/x.ts";`,
    /import access to "example\.com:443"/,
  ],
  "writes a file": [`Deno.writeTextFileSync("/tmp/x", "");`, /write access to "\/tmp\/x"/],
  "opens a socket": [
    `await Deno.connect({ hostname: "127.0.0.1", port: 9 });`,
    /net access to "127\.0\.0\.1:9"/,
  ],
  "listens": [`Deno.listen({ port: 0 });`, /net access to "0\.0\.0\.0:0"/],
  "fetches": [`await fetch("http://127.0.0.1:8080/");`, /net access to "127\.0\.0\.1:8080"/],
  "reads the environment": [`Deno.env.get("HOME");`, /env access to "HOME"/],
  "reads the environment as Node does": [
    `import process from "node:process"; process.env.HOME;`,
    /env access to "HOME"/,
  ],
  "starts a process": [`new Deno.Command("/bin/true").outputSync();`, /run access to/],
  "loads a library": [`Deno.dlopen("libc.so.6", {});`, /ffi access to/],
};

for (const [what, [statement, asked]] of Object.entries(denied)) {
  Deno.test(`PolicyProcess refuses a policy that ${what}, and says where`, async () => {
    const message = new RegExp(
      `^Cannot use policy policy\\.ts:2:\\d+: it asks for ${asked.source}.*, and a policy has none$`,
    );
    await refused(after(statement), message);
  });
}

Deno.test("PolicyProcess lets a policy not even read its own file, once it is loaded", async () => {
  const text = `${start} select: () => Deno.readTextFileSync(new URL(import.meta.url)) });`;
  await refused(text, /policy\.ts:3:\d+: in select\(\): it asks for read access/);
});

Deno.test("PolicyProcess refuses a policy that comes from npm", async () => {
  await refused(after(`import "npm:x";`), /policy\.ts:2:\d+: .*--no-npm is specified$/);
});

const endless: Record<string, [text: string, what: string]> = {
  "at its top level": [after("for (;;);"), "load"],
  "in select": [`${start} select: () => { for (;;); } });`, "answer select\\(\\)"],
  "in round": [
    `${start} select: () => "low", round: () => { for (;;); } });`,
    "answer round\\(\\)",
  ],
};

for (const [where, [text, what]] of Object.entries(endless)) {
  Deno.test(`PolicyProcess ends a policy with an endless loop ${where}`, async () => {
    const timeLimits = what === "load"
      ? { startMs: 2_000, callMs: 60_000 }
      : { startMs: 60_000, callMs: 500 };
    const message = new RegExp(
      `^Cannot use policy policy\\.ts: it took longer than [0-9.]+ s to ${what}, and was ended$`,
    );
    await refused(text, message, { timeLimits });
  });
}

/** What Deno lets a program keep without any permission. */
const storing: Record<string, [statements: string, message: RegExp]> = {
  "in caches": [
    `const cache = await caches.open("x");
    await cache.put("http://x/", new Response("x"));`,
    /Failed to create cache storage directory/,
  ],
  "in localStorage": [`localStorage.setItem("x", "x");`, /NotADirectory: /],
  "in a temporary table": [
    `const { DatabaseSync } = await import("node:sqlite");
    const database = new DatabaseSync(":memory:");
    database.exec("PRAGMA temp_store = FILE; PRAGMA temp.cache_size = 1; CREATE TEMP TABLE t(a);");
    for (let i = 0; i < 100; i++) database.exec("INSERT INTO t VALUES (randomblob(100000))");`,
    /Error: disk I\/O error$/,
  ],
};

for (const [where, [statements, message]] of Object.entries(storing)) {
  Deno.test(`PolicyProcess refuses a policy that stores something ${where}`, async () => {
    await refused(after(statements), message);
  });
}

const unruly: Record<string, [text: string, message: RegExp]> = {
  "writes a line that is no JSON": [
    `${start} select: () => { Deno.stdout.writeSync(new TextEncoder().encode("hello\\n")); return "low"; } });`,
    /it wrote to stdout itself/,
  ],
  "writes JSON that is no answer": [
    `${start} select: () => { Deno.stdout.writeSync(new TextEncoder().encode("[1]\\n")); return "low"; } });`,
    /it wrote to stdout itself/,
  ],
  "writes an answer of its own": [
    `${start} select: () => { Deno.stdout.writeSync(new TextEncoder().encode('{"id":1,"value":"high"}\\n')); return "low"; } });`,
    /select\(\) returned "high", which is none of its levels/,
  ],
  "writes a line without end": [
    `${start} select: () => { for (;;) Deno.stdout.writeSync(new Uint8Array(65536).fill(65)); } });`,
    /its answer is longer than 262144 bytes$/,
  ],
  "prints without end": [
    `${start} select: () => { for (;;) console.log("x".repeat(1000)); } });`,
    /^Cannot use policy policy\.ts: it prints without end, and was ended$/,
  ],
  "ends its process": [after("Deno.exit(3);"), /its process ended by itself \(exit code 3\)$/],
  "ends its process in select": [
    `${start} select: () => Deno.exit(0) });`,
    /its process ended by itself \(exit code 0\)$/,
  ],
  "fills the heap": [
    after("const all: unknown[] = []; for (;;) all.push([1, 2, 3]);"),
    /it used more memory than a policy is given$/,
  ],
  "fills memory beside the heap": [
    after("const all: unknown[] = []; for (;;) all.push(new Uint8Array(1e8));"),
    /policy\.ts:2:\d+: RangeError: Array buffer allocation failed$/,
  ],
};

for (const [what, [text, message]] of Object.entries(unruly)) {
  Deno.test(`PolicyProcess refuses a policy that ${what}`, async () => {
    await refused(text, message);
  });
}

Deno.test("PolicyProcess keeps no more than 64 KiB of what a policy prints", async () => {
  let bytes = 0;
  const text = after(`for (let i = 0; i < 5000; i++) console.log("x".repeat(99));`);
  await run(text, { onOutput: (line) => bytes += line.length + 1 });
  assert.ok(bytes > 32 * 1024 && bytes <= 64 * 1024 + 1, `${bytes}`);
});

Deno.test("PolicyProcess ends a policy that prints without end while nobody asks it", async () => {
  const text = after(
    "setInterval(() => Deno.stderr.writeSync(new Uint8Array(65536).fill(65)), 1);",
  );
  await refused(text, /: it prints without end, and was ended$/, {
    use: async (policy) => {
      for (let i = 0; i < 300; i++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        await policy.select(vm);
      }
    },
  });
});

Deno.test("PolicyProcess answers nothing more once the policy has failed", async () => {
  const text =
    `${start} select: (vm) => { if (vm.labels.length) throw new Error("no"); return "low"; } });`;
  await run(text, {
    use: async (policy) => {
      assert.equal(await policy.select({ ...vm, labels: [] }), "low");
      await assert.rejects(policy.select(vm), /Error: no$/);
      await assert.rejects(policy.select({ ...vm, labels: [] }), /Error: no$/);
    },
  });
});

Deno.test("PolicyProcess ends also while the policy is being asked", async () => {
  let asked: Promise<unknown> | undefined;
  await run(`${start} select: () => { for (;;); } });`, {
    use: (policy) => {
      asked = policy.select(vm).catch(({ message }) => message);
      return Promise.resolve();
    },
  });
  assert.match(String(await asked), /it is not needed any more, and was ended$/);
});

Deno.test("PolicyProcess refuses what is no file, too large, or named with a comma", async () => {
  await refused("", /its name has a comma$/, { name: "a,policy.ts" });
  await refused(" ".repeat(300_000), /Cannot read the policy policy\.ts: it has 300000 bytes/);
  await assert.rejects(PolicyProcess.open("/nonexistent.ts", { suites }), {
    name: "CliError",
    code: "usage",
    message: "Cannot read the policy /nonexistent.ts: no such file or directory",
  });
});

/** PIDs of a process's children. */
async function childrenOf(pid: number): Promise<number[]> {
  const pids: number[] = [];
  for await (const { name } of Deno.readDir(`/proc/${pid}/task`)) {
    const text = await Deno.readTextFile(`/proc/${pid}/task/${name}/children`);
    pids.push(...text.split(" ").filter((word) => word !== "").map(Number));
  }
  return pids;
}

/** Whether it runs: one that has ended may wait for somebody to collect it. */
async function isAlive(pid: number): Promise<boolean> {
  try {
    const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
    return !"ZX".includes(stat.charAt(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

async function hasDeathSignal(): Promise<boolean> {
  const args = ["-c", "setpriv --pdeathsig KILL true"];
  return (await new Deno.Command("sh", { args, stderr: "null" }).output()).success;
}

Deno.test({
  name: "PolicyProcess ends a policy that sleeps when the process that opened it is killed",
  ignore: !await hasDeathSignal(),
  async fn() {
    await using directory = await TempDir.make();
    const sleep =
      `{ console.log("asleep"); for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); }`;
    const policyFile = `${directory.path}/policy.ts`;
    await Deno.writeTextFile(policyFile, `${start} select: () => ${sleep} });`);
    const parentFile = `${directory.path}/parent.ts`;
    await Deno.writeTextFile(
      parentFile,
      `import { PolicyProcess } from "${root.href}cli/policy_process.ts";
      import { sealedSuites } from "${root.href}ciphers/sealed.ts";
      const policy = await PolicyProcess.open(${JSON.stringify(policyFile)}, {
        suites: Object.values(sealedSuites),
        timeLimits: ${JSON.stringify(patient)},
        onOutput: (line) => console.log(line),
      });
      await policy.select(${JSON.stringify(vm)});`,
    );
    const parent = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-config", "--no-lock", parentFile],
      stdout: "piped",
    }).spawn();
    const reader = parent.stdout.getReader();
    const { value } = await reader.read();
    assert.equal(new TextDecoder().decode(value), "asleep\n");
    const children = await childrenOf(parent.pid);
    assert.equal(children.length, 1);
    parent.kill("SIGKILL");
    await parent.status;
    await reader.cancel();
    try {
      const deadlineMs = performance.now() + 30_000;
      while (await isAlive(children[0]!)) {
        assert.ok(performance.now() < deadlineMs, "the policy is still there");
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    } finally {
      if (await isAlive(children[0]!)) Deno.kill(children[0]!, "SIGKILL");
    }
  },
});

Deno.test("policy_child.ts ends with its input, whatever the policy made of Deno.exit", async () => {
  await using directory = await TempDir.make();
  const path = `${directory.path}/policy.ts`;
  await Deno.writeTextFile(path, after("Deno.exit = () => console.log('stays');"));
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-config", "--no-lock", `--allow-read=${path}`, "cli/policy_child.ts", path],
    cwd: root,
    stdin: "null",
  }).output();
  assert.deepEqual({ code, stderr: new TextDecoder().decode(stderr) }, { code: 0, stderr: "" });
});
