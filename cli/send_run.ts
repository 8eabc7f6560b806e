/**
 * `send`, put together: the VM, the algorithm, the terminal.
 *
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import type { MicroSource } from "../kvm/micro/micro_source.ts";
import { QemuSource } from "../kvm/qemu_source.ts";
import { MigrationError } from "../migration/errors.ts";
import { encodeKey } from "../migration/identity.ts";
import { DEFAULT_REPAIR_BUDGET_BYTES, DEFAULT_WINDOW_BYTES } from "../migration/limits.ts";
import type { LiveSettings } from "../migration/ports.ts";
import { Source } from "../migration/source.ts";
import { ownCpuSeconds, systemClock } from "./clock.ts";
import { MAX_REPAIR_BUDGET_BYTES } from "../migration/messages.ts";
import { askTamper } from "./ask_tamper.ts";
import { appendRan } from "./journal_reader.ts";
import { systemReason } from "./cli_error.ts";
import { FileJournalStore } from "./journal_store.ts";
import { resolvePeer } from "./peers.ts";
import { LiveProgress } from "./live_progress.ts";
import { withReport } from "./run_report.ts";
import type { SendOptions } from "./send.ts";
import { makeStateDirectory, readIdentityFile, stateDirectory } from "./state_directory.ts";
import { testHold } from "./test_hold.ts";
import { formatAddress } from "./values.ts";

/** What is under way when a micro-VM stops adds to its downtime, and it stops within milliseconds. */
const MICRO_WINDOW_BYTES = 8 * 1024 * 1024;

/** Runs `send`. @returns the exit code */
export function runSend(options: SendOptions): Promise<number> {
  const start = { side: "source", dryRun: options.dryRun } as const;
  return withReport(options, start, async ({ terminal, signal, checks, warn }) => {
    const directory = stateDirectory(options);
    await makeStateDirectory(directory);
    const identity = await readIdentityFile(options.identity ?? directory.identity);
    checks.passed("identity", encodeKey(identity.publicKey));
    const peer = await resolvePeer(directory, options.peer);
    checks.passed("peer", encodeKey(peer.publicKey));
    await using stack = new AsyncDisposableStack();
    const attaching = attach(options, stack);
    // Opens libcrypto, while QEMU answers.
    const registry = defaultRegistry();
    const { vm, journalFacts } = await attaching;
    if (vm instanceof QemuSource) checks.attached(vm);
    else checks.passed("capabilities", "a micro-VM of this process");
    for (const drive of vm.facts.localDrives) {
      warn(
        `${drive} is a writable local drive: Sealift does not copy disks; both hosts need the same one`,
      );
    }
    const journals = new FileJournalStore(directory.migrations);
    if (options.dryRun) {
      await journals.check();
      checks.passed("journal", directory.migrations);
    } else {
      await appendRan(directory.migrations, { process: vm.facts.process, time: new Date() });
    }
    using progress = new LiveProgress({ terminal, vm, json: options.json });
    const hold = testHold(signal);
    const source = new Source({
      vm,
      dial: () => dial(options),
      identity,
      peer: { publicKey: peer.publicKey, name: peer.name ?? encodeKey(peer.publicKey) },
      registry,
      suites: {
        user: [options.cipher],
        kernelText: [options.cipher],
        kernelData: [options.cipher],
        unmapped: [options.cipher],
      },
      limits: {
        reconnectMs: options.reconnectMs,
        maxStopMs: options.maxStopMs,
        // Whoever is asked may want to go on beyond what is repaired unasked.
        repairBudgetBytes: options.onTamper === "ask"
          ? MAX_REPAIR_BUDGET_BYTES
          : DEFAULT_REPAIR_BUDGET_BYTES,
        windowBytes: vm instanceof QemuSource ? DEFAULT_WINDOW_BYTES : MICRO_WINDOW_BYTES,
      },
      live: liveSettings(options),
      journals,
      journalFacts,
      clock: systemClock,
      signal,
      vmId: options.vmId,
      maxRounds: options.maxRounds,
      maxTimeMs: options.maxTimeMs,
      keepSource: options.keepSource,
      dryRun: options.dryRun,
      entered: async (state) => {
        progress.entered(state);
        await hold?.(state);
      },
      onRound: (round) => progress.round(round),
      onNote: (text) => progress.note(text),
      onTamper: (text) => progress.tampered(text),
      askTamper: options.onTamper === "ask"
        ? (text) => askTamper(text, { terminal, json: options.json, signal })
        : undefined,
      agentCpuSeconds: ownCpuSeconds,
    });
    progress.watch(source);
    const result = await source.run();
    if (!(vm instanceof QemuSource) && !options.dryRun && result.sourceState !== "quit") {
      warn("the micro-VM was in this process, and ends with it");
    }
    checks.concluded(result, { address: formatAddress(options.to), peer: peer.publicKey });
    return result;
  });
}

/** The VM; what holds it goes onto the stack. */
async function attach(
  options: SendOptions,
  stack: AsyncDisposableStack,
): Promise<{ vm: QemuSource | MicroSource; journalFacts: Record<string, unknown> }> {
  if ("micro" in options.vm) {
    const { MicroHost } = await import("./micro_host.ts");
    const host = stack.use(await MicroHost.boot(options.vm, options));
    return { vm: host.source(), journalFacts: {} };
  }
  const { qmp } = options.vm;
  const vm = stack.use(await QemuSource.attach(qmp));
  return { vm, journalFacts: { qmp: await Deno.realPath(qmp) } };
}

async function dial({ to }: SendOptions): Promise<Deno.TcpConn> {
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

function liveSettings(options: SendOptions): LiveSettings {
  const { maxBandwidth, downtimeLimitMs, autoConverge } = options;
  return {
    maxBandwidth: maxBandwidth ?? 0,
    ...(downtimeLimitMs === undefined ? {} : { downtimeLimitMs }),
    ...(autoConverge ? { autoConverge } : {}),
  };
}
