/**
 * `receive`, put together: the VM, the algorithm, the terminal.
 *
 * @module
 */

import { QemuDestination } from "../kvm/qemu_destination.ts";
import type { DestinationVm } from "../migration/ports.ts";
import { makeDestination, resolveAllowed } from "./destination_side.ts";
import { printJson } from "./json_lines.ts";
import type { MicroHost } from "./micro_host.ts";
import { loadProtection } from "./protection.ts";
import type { ReceiveOptions } from "./receive.ts";
import { formatBytes } from "./report.ts";
import { withReport } from "./run_report.ts";
import { makeStateDirectory, readIdentityFile, stateDirectory } from "./state_directory.ts";
import { testHold } from "./test_hold.ts";

const PROGRESS_INTERVAL_MS = 500;

/** Runs `receive`. @returns the exit code */
export function runReceive(options: ReceiveOptions): Promise<number> {
  return withReport(
    options,
    { side: "destination", dryRun: false, profile: options.profile },
    async ({ terminal, signal, interrupt, warn }) => {
      const directory = stateDirectory(options);
      await makeStateDirectory(directory);
      const allowed = await resolveAllowed(directory, options.allow);
      const identity = await readIdentityFile(options.identity ?? directory.identity);
      await using stack = new AsyncDisposableStack();
      const protection = await loadProtection(options, {
        address: options.listen,
        stack,
        terminal,
        warn,
      });
      const accepted = await protection.ofDestination({ onFailure: warn });
      const { vm, micro } = await attach(options, stack);
      const hold = testHold(signal);
      const { destination, address, landing, notes } = await makeDestination(options, {
        vm,
        qmp: "micro" in options.vm ? undefined : options.vm.qmp,
        directory,
        identity,
        allowed,
        accepted,
        signal,
        stack,
        watch: {
          entered: (state) => {
            if (options.json) printJson({ type: "state", state });
            terminal.detail(state);
            return hold?.(state);
          },
          onNote: ({ text, migrationId }) => {
            if (options.json) printJson({ type: "note", text, migrationId });
            terminal.line(text);
          },
        },
      });
      if (options.json) printJson({ type: "listening", address, landing });
      terminal.line(`listening on ${address}, landing ${landing}`);
      for (const note of notes) terminal.line(`note: ${note}`);
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
}> {
  if ("micro" in options.vm) {
    const { MicroHost } = await import("./micro_host.ts");
    const host = stack.use(await MicroHost.create(options.vm, options));
    return { vm: host.destination(), micro: { host, runForMs: options.vm.runForMs } };
  }
  const { qmp, land } = options.vm;
  return { vm: stack.use(await QemuDestination.attach(qmp, { land })), micro: null };
}
