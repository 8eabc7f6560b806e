/**
 * The destination's side, put together: what `receive` and a script's `receive` have alike.
 *
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import { Destination } from "../migration/destination.ts";
import type { DestinationOptions } from "../migration/destination_options.ts";
import { encodeKey, type Identity } from "../migration/identity.ts";
import { MAX_REPAIR_BUDGET_BYTES } from "../migration/messages.ts";
import type { DestinationVm } from "../migration/ports.ts";
import { CliError, systemReason } from "./cli_error.ts";
import { ownCpuSeconds, systemClock } from "./clock.ts";
import { FileJournalStore } from "./journal_store.ts";
import { closeBeforeReceive } from "./older_journals.ts";
import { resolvePeer } from "./peers.ts";
import type { StateDirectory } from "./state_directory.ts";
import { type Address, formatAddress } from "./values.ts";

/** A destination that listens already. */
export interface DestinationSide {
  destination: Destination;
  /** HOST:PORT, with the port that was taken. */
  address: string;
  /** How pages will reach the VM's memory. */
  landing: string;
  /** Why nothing better was taken. */
  notes: string[];
}

/** A destination for a VM that is attached. The stack closes its port. */
export async function makeDestination(
  settings: { listen: Address; vmId?: string | undefined },
  world: {
    allowed: DestinationOptions["allowed"];
    /** What `Protection.ofDestination` gave. */
    accepted: Pick<DestinationOptions, "profile" | "suites" | "judge">;
    vm: DestinationVm;
    /** QEMU's monitor; undefined for a micro-VM. */
    qmp: string | undefined;
    directory: StateDirectory;
    identity: Identity;
    signal: AbortSignal;
    stack: AsyncDisposableStack;
    watch: Pick<DestinationOptions, "entered" | "onNote">;
  },
): Promise<DestinationSide> {
  const { listen, vmId } = settings;
  const { vm, qmp, directory, identity, allowed, accepted, signal, stack, watch } = world;
  // A landing that was asked for by name and cannot be is known now, not when a source calls.
  const { landing, notes } = await vm.probe();
  // Micro-VMs are threads of this process, which may have others: it is nobody's mark.
  if (qmp !== undefined) {
    const held = { process: vm.facts.process, time: new Date() };
    await closeBeforeReceive(directory.migrations, held);
  }
  const listener = stack.use(listenAt(listen));
  const { hostname, port } = listener.addr;
  const destination = new Destination({
    ...watch,
    ...accepted,
    vm,
    listener: { accept: () => acceptFrom(listener), close: () => listener.close() },
    identity,
    allowed,
    registry: defaultRegistry(),
    // The source's own counts, unless it asks somebody to go on beyond it.
    repairBudgetBytes: MAX_REPAIR_BUDGET_BYTES,
    journals: new FileJournalStore(directory.migrations),
    journalFacts: qmp === undefined ? {} : { qmp: await Deno.realPath(qmp) },
    clock: systemClock,
    signal,
    vmId,
    agentCpuSeconds: ownCpuSeconds,
  });
  return { destination, address: formatAddress({ host: hostname, port }), landing, notes };
}

/** Who may send. @throws {CliError} `usage` for a name that is not known here */
export async function resolveAllowed(
  directory: StateDirectory,
  namesOrKeys: readonly string[],
): Promise<{ publicKey: Uint8Array; name: string }[]> {
  const allowed = [];
  for (const nameOrKey of namesOrKeys) {
    const { name, publicKey } = await resolvePeer(directory, nameOrKey);
    allowed.push({ publicKey, name: name ?? encodeKey(publicKey) });
  }
  return allowed;
}

async function acceptFrom(listener: Deno.TcpListener): Promise<Deno.TcpConn> {
  const conn = await listener.accept();
  try {
    conn.setNoDelay(true);
  } catch {
    // It was reset already: who reads it will notice.
  }
  return conn;
}

function listenAt(at: Address): Deno.TcpListener {
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
