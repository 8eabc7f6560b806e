/**
 * `receive`, put together: the VM, the algorithm, the terminal.
 *
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import { sealedSuiteIds } from "../ciphers/sealed.ts";
import { QemuDestination } from "../kvm/qemu_destination.ts";
import { Destination } from "../migration/destination.ts";
import { encodeKey } from "../migration/identity.ts";
import { MAX_REPAIR_BUDGET_BYTES } from "../migration/messages.ts";
import type { DestinationVm } from "../migration/ports.ts";
import { ownCpuSeconds, systemClock } from "./clock.ts";
import { CliError, systemReason } from "./cli_error.ts";
import { FileJournalStore } from "./journal_store.ts";
import { printJson } from "./json_lines.ts";
import { resolvePeer } from "./peers.ts";
import type { ReceiveOptions } from "./receive.ts";
import type { MicroHost } from "./micro_host.ts";
import { formatBytes } from "./report.ts";
import { withReport } from "./run_report.ts";
import { makeStateDirectory, readIdentityFile, stateDirectory } from "./state_directory.ts";
import { testHold } from "./test_hold.ts";
import { type Address, formatAddress } from "./values.ts";

const PROGRESS_INTERVAL_MS = 500;

/** Runs `receive`. @returns the exit code */
export function runReceive(options: ReceiveOptions): Promise<number> {
  return withReport(
    options,
    { side: "destination", dryRun: false },
    async ({ terminal, signal, interrupt, warn }) => {
      const directory = stateDirectory(options);
      await makeStateDirectory(directory);
      const allowed = [];
      for (const nameOrKey of options.allow) {
        const { name, publicKey } = await resolvePeer(directory, nameOrKey);
        allowed.push({ publicKey, name: name ?? encodeKey(publicKey) });
      }
      const identity = await readIdentityFile(options.identity ?? directory.identity);
      await using stack = new AsyncDisposableStack();
      const { vm, micro, journalFacts } = await attach(options, stack);
      // A landing that was asked for by name and cannot be is known now, not when a source calls.
      const { landing, notes } = await vm.probe();
      using listener = listen(options.listen);
      const { hostname, port } = listener.addr;
      const address = formatAddress({ host: hostname, port });
      if (options.json) printJson({ type: "listening", address, landing });
      terminal.line(`listening on ${address}, landing ${landing}`);
      for (const note of notes) terminal.line(`note: ${note}`);
      const hold = testHold(signal);
      const suites = [...sealedSuiteIds];
      const destination = new Destination({
        vm,
        listener: {
          async accept() {
            const conn = await listener.accept();
            conn.setNoDelay(true);
            return conn;
          },
          close: () => listener.close(),
        },
        identity,
        allowed,
        registry: defaultRegistry(),
        suites: { user: suites, kernelText: suites, kernelData: suites, unmapped: suites },
        // The source's own counts, unless it asks somebody to go on beyond it.
        repairBudgetBytes: MAX_REPAIR_BUDGET_BYTES,
        journals: new FileJournalStore(directory.migrations),
        journalFacts,
        clock: systemClock,
        signal,
        vmId: options.vmId,
        entered: async (state) => {
          if (options.json) printJson({ type: "state", state });
          terminal.detail(state);
          await hold?.(state);
        },
        onNote: ({ text, migrationId }) => {
          if (options.json) printJson({ type: "note", text, migrationId });
          terminal.line(text);
        },
        agentCpuSeconds: ownCpuSeconds,
      });
      const timer = setInterval(() => {
        if (destination.id !== null) {
          terminal.progress(`${destination.state}  ${formatBytes(destination.landedBytes)} landed`);
        }
      }, PROGRESS_INTERVAL_MS);
      const result = await destination.run().finally(() => clearInterval(timer));
      if (micro !== null && result.destinationState === "running") {
        terminal.line(`running here${micro.runForMs === undefined ? "; Ctrl-C ends it" : ""}`);
        interrupt.expect();
        const fault = await micro.host.runOn({ signal, ms: micro.runForMs });
        if (fault !== null) warn(`the micro-VM has failed: ${fault}`);
      }
      return result;
    },
  );
}

/** The VM that waits; what holds it goes onto the stack. */
async function attach(options: ReceiveOptions, stack: AsyncDisposableStack): Promise<{
  vm: DestinationVm;
  micro: { host: MicroHost; runForMs: number | undefined } | null;
  journalFacts: Record<string, unknown>;
}> {
  if ("micro" in options.vm) {
    const { MicroHost } = await import("./micro_host.ts");
    const host = stack.use(await MicroHost.create(options.vm, options));
    const { runForMs } = options.vm;
    return { vm: host.destination(), micro: { host, runForMs }, journalFacts: {} };
  }
  const { qmp, land } = options.vm;
  const vm = stack.use(await QemuDestination.attach(qmp, { land }));
  return { vm, micro: null, journalFacts: { qmp: await Deno.realPath(qmp) } };
}

function listen(at: Address): Deno.TcpListener {
  try {
    return Deno.listen({ hostname: at.host, port: at.port });
  } catch (cause) {
    const what = `Cannot listen at ${formatAddress(at)}`;
    if (cause instanceof Deno.errors.AddrInUse) {
      throw new CliError("io", `${what}: the port is in use`, {
        hint: "end what listens there, or give --listen another port; port 0 takes a free one",
        cause,
      });
    }
    if (cause instanceof Deno.errors.PermissionDenied) {
      throw new CliError("permission", `${what}: permission denied`, {
        hint: "ports below 1024 are root's; give --listen another one",
        cause,
      });
    }
    throw new CliError("io", `${what}: ${systemReason(cause)}`, {
      hint:
        "--listen takes an address of this host; [::]:PORT and 0.0.0.0:PORT stand for all of them",
      cause,
    });
  }
}
