/**
 * `receive`: the destination side of a migration.
 *
 * @module
 */

import { merge, object, or } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { multiple, optional, withDefault } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import { choice } from "@optique/core/valueparser";
import { type MicroPlace, microPlaceOptions } from "./micro_options.ts";
import {
  addressValue,
  type CommonOptions,
  commonOptions,
  examples,
  pathValue,
  peerValue,
  uuidValue,
} from "./options.ts";
import type { NetworkProtectionOptions } from "./protection.ts";
import { labNetworkOption, protectionOptions } from "./protection_options.ts";
import { type Address, type LandMode, landModes } from "./values.ts";

/** What `receive` was told. */
export interface ReceiveOptions extends CommonOptions, NetworkProtectionOptions {
  command: "receive";
  /** QEMU's QMP socket, or a micro-VM of this process. */
  vm: { qmp: string; land: LandMode } | MicroPlace;
  /** Port 0 takes a free one. */
  listen: Address;
  /** Names of the list, or public keys: at least one. See `resolvePeer`. */
  allow: readonly string[];
  /** In the place of the VM's own UUID, on both ends. */
  vmId: string | undefined;
}

/** The parser of {@linkcode ReceiveOptions}. */
export const receiveCommand = command(
  "receive",
  merge(
    object({
      command: constant("receive"),
      vm: or(
        object("QEMU", {
          qmp: option("--qmp", pathValue("PATH"), {
            description: message`QMP socket of a QEMU started with -incoming defer.`,
          }),
          land: withDefault(
            option("--land", choice(landModes, { metavar: "MODE" }), {
              description:
                message`How pages reach the VM's memory: mapped, process or stream; auto takes the best that works.`,
            }),
            "auto",
          ),
        }),
        microPlaceOptions(message`Take in a micro-VM, and run it in this process.`),
        { errors: { noMatch: message`Missing option \`--qmp\` or \`--micro\`.` } },
      ),
      listen: option("--listen", addressValue({ listen: true }), {
        description: message`Where to wait for the source; port 0 takes a free one.`,
      }),
      allow: multiple(
        option("--allow", peerValue, {
          description:
            message`Who may send: a name of the list, or a public key. May be given several times.`,
        }),
        { min: 1, errors: { tooFew: message`Missing option \`--allow\`.` } },
      ),
      vmId: optional(option("--vm-id", uuidValue, {
        description: message`In the place of the VM's UUID; give the same to send.`,
      })),
      labNetwork: labNetworkOption,
    }),
    protectionOptions({
      sensitivity: message`The lowest level of the policy that is taken in.`,
    }),
    commonOptions,
  ),
  {
    brief: message`Take in one VM, then exit: the destination's side.`,
    footer: examples(
      "sealift receive --qmp /run/vm1.qmp --listen [::]:7900 --allow host-a",
      "sealift receive --qmp /run/vm1.qmp --listen 192.0.2.8:0 --allow host-a --allow host-c --json",
      "sealift receive --qmp /run/vm1.qmp --listen [::]:7900 --allow host-a --policy bank.ts --sensitivity confidential",
      "sealift receive --micro --memory 256 --run-for 10s --listen [::]:7900 --allow host-a",
    ),
  },
);

/** Runs it; what it needs is loaded only now. */
export async function executeReceive(options: ReceiveOptions): Promise<number> {
  const { runReceive } = await import("./receive_run.ts");
  return await runReceive(options);
}
