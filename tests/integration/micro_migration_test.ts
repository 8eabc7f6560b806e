import { deepEqual, equal, match, ok } from "node:assert/strict";
import { Buffer } from "node:buffer";
import { defaultRegistry, registerCipher } from "../../ciphers/registry.ts";
import { ownCpuSeconds, systemClock } from "../../cli/clock.ts";
import { MicroDestination } from "../../kvm/micro/micro_destination.ts";
import { type MicroGuestOptions, MicroVm } from "../../kvm/micro/micro_vm.ts";
import { MicroSource } from "../../kvm/micro/micro_source.ts";
import { Destination } from "../../migration/destination.ts";
import { generateIdentity } from "../../migration/identity.ts";
import type { DestinationVm, LiveSettings, SourceVm } from "../../migration/ports.ts";
import type { MigrationResult } from "../../migration/result.ts";
import { Source } from "../../migration/source.ts";
import thirdParty from "../../scripts/suites/aes_256_gcm_siv.ts";
import { kvmTest } from "../support/kvm.ts";
import { Loopback } from "../support/loopback.ts";
import { MemoryJournals } from "../support/memory_journal.ts";

const MIB = 2 ** 20;

// Opened here: a library that a test opens would count as its leak.
const registry = defaultRegistry();
registerCipher(thirdParty);
const identities = { source: await generateIdentity(), destination: await generateIdentity() };

interface Outcome {
  source: MigrationResult;
  destination: MigrationResult;
  /** Whether RAM and vCPUs were the same before the destination ran. */
  equalBeforeRun: boolean | null;
}

async function migrate(
  from: MicroVm,
  to: MicroVm,
  options: { suite?: string; live?: LiveSettings; signal?: AbortSignal } = {},
): Promise<Outcome> {
  const { suite = "aes-256-gcm", live = { downtimeLimitMs: 50 } } = options;
  const suites = { user: [suite], kernelText: [suite], kernelData: [suite], unmapped: [suite] };
  // By these types the micro-VM has the ports' shape.
  const sourceVm: SourceVm = new MicroSource(from);
  const destinationVm: DestinationVm = new MicroDestination(to);
  const loopback = new Loopback({ capacityBytes: MIB });
  const common = { registry, clock: systemClock, agentCpuSeconds: ownCpuSeconds };
  const listening = new AbortController();
  let equalBeforeRun: boolean | null = null;
  const source = new Source({
    ...common,
    vm: sourceVm,
    dial: () => Promise.resolve(loopback.dial()),
    identity: identities.source,
    peer: { publicKey: identities.destination.publicKey, name: "b" },
    suites,
    limits: {
      reconnectMs: 120_000,
      maxStopMs: 60_000,
      repairBudgetBytes: 64 * MIB,
      windowBytes: 16 * MIB,
    },
    live,
    journals: new MemoryJournals(),
    signal: options.signal ?? new AbortController().signal,
    keepSource: true,
  });
  const destination = new Destination({
    ...common,
    vm: destinationVm,
    listener: loopback,
    identity: identities.destination,
    allowed: [{ publicKey: identities.source.publicKey, name: "a" }],
    suites,
    repairBudgetBytes: 64 * MIB,
    journals: new MemoryJournals(),
    signal: listening.signal,
    entered: (state) => {
      if (state === "taking") {
        equalBeforeRun = Buffer.compare(from.memory, to.memory) === 0;
      }
    },
  });
  const received = destination.run();
  const sent = await source.run();
  if (sent.outcome !== "completed") listening.abort();
  return { source: sent, destination: await received, equalBeforeRun };
}

const guests: Record<string, { vcpus: number; guest: MicroGuestOptions; suite?: string }> = {
  "one vCPU": { vcpus: 1, guest: { dirtyPagesPerSecond: 5_000 } },
  "two vCPUs": { vcpus: 2, guest: { dirtyPagesPerSecond: 5_000 } },
  "a guest that writes as fast as it can to 1 MiB": { vcpus: 1, guest: { workingSetBytes: MIB } },
  "ChaCha20-Poly1305": {
    vcpus: 1,
    guest: { dirtyPagesPerSecond: 2_000 },
    suite: "chacha20-poly1305",
  },
  "a third party's suite": { vcpus: 1, guest: { dirtyPagesPerSecond: 500 }, suite: thirdParty.id },
};

for (const [name, { vcpus, guest, suite }] of Object.entries(guests)) {
  kvmTest(`Source and Destination move a running micro-VM with ${name}`, async () => {
    using from = await MicroVm.create({ memoryBytes: 16 * MIB, vcpus });
    using to = await MicroVm.create({ memoryBytes: 16 * MIB, vcpus });
    from.boot(guest);
    from.start();
    await from.untilBeats(3);
    const outcome = await migrate(from, to, suite === undefined ? {} : { suite });
    equal(outcome.source.outcome, "completed", outcome.source.error?.message);
    equal(outcome.destination.outcome, "completed");
    equal(outcome.equalBeforeRun, true);
    equal(outcome.source.landing, "mapped");
    ok((outcome.source.rounds?.length ?? 0) >= 2);
    ok(outcome.source.downtimeMs! > 0);
    equal(from.running, false);
    equal(to.running, true);
    await to.untilBeats(3);
    to.stop();
    for (const [cpu, check] of to.check().entries()) {
      deepEqual([check.filled, check.wrongPages, check.checksumFits], [true, [], true]);
      equal(to.beats(cpu)[0]!.value, from.beats(cpu).at(-1)!.value + 1);
    }
  });
}

kvmTest("Source and Destination move a micro-VM that is paused, and it stays so", async () => {
  using from = await MicroVm.create({ memoryBytes: 8 * MIB });
  using to = await MicroVm.create({ memoryBytes: 8 * MIB });
  from.boot({ dirtyPagesPerSecond: 1_000 });
  from.start();
  await from.untilBeats(3);
  from.stop();
  const { source, equalBeforeRun } = await migrate(from, to);
  equal(source.outcome, "completed", source.error?.message);
  equal(equalBeforeRun, true);
  equal(to.running, false);
  deepEqual(to.check(), from.check());
});

kvmTest("Source leaves a micro-VM running when the operator cancels", async () => {
  using from = await MicroVm.create({ memoryBytes: 16 * MIB });
  using to = await MicroVm.create({ memoryBytes: 16 * MIB });
  from.boot({});
  from.start();
  await from.untilBeats(3);
  const operator = new AbortController();
  // With a stop of no time at all it goes on for ever.
  const moving = migrate(from, to, {
    live: { downtimeLimitMs: 0 },
    signal: operator.signal,
  });
  await from.untilBeats(from.beats(0).length + 50);
  operator.abort();
  const { source } = await moving;
  equal(source.outcome, "aborted");
  equal(source.sourceState, "running");
  equal(from.running, true);
  await from.untilBeats(from.beats(0).length + 3);
  from.stop();
  deepEqual(from.check()[0]?.wrongPages, []);
});

kvmTest("Destination refuses a micro-VM of another shape", async () => {
  using from = await MicroVm.create({ memoryBytes: 8 * MIB });
  using to = await MicroVm.create({ memoryBytes: 6 * MIB });
  from.boot({ dirtyPagesPerSecond: 100 });
  from.start();
  const { source } = await migrate(from, to);
  equal(source.outcome, "refused");
  match(source.error?.message ?? "", /memory block micro\.ram/);
  equal(from.running, true);
});

kvmTest("Source ends with the guest's own fault when it cannot go on", async () => {
  using from = await MicroVm.create({ memoryBytes: 16 * MIB });
  using to = await MicroVm.create({ memoryBytes: 16 * MIB });
  from.boot({});
  from.start();
  await from.untilBeats(3);
  const moving = migrate(from, to, { live: { downtimeLimitMs: 0 } });
  await from.untilBeats(from.beats(0).length + 20);
  // A page in the middle of the working set is not as the guest left it.
  from.memory[8 * MIB]! ^= 1;
  const { source } = await moving;
  equal(source.outcome, "aborted");
  match(source.error?.message ?? "", /its memory is not as it left it/);
  equal(source.sourceState, "paused");
});
