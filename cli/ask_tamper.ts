/**
 * `--on-tamper ask`: the administrator determines the next step, as the paper has it.
 *
 * @see Paper, section 3.1 "Integrity"
 * @module
 */

import { printJson } from "./json_lines.ts";
import type { Terminal } from "./terminal.ts";

/** Asks on the terminal, or with a JSON line; one line on stdin answers. @returns whether to go on */
export async function askTamper(
  text: string,
  world: { terminal: Terminal; json: boolean; signal: AbortSignal },
): Promise<boolean> {
  const { terminal, json, signal } = world;
  if (json) printJson({ type: "ask", question: "tampering", text });
  terminal.warn(text);
  terminal.line("go on? the VM waits, within --max-stop (yes/no)");
  const aborted = Promise.withResolvers<null>();
  const onAbort = () => aborted.resolve(null);
  signal.addEventListener("abort", onAbort);
  const answer = new Uint8Array(64);
  try {
    const count = await Promise.race([Deno.stdin.read(answer), aborted.promise]);
    return count !== null &&
      /^y(es)?\s*$/i.test(new TextDecoder().decode(answer.subarray(0, count)));
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
