/**
 * A whole migration from a script: copy it, change the policy, run it where the VM is.
 *
 *     deno run -A scripts/migrate_vm.ts /run/vm1.qmp host-b:7900 host-b
 *
 * The other host runs `sealift receive`, or `scripts/receive_vm.ts`.
 *
 * @module
 */

import { definePolicy, migrate } from "../mod.ts";

const [qmp, to, peer] = Deno.args;
if (qmp === undefined || to === undefined || peer === undefined) {
  console.error("usage: deno run -A scripts/migrate_vm.ts QMP HOST:PORT PEER");
  Deno.exit(2);
}

const result = await migrate({
  qmp,
  to,
  peer,
  policy: definePolicy({
    name: "by-name",
    levels: {
      ordinary: { suites: ["aes-128-gcm", "aes-256-gcm"] },
      payment: { suites: ["aes-256-gcm"] },
    },
    select: (vm) => vm.name?.startsWith("pay-") ? "payment" : "ordinary",
  }),
  maxStopMs: 2_000,
  onRound: ({ round, bytes }) => console.error(`round ${round}: ${bytes} bytes of guest`),
  onNote: (text) => console.error(text),
});

const { outcome, error, suite, downtimeMs } = result;
console.log(
  outcome,
  error?.message ?? `sealed with ${suite}, stopped for ${downtimeMs?.toFixed(1)} ms`,
);
if (error?.hint) console.error(error.hint);
Deno.exit(outcome === "completed" ? 0 : 1);
