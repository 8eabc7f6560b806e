/**
 * `receive`: the destination side of a migration.
 *
 * @module
 */

import { merge, object } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { multiple, optional, withDefault } from "@optique/core/modifiers";
import { command, constant, option } from "@optique/core/primitives";
import { choice } from "@optique/core/valueparser";
import {
  addressValue,
  type CommonOptions,
  commonOptions,
  examples,
  pathValue,
  peerValue,
  uuidValue,
} from "./options.ts";
import type { Address } from "./values.ts";

/** How pages reach the memory of the destination's QEMU; `auto` takes the best that works. */
export const landModes = ["auto", "mapped", "process", "stream"] as const;
/** One of {@linkcode landModes}. */
export type LandMode = typeof landModes[number];

/** What `receive` was told. */
export interface ReceiveOptions extends CommonOptions {
  command: "receive";
  /** QEMU's QMP socket. */
  qmp: string;
  /** Port 0 takes a free one. */
  listen: Address;
  /** Names of the list, or public keys: at least one. See `resolvePeer`. */
  allow: readonly string[];
  land: LandMode;
  /** In the place of the VM's own UUID, on both ends. */
  vmId: string | undefined;
}

/** The parser of {@linkcode ReceiveOptions}. */
export const receiveCommand = command(
  "receive",
  merge(
    object({
      command: constant("receive"),
      qmp: option("--qmp", pathValue("PATH"), {
        description: message`QMP socket of a QEMU started with -incoming defer.`,
      }),
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
      land: withDefault(
        option("--land", choice(landModes, { metavar: "MODE" }), {
          description:
            message`How pages reach the VM's memory: mapped, process or stream; auto takes the best that works.`,
        }),
        "auto",
      ),
      vmId: optional(option("--vm-id", uuidValue, {
        description: message`In the place of the VM's UUID; give the same to send.`,
      })),
    }),
    commonOptions,
  ),
  {
    brief: message`Take in one VM, then exit: the destination's side.`,
    footer: examples(
      "sealift receive --qmp /run/vm1.qmp --listen [::]:7900 --allow host-a",
      "sealift receive --qmp /run/vm1.qmp --listen 192.0.2.8:0 --allow host-a --allow host-c --json",
    ),
  },
);

/** Runs it; what it needs is loaded only now. */
export async function executeReceive(options: ReceiveOptions): Promise<number> {
  const { runReceive } = await import("./receive_run.ts");
  return await runReceive(options);
}
