/**
 * The source's side, put together: what `send` and a script's `migrate` have alike.
 *
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import type { MicroSource } from "../kvm/micro/micro_source.ts";
import { QemuSource } from "../kvm/qemu_source.ts";
import { MigrationError } from "../migration/errors.ts";
import { messageOf } from "../migration/failure.ts";
import { encodeKey, type Identity } from "../migration/identity.ts";
import { DEFAULT_REPAIR_BUDGET_BYTES, DEFAULT_WINDOW_BYTES } from "../migration/limits.ts";
import { MAX_REPAIR_BUDGET_BYTES } from "../migration/messages.ts";
import { quiet } from "../migration/observers.ts";
import type { PolicyRounds } from "../migration/policy_rounds.ts";
import type { LiveSettings, PageClassifier } from "../migration/ports.ts";
import { Source } from "../migration/source.ts";
import type { SourceOptions } from "../migration/source_options.ts";
import { systemReason } from "./cli_error.ts";
import { ownCpuSeconds, systemClock } from "./clock.ts";
import { FileJournalStore } from "./journal_store.ts";
import { closeBeforeSend } from "./older_journals.ts";
import type { ResolvedPeer } from "./peers.ts";
import type { Protection } from "./protection.ts";
import type { StateDirectory } from "./state_directory.ts";
import { type Address, formatAddress } from "./values.ts";

/** What is under way when a micro-VM stops adds to its downtime, and it stops within milliseconds. */
const MICRO_WINDOW_BYTES = 8 * 1024 * 1024;

/** How the VM is to be moved. */
export interface SourceSettings
  extends
    Pick<SourceOptions, "maxRounds" | "maxTimeMs" | "keepSource" | "dryRun" | "vmId" | "live"> {
  to: Address;
  /** A suite's id; undefined leaves it to the policy, or is the profile's default. */
  cipher: string | undefined;
  /** Time without a connection, in all. */
  reconnectMs: number;
  /** Time that the VM may stand still, in all. */
  maxStopMs: number;
  /** What is done when damage does not end, if the policy does not say. */
  onTamper: "abort" | "ask";
}

/** Who is told what. */
export type SourceWatch = Pick<
  SourceOptions,
  "entered" | "onRound" | "onNote" | "onTamper" | "askTamper"
>;

/** A source for a VM that is attached, once its policy has said yes. The stack ends what it needs. */
export async function makeSource(settings: SourceSettings, world: {
  vm: QemuSource | MicroSource;
  /** QEMU's monitor; undefined for a micro-VM. */
  qmp: string | undefined;
  directory: StateDirectory;
  identity: Identity;
  peer: ResolvedPeer;
  protection: Protection;
  signal: AbortSignal;
  stack: AsyncDisposableStack;
  watch: SourceWatch;
}): Promise<Source> {
  const { to, cipher, reconnectMs, maxStopMs } = settings;
  const { vm, qmp, directory, identity, peer, protection, signal, stack, watch } = world;
  const isQemu = vm instanceof QemuSource;
  const { suites, sensitivity, ...decided } = await protection.ofSource(vm.facts, { peer, cipher });
  const onTamper = decided.onTamper ?? settings.onTamper;
  const journals = new FileJournalStore(directory.migrations);
  const { dryRun = false } = settings;
  if (dryRun) await journals.check();
  if (isQemu) {
    const { facts: { process }, before } = vm;
    await closeBeforeSend(directory.migrations, { process, before, time: new Date() }, { dryRun });
  }
  const onRound = quiet(watch.onRound);
  const policyFailed = new AbortController();
  const policyRounds = await openPolicyRounds(protection, {
    tune: (live) => vm.tune(live),
    onError: (error) => {
      // Once the VM has stopped there is nothing left to tune.
      if (source.state in { starting: 1, setup: 1, copying: 1 }) policyFailed.abort(error);
      else quiet(watch.onNote)(error.message);
    },
  });
  const source: Source = new Source({
    ...watch,
    vm,
    dial: () => dial(to),
    identity,
    peer: { publicKey: peer.publicKey, name: peer.name ?? encodeKey(peer.publicKey) },
    registry: defaultRegistry(),
    profile: protection.profile,
    suites,
    sensitivity,
    limits: {
      reconnectMs,
      maxStopMs,
      // Whoever is asked may want to go on beyond what is repaired unasked.
      repairBudgetBytes: onTamper === "ask" ? MAX_REPAIR_BUDGET_BYTES : DEFAULT_REPAIR_BUDGET_BYTES,
      windowBytes: isQemu ? DEFAULT_WINDOW_BYTES : MICRO_WINDOW_BYTES,
    },
    journals,
    journalFacts: qmp === undefined ? {} : { qmp: await Deno.realPath(qmp) },
    live: settings.live,
    vmId: settings.vmId,
    maxRounds: settings.maxRounds,
    maxTimeMs: settings.maxTimeMs,
    keepSource: settings.keepSource,
    dryRun: settings.dryRun,
    clock: systemClock,
    signal: AbortSignal.any([signal, policyFailed.signal]),
    operatorSignal: signal,
    classifier: isQemu ? () => openMonitor(vm, stack) : undefined,
    onRound: (round) => {
      onRound(round);
      policyRounds?.closed(round);
    },
    askTamper: onTamper === "ask" ? watch.askTamper : undefined,
    agentCpuSeconds: ownCpuSeconds,
  });
  return source;
}

/** The monitor function; what holds it goes onto the stack. */
async function openMonitor(vm: QemuSource, stack: AsyncDisposableStack): Promise<PageClassifier> {
  const { Monitor } = await import("../migration/monitor.ts");
  return new Monitor({ reader: stack.use(await vm.openPaging()), clock: systemClock });
}

/** The policy's say in each round; null when it has none. */
async function openPolicyRounds(
  { policy }: Protection,
  options: {
    tune: (settings: LiveSettings) => Promise<void>;
    onError: (error: MigrationError) => void;
  },
): Promise<PolicyRounds | null> {
  if (policy === null || policy.round === undefined) return null;
  const { PolicyRounds } = await import("../migration/policy_rounds.ts");
  return new PolicyRounds({
    policy,
    tune: options.tune,
    onError: (cause) =>
      options.onError(
        new MigrationError(
          "interrupted",
          `Cannot go on: policy ${policy.name} failed: ${messageOf(cause)}`,
          { hint: "`sealift policy check` tries a policy's round, too", cause },
        ),
      ),
  });
}

async function dial(to: Address): Promise<Deno.TcpConn> {
  try {
    const conn = await Deno.connect({ hostname: to.host, port: to.port });
    conn.setNoDelay(true);
    return conn;
  } catch (cause) {
    throw new MigrationError("vm", `Cannot reach ${formatAddress(to)}: ${systemReason(cause)}`, {
      hint: "start `sealift receive` there first, and look at firewalls between the hosts",
      cause,
    });
  }
}
