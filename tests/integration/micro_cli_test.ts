/**
 * Micro-VMs on the command line: real processes, a real wire.
 *
 * @module
 */

import { deepEqual, equal, match, notEqual, ok } from "node:assert/strict";
import { AgentProcess } from "../../cli/demo/agent_process.ts";
import { makeHosts } from "../../cli/demo/hosts.ts";
import type { Proof } from "../../cli/demo/proof.ts";
import { Kvm } from "../../kvm/kvm.ts";
import { kvmTest } from "../support/kvm.ts";

/** A `receive --micro` that listens, and where. */
async function receiver(
  args: readonly string[],
  stack: AsyncDisposableStack,
): Promise<{ receive: AgentProcess; to: string[] }> {
  const { a, b } = await makeHosts(stack);
  const receive = stack.use(
    new AgentProcess([
      ...["receive", "--micro", "--listen", "127.0.0.1:0", "--allow", a.key],
      ...["--state-dir", b.stateDir, ...args],
    ]),
  );
  const listening = await receive.line("listening");
  if (listening === null) throw new Error((await receive.ended).stderr);
  equal(listening["landing"], "mapped");
  const to = ["--to", String(listening["address"]), "--peer", b.key, "--state-dir", a.stateDir];
  return { receive, to };
}

function beatValues(agent: AgentProcess, vcpu: number): number[] {
  return agent.lines.filter((line) => line.type === "beats" && line["vcpu"] === vcpu)
    .flatMap((line) => line["values"] as number[]);
}

kvmTest("demo --vm micro moves a micro-VM and proves that it arrived", async () => {
  await using demo = new AgentProcess(["demo", "--vm", "micro", "--memory", "16"]);
  const { code, report, stderr } = await demo.ended;
  equal(code, 0, stderr);
  equal(report?.outcome, "completed");
  ok((report?.rounds?.length ?? 0) >= 3);
  ok(report!.downtimeMs! > 0);
  const { proof } = report as unknown as { proof: Proof };
  deepEqual(
    {
      ...proof,
      heartbeatGapMs: 0,
      holdMs: 0,
      secretsInPlaintextControl: proof.secretsInPlaintextControl > 0,
    },
    {
      heartbeatContinues: true,
      heartbeatGapMs: 0,
      ramEqual: true,
      ramBlocks: ["micro.ram"],
      holdMs: 0,
      secretsOnWire: 0,
      secretsInPlaintextControl: true,
      control: "its memory, read from outside and sent in clear",
      workloadSound: true,
      sourceState: "quit",
      destinationState: "running",
    },
  );
});

kvmTest(
  "send --micro and receive --micro move a micro-VM, which runs on for --run-for",
  async () => {
    await using stack = new AsyncDisposableStack();
    const shape = ["--memory", "8", "--vcpus", "2"];
    const { receive, to } = await receiver([...shape, "--run-for", "300ms"], stack);
    const send = stack.use(new AgentProcess(["send", "--micro", ...shape, ...to]));
    const sent = await send.ended;
    equal(sent.code, 0, sent.stderr);
    equal(sent.report?.sourceState, "quit");
    const received = await receive.ended;
    equal(received.code, 0, received.stderr);
    equal(received.report?.destinationState, "running");
    deepEqual(received.report?.warnings, []);
    for (const vcpu of [0, 1]) {
      const values = [...beatValues(send, vcpu), ...beatValues(receive, vcpu)];
      deepEqual(values, values.map((_, i) => i + 1));
      notEqual(beatValues(receive, vcpu).length, 0);
    }
  },
);

kvmTest("receive --micro ends with 0 on Ctrl-C once the VM runs there", async () => {
  await using stack = new AsyncDisposableStack();
  const { receive, to } = await receiver(["--memory", "8"], stack);
  const send = stack.use(new AgentProcess(["send", "--micro", "--memory", "8", ...to]));
  equal((await send.ended).code, 0);
  notEqual(await receive.line("beats"), null);
  receive.signal("SIGINT");
  const { code, report, stderr } = await receive.ended;
  equal(code, 0, stderr);
  equal(report?.destinationState, "running");
  ok(!stderr.includes("cancelling"), stderr);
});

kvmTest(
  "send --micro is refused by a receive --micro of another size, and looks with --dry-run",
  async () => {
    await using stack = new AsyncDisposableStack();
    const { receive, to } = await receiver(["--memory", "8"], stack);
    const larger = stack.use(new AgentProcess(["send", "--micro", "--memory", "16", ...to]));
    const refused = await larger.ended;
    equal(refused.code, 3);
    match(refused.report?.error?.message ?? "", /memory block micro\.ram has 16777216 bytes/);
    match(refused.stderr, /the micro-VM was in this process, and ends with it/);
    const look = stack.use(
      new AgentProcess(["send", "--micro", "--memory", "8", "--dry-run", ...to]),
    );
    const looked = await look.ended;
    equal(looked.code, 0, looked.stderr);
    ok(looked.report?.checks?.every(({ ok }) => ok === true));
    equal(receive.lines.filter(({ type }) => type === "note").length, 2);
  },
);

const canHide = Deno.uid() === 0 && Kvm.whyUnavailable() === null;

Deno.test({
  name: `micro-VM commands say in one line that there is no /dev/kvm${
    canHide ? "" : " (needs root and /dev/kvm)"
  }`,
  ignore: !canHide,
  async fn() {
    await using stack = new AsyncDisposableStack();
    const { a, b } = await makeHosts(stack);
    // A /dev with nothing in it but what every program needs.
    const script = 'mount -t tmpfs sealift-test /dev && mknod -m 666 /dev/null c 1 3 && exec "$@"';
    const wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
    const common = ["--micro", "--state-dir", a.stateDir];
    for (
      const args of [
        ["demo", "--vm", "micro"],
        ["send", ...common, "--to", "127.0.0.1:1", "--peer", b.key],
        ["receive", ...common, "--listen", "127.0.0.1:0", "--allow", b.key],
      ]
    ) {
      const agent = stack.use(new AgentProcess(args, { wrapper }));
      const { code, stderr } = await agent.ended;
      equal(code, 1);
      match(
        stderr,
        /^error: Cannot open \/dev\/kvm: there is none; load the module kvm_\w+ [^\n]*\n$/,
      );
    }
  },
});
