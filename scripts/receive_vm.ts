/**
 * The other end of `scripts/migrate_vm.ts`: takes one VM into a QEMU that was started with `-incoming defer`.
 *
 *     deno run -A scripts/receive_vm.ts /run/vm1.qmp [::]:7900 host-a
 *
 * @module
 */

import { receive } from "../mod.ts";

const [qmp, listen, ...allow] = Deno.args;
if (qmp === undefined || listen === undefined || allow.length === 0) {
  console.error("usage: deno run -A scripts/receive_vm.ts QMP HOST:PORT PEER...");
  Deno.exit(2);
}

const { address, landing, result } = await receive({
  qmp,
  listen,
  allow,
  onNote: (text) => console.error(text),
});
console.error(`listening on ${address}, landing ${landing}`);

const { outcome, error, destinationState } = await result;
console.log(outcome, error?.message ?? `the VM is ${destinationState} here`);
if (error?.hint) console.error(error.hint);
Deno.exit(outcome === "completed" ? 0 : 1);
