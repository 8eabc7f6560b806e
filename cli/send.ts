/**
 * `send`: the source side of a migration.
 *
 * @module
 */

import { merge, object, or } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { optional, withDefault } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import { choice } from "@optique/core/valueparser";
import { DEFAULT_MAX_STOP_MS, DEFAULT_RECONNECT_MS } from "../migration/limits.ts";
import { type MicroGuest, microGuestOptions } from "./micro_options.ts";
import {
  addressValue,
  type CommonOptions,
  commonOptions,
  countValue,
  durationValue,
  examples,
  pathValue,
  peerValue,
  rateValue,
  uuidValue,
} from "./options.ts";
import type { NetworkProtectionOptions } from "./protection.ts";
import { cipherOption, labNetworkOption, protectionOptions } from "./protection_options.ts";
import type { Address } from "./values.ts";

/** What `send` was told. */
export interface SendOptions extends CommonOptions, NetworkProtectionOptions {
  command: "send";
  /** QEMU's QMP socket, or a micro-VM that is made for it. */
  vm: { qmp: string } | MicroGuest;
  to: Address;
  /** A name of the list, or a public key: see `resolvePeer`. */
  peer: string;
  /** A suite's id; undefined leaves it to the policy, or is the profile's default. */
  cipher: string | undefined;
  /** Bytes per second; undefined is no limit. */
  maxBandwidth: number | undefined;
  /** QEMU's own setting is left as it is when undefined. */
  downtimeLimitMs: number | undefined;
  /** How long the VM may stand still in all before the migration is given up. */
  maxStopMs: number;
  /** Time without a connection in all before the migration is given up. */
  reconnectMs: number;
  /** What to do when damage does not end. */
  onTamper: "abort" | "ask";
  /** Rounds with the VM running; undefined is no limit. */
  maxRounds: number | undefined;
  /** From the start to the last round; undefined is no limit. */
  maxTimeMs: number | undefined;
  autoConverge: boolean;
  /** In the place of the VM's own UUID, on both ends. */
  vmId: string | undefined;
  /** Leave the source's QEMU in `postmigrate` instead of ending it. */
  keepSource: boolean;
  /** Check everything, move nothing. */
  dryRun: boolean;
}

/** The parser of {@linkcode SendOptions}. */
export const sendCommand = command(
  "send",
  merge(
    object({
      command: constant("send"),
      vm: or(
        object("QEMU", {
          qmp: option("--qmp", pathValue("PATH"), {
            description: message`QEMU's QMP socket on this host.`,
          }),
        }),
        microGuestOptions(message`Boot a micro-VM in this process, and move that.`),
        { errors: { noMatch: message`Missing option \`--qmp\` or \`--micro\`.` } },
      ),
      to: option("--to", addressValue({ listen: false }), {
        description: message`Where the destination listens.`,
      }),
      peer: option("--peer", peerValue, {
        description: message`Who the destination is: a name of the list, or its public key.`,
      }),
      cipher: cipherOption,
      labNetwork: labNetworkOption,
      maxBandwidth: optional(option("--max-bandwidth", rateValue, {
        description: message`Bytes per second, such as 100MiB/s (default: no limit).`,
      })),
      downtimeLimitMs: optional(option("--downtime-limit", durationValue, {
        description: message`Downtime that QEMU aims at, such as 300ms (default: QEMU's own).`,
      })),
      maxStopMs: withDefault(
        option("--max-stop", durationValue, {
          description:
            message`How long the VM may stand still in all; after it the migration is given up and the VM runs on.`,
        }),
        DEFAULT_MAX_STOP_MS,
      ),
      reconnectMs: withDefault(
        option("--reconnect", durationValue, {
          description:
            message`How long the connection may be lost in all; it is dialled again meanwhile.`,
        }),
        DEFAULT_RECONNECT_MS,
      ),
      onTamper: withDefault(
        option("--on-tamper", choice(["abort", "ask"] as const, { metavar: "ACT" }), {
          description: message`When damage does not end: give up, or ask whether to go on.`,
        }),
        "abort",
      ),
      maxRounds: optional(
        option("--max-rounds", countValue({ min: 1, max: 1_000_000, metavar: "N" }), {
          description:
            message`After so many rounds the VM is stopped if the rest fits into --max-stop; if not, the migration is given up (default: no limit).`,
        }),
      ),
      maxTimeMs: optional(option("--max-time", durationValue, {
        description:
          message`Give up when the last round has not begun by then (default: no limit).`,
      })),
      autoConverge: option("--auto-converge", {
        description: message`Let QEMU slow the VM down when it dirties memory too fast.`,
      }),
      vmId: optional(option("--vm-id", uuidValue, {
        description: message`In the place of the VM's UUID; give the same to receive.`,
      })),
      keepSource: option("--keep-source", {
        description: message`Leave the source's QEMU, stopped for good, instead of ending it.`,
      }),
      dryRun: option("--dry-run", {
        description: message`Make every check on both ends, move nothing.`,
      }),
    }),
    protectionOptions({
      sensitivity: message`The VM's level, in the place of what the policy's select says.`,
    }),
    commonOptions,
  ),
  {
    brief: message`Move a running VM to another host: the source's side.`,
    footer: examples(
      "sealift send --qmp /run/vm1.qmp --to host-b:7900 --peer host-b --dry-run",
      "sealift send --qmp /run/vm1.qmp --to host-b:7900 --peer host-b",
      "sealift send --qmp /run/vm1.qmp --to [2001:db8::7]:7900 --peer host-b --max-bandwidth 1GB/s --max-stop 2s",
      "sealift send --qmp /run/vm1.qmp --to host-b:7900 --peer host-b --policy bank.ts --label pci",
      "sealift send --micro --memory 256 --dirty-rate 50MiB/s --to host-b:7900 --peer host-b",
    ),
  },
);

/** Runs it; what it needs is loaded only now. */
export async function executeSend(options: SendOptions): Promise<number> {
  const { runSend } = await import("./send_run.ts");
  return await runSend(options);
}
