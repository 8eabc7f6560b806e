/**
 * `receive`, put together: QEMU, the algorithm, the terminal.
 *
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import { sealedSuiteIds } from "../ciphers/sealed.ts";
import { QemuDestination } from "../kvm/qemu_destination.ts";
import { Destination } from "../migration/destination.ts";
import { encodeKey } from "../migration/identity.ts";
import { DEFAULT_REPAIR_BUDGET_BYTES } from "../migration/limits.ts";
import { ownCpuSeconds, systemClock } from "./clock.ts";
import { CliError, systemReason } from "./cli_error.ts";
import { FileJournalStore } from "./journal_store.ts";
import { printJson } from "./json_lines.ts";
import { resolvePeer } from "./peers.ts";
import type { ReceiveOptions } from "./receive.ts";
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
    async ({ terminal, signal }) => {
      const directory = stateDirectory(options);
      await makeStateDirectory(directory);
      const allowed = [];
      for (const nameOrKey of options.allow) {
        const { name, publicKey } = await resolvePeer(directory, nameOrKey);
        allowed.push({ publicKey, name: name ?? encodeKey(publicKey) });
      }
      const identity = await readIdentityFile(options.identity ?? directory.identity);
      await using vm = await QemuDestination.attach(options.qmp, { land: options.land });
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
        repairBudgetBytes: DEFAULT_REPAIR_BUDGET_BYTES,
        journals: new FileJournalStore(directory.migrations),
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
      try {
        return await destination.run();
      } finally {
        clearInterval(timer);
      }
    },
  );
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
