/**
 * `send`, put together: the VM, the algorithm, the terminal.
 *
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import type { MicroSource } from "../kvm/micro/micro_source.ts";
import { QemuSource } from "../kvm/qemu_source.ts";
import { encodeKey } from "../migration/identity.ts";
import type { LiveSettings } from "../migration/ports.ts";
import { askTamper } from "./ask_tamper.ts";
import { LiveProgress } from "./live_progress.ts";
import { resolvePeer } from "./peers.ts";
import { loadProtection } from "./protection.ts";
import { withReport } from "./run_report.ts";
import type { SendOptions } from "./send.ts";
import { makeSource } from "./source_side.ts";
import { makeStateDirectory, readIdentityFile, stateDirectory } from "./state_directory.ts";
import { testHold } from "./test_hold.ts";
import { formatAddress } from "./values.ts";

/** Runs `send`. @returns the exit code */
export function runSend(options: SendOptions): Promise<number> {
  const { dryRun, profile } = options;
  const start = { side: "source", dryRun, profile } as const;
  return withReport(options, start, async ({ terminal, signal, checks, warn }) => {
    await using stack = new AsyncDisposableStack();
    const protection = await loadProtection(options, {
      address: options.to,
      stack,
      terminal,
      warn,
    });
    protection.checkCipher(options.cipher);
    const directory = stateDirectory(options);
    await makeStateDirectory(directory);
    const identity = await readIdentityFile(options.identity ?? directory.identity);
    checks.passed("identity", encodeKey(identity.publicKey));
    const peer = await resolvePeer(directory, options.peer);
    checks.passed("peer", encodeKey(peer.publicKey));
    const attaching = attach(options, stack);
    // Opens libcrypto, while QEMU answers.
    defaultRegistry();
    const vm = await attaching;
    if (vm instanceof QemuSource) checks.attached(vm);
    else checks.passed("capabilities", "a micro-VM of this process");
    for (const drive of vm.facts.localDrives) {
      warn(
        `${drive} is a writable local drive: Sealift does not copy disks; both hosts need the same one`,
      );
    }
    using progress = new LiveProgress({ terminal, vm, json: options.json });
    const hold = testHold(signal);
    const source = await makeSource({ ...options, live: liveSettings(options) }, {
      vm,
      qmp: "micro" in options.vm ? undefined : options.vm.qmp,
      directory,
      identity,
      peer,
      protection,
      signal,
      stack,
      watch: {
        entered: (state) => {
          progress.entered(state);
          return hold?.(state);
        },
        onRound: (round) => progress.round(round),
        onNote: (text) => progress.note(text),
        onTamper: (text) => progress.tampered(text),
        askTamper: (text) => askTamper(text, { terminal, json: options.json, signal }),
      },
    });
    if (options.dryRun) checks.passed("journal", directory.migrations);
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
): Promise<QemuSource | MicroSource> {
  if (!("micro" in options.vm)) return stack.use(await QemuSource.attach(options.vm.qmp));
  const { MicroHost } = await import("./micro_host.ts");
  return stack.use(await MicroHost.boot(options.vm, options)).source();
}

function liveSettings(options: SendOptions): LiveSettings {
  const { maxBandwidth, downtimeLimitMs, autoConverge } = options;
  return {
    maxBandwidth: maxBandwidth ?? 0,
    ...(downtimeLimitMs === undefined ? {} : { downtimeLimitMs }),
    ...(autoConverge ? { autoConverge } : {}),
  };
}
