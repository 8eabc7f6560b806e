/**
 * A hook for tests and the demo's proof: an agent that stands still at a named state until it is told to go on.
 *
 * `SEALIFT_TEST_HOLD=releasing` makes `send --json` print `{"type":"held","state":"releasing"}` when it enters that
 * state, and read one line from stdin before it goes on. Ctrl-C goes on at once. Nothing is held without the variable.
 *
 * @module
 */

import { printJson } from "./json_lines.ts";

/** The hook; undefined when the environment asks for none. */
export function testHold(signal: AbortSignal): ((state: string) => Promise<void>) | undefined {
  const states = Deno.env.get("SEALIFT_TEST_HOLD")?.split(",");
  if (states === undefined) return undefined;
  return async (state) => {
    if (!states.includes(state) || signal.aborted) return;
    printJson({ type: "held", state });
    const aborted = Promise.withResolvers<void>();
    const onAbort = () => aborted.resolve();
    signal.addEventListener("abort", onAbort);
    await Promise.race([aborted.promise, Deno.stdin.read(new Uint8Array(64))]);
    signal.removeEventListener("abort", onAbort);
  };
}
