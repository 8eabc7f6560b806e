import assert from "node:assert/strict";
import { fillIn, matchLines, parseTranscript } from "./transcript.ts";

Deno.test("parseTranscript() reads commands, both outputs and the exit code", () => {
  assert.deepEqual(parseTranscript("# a comment\n$ cmd  x\n1| out\n1|\n2| err\n= 2\n\n$ next\n"), [
    { line: 2, command: "cmd  x", stdout: ["out", ""], stderr: ["err"], exitCode: 2 },
    { line: 8, command: "next", stdout: [], stderr: [], exitCode: 0 },
  ]);
  assert.throws(() => parseTranscript("$ x\nout\n"), /line 2/);
  assert.throws(() => parseTranscript("1| before any command\n"), /line 1/);
});

Deno.test("matchLines() remembers a key and wants the same one again", () => {
  const bindings = new Map<string, string>();
  const [a, b] = [1, 2].map((fill) => new Uint8Array(32).fill(fill).toBase64());
  matchLines(`key ${a}\n`, ["key <key:a>"], bindings);
  matchLines(`${a}\n`, ["<key:a>"], bindings);
  assert.throws(() => matchLines(`${b}\n`, ["<key:a>"], bindings));
  assert.equal(fillIn("add <key:a>", bindings), `add ${a}`);
  assert.throws(() => fillIn("add <key:b>", bindings));
});

Deno.test("matchLines() takes no line more, no line less and no other text", () => {
  const match = (actual: string, expected: string[]) => matchLines(actual, expected, new Map());
  match("at 2026-01-01T00:00:00.000Z: (1)\n", ["at <time>: (<any>)"]);
  assert.throws(() => match("a\nb\n", ["a"]));
  assert.throws(() => match("a\n", ["a", "b"]));
  assert.throws(() => match("a.c\n", ["abc"]));
  assert.throws(() => match("abc\n", ["a.c"]));
});
