import assert from "node:assert/strict";
import { printable, Terminal, type TerminalOptions } from "../../cli/terminal.ts";

function recorder(options: TerminalOptions = {}) {
  const written: string[] = [];
  const clock = { nowMs: 0 };
  const terminal = new Terminal({
    isTerminal: false,
    color: false,
    columns: () => 20,
    now: () => clock.nowMs,
    writer: { write: (text) => void written.push(text) },
    ...options,
  });
  return { terminal, clock, output: () => written.join("") };
}

Deno.test("printable() takes out what steers a terminal, forges a line or turns the reading order", () => {
  assert.equal(
    printable("a\x1b[31m\r\n\tb\x7f\x9bc\u202ed\u2028e"),
    "a\uFFFD[31m\uFFFD\uFFFD\uFFFDb\uFFFD\uFFFDc\uFFFDd\uFFFDe",
  );
  assert.equal(printable("Grüße, 東京 🚀"), "Grüße, 東京 🚀");
});

Deno.test("Terminal.error() prints error: then hint:", () => {
  const { terminal, output } = recorder({ quiet: true });
  terminal.error("Cannot do it: no\nhint: forged", "try again");
  assert.match(output(), /^error: Cannot do it: no[^\n]+hint: forged\nhint: try again\n$/);
});

Deno.test("Terminal.error() leaves the hint out when there is none", () => {
  const { terminal, output } = recorder();
  terminal.error("a", null);
  terminal.error("b", "");
  terminal.error("c");
  assert.equal(output(), "error: a\nerror: b\nerror: c\n");
});

Deno.test("Terminal is silent but for warnings and errors when quiet", () => {
  const { terminal, output } = recorder({ quiet: true, verbose: true });
  terminal.line("line");
  terminal.detail("detail");
  terminal.progress("progress");
  terminal.warn("warning");
  assert.equal(output(), "warning: warning\n");
});

Deno.test("Terminal.detail() is for verbose only", () => {
  const plain = recorder();
  plain.terminal.detail("detail");
  assert.equal(plain.output(), "");
  const verbose = recorder({ verbose: true });
  verbose.terminal.detail("detail");
  assert.equal(verbose.output(), "detail\n");
});

Deno.test("Terminal.progress() redraws one line, cut to the width, on a terminal", () => {
  const { terminal, clock, output } = recorder({ isTerminal: true });
  terminal.progress("round 1, 12345 pages left");
  clock.nowMs = 50;
  terminal.progress("too soon");
  clock.nowMs = 150;
  terminal.progress("round 2");
  terminal.line("a line");
  terminal.endProgress();
  assert.equal(output(), "\r\x1b[Kround 1, 12345 page\r\x1b[Kround 2\r\x1b[Ka line\n");
});

Deno.test("Terminal.progress() prints sparse plain lines elsewhere", () => {
  const { terminal, clock, output } = recorder();
  for (clock.nowMs = 0; clock.nowMs < 4_000; clock.nowMs += 500) {
    terminal.progress(`at ${clock.nowMs}`);
  }
  terminal.endProgress();
  assert.equal(output(), "at 0\nat 2000\n");
});

Deno.test("Terminal takes its progress line away when disposed", () => {
  const { terminal, output } = recorder({ isTerminal: true });
  {
    using _ = terminal;
    terminal.progress("busy");
  }
  assert.equal(output(), "\r\x1b[Kbusy\r\x1b[K");
});

Deno.test("Terminal colours the label only, and only when asked to", () => {
  const { terminal, output } = recorder({ color: true });
  terminal.error("no");
  assert.equal(output(), "\x1b[31merror:\x1b[0m no\n");
});
