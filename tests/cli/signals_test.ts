import assert from "node:assert/strict";

const module = new URL("../../cli/", import.meta.url).href;

const program = `
import { Interrupt } from "${module}signals.ts";
import { Terminal } from "${module}terminal.ts";
using interrupt = new Interrupt(new Terminal({ color: false }));
console.log("ready");
await new Promise((resolve) => interrupt.signal.addEventListener("abort", resolve));
const told = new Promise((resolve) => Deno.addSignalListener("SIGUSR1", resolve));
console.log("aborted");
await told;
Deno.exit(0);
`;

Deno.test("Interrupt aborts at the first signal and says so again at the second", async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["eval", "--ext=ts", program],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const stdout = linesOf(child.stdout);
  const stderr = linesOf(child.stderr);
  assert.equal(await stdout(), "ready");
  child.kill("SIGINT");
  assert.equal(await stdout(), "aborted");
  assert.equal(await stderr(), "warning: cancelling");
  child.kill("SIGTERM");
  assert.match(await stderr() ?? "", /^warning: already cancelling/);
  child.kill("SIGUSR1");
  assert.equal(await stdout(), null);
  assert.equal(await stderr(), null);
  assert.equal((await child.status).code, 0);
});

/** Gives one line at each call, and null at the end. */
function linesOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): () => Promise<string | null> {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  return async () => {
    for (;;) {
      const end = rest.indexOf("\n");
      if (end >= 0) {
        const line = rest.slice(0, end);
        rest = rest.slice(end + 1);
        return line;
      }
      const { value, done } = await reader.read();
      if (done) return null;
      rest += value;
    }
  };
}
