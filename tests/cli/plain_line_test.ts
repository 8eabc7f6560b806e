import assert from "node:assert/strict";
import { parse } from "@optique/core/parser";
import fc from "fast-check";
import { commands } from "../../cli/commands.ts";
import { readPlainLine } from "../../cli/plain_line.ts";

const parsers = { send: await commands["send"]!(), receive: await commands["receive"]!() };
type Name = keyof typeof parsers;

/** What the library makes of a line; null when it has something to say about it. */
function byLibrary(name: Name, words: string[]) {
  const parsed = parse(parsers[name], [name, ...words]);
  return parsed.success ? parsed.value.options : null;
}

const values: Record<string, string[]> = {
  "--qmp": ["/run/vm1.qmp", "a b", "", "--json", "x\0y"],
  "--to": ["host-b:7900", "[2001:db8::7]:1", "host-b", "host-b:0"],
  "--listen": ["[::]:7900", "127.0.0.1:0", "7900"],
  "--peer": ["host-b", "-b", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],
  "--allow": ["host-a", "host-c", "no such"],
  "--cipher": ["aes-128-gcm", "chacha20-poly1305", "rc4", "example.com/x", "des"],
  "--max-bandwidth": ["100MiB/s", "1GB", "7"],
  "--downtime-limit": ["300ms", "0ms"],
  "--max-stop": ["2s", "2"],
  "--reconnect": ["10m"],
  "--max-time": ["1h"],
  "--max-rounds": ["7"],
  "--on-tamper": ["ask"],
  "--vm-id": ["1B4E28BA-2FA1-11D2-883F-0016D3CCA427", "1b4e"],
  "--land": ["mapped", "auto", "map"],
  "--identity": ["/etc/key"],
  "--state-dir": ["/var/lib/x"],
  "--policy": ["bank.ts"],
  "--profile": ["paper", "sealed"],
  "--label": ["pci"],
};
const switches = [
  "--json",
  "--quiet",
  "--verbose",
  "--keep-source",
  "--dry-run",
  "--auto-converge",
  "--lab-network",
  "--micro",
  "--help",
  "--jsno",
  "-q",
  "--",
  "word",
];

const pair = fc.constantFrom(...Object.entries(values)).chain(([flag, given]) =>
  fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...given).map((value) => [flag, value]) },
    { weight: 1, arbitrary: fc.constantFrom(...given).map((value) => [`${flag}=${value}`]) },
    { weight: 1, arbitrary: fc.constant([flag]) },
  )
);
const word = fc.constantFrom(...switches).map((word) => [word]);
/** The flags without which neither command goes, most of the time, and others among them. */
const needed: Record<Name, string[][]> = {
  send: [["--qmp", "/run/vm1.qmp"], ["--to", "host-b:7900"], ["--peer", "host-b"]],
  receive: [["--qmp", "/run/vm1.qmp"], ["--listen", "[::]:0"], ["--allow", "host-a"]],
};
const lines = fc.constantFrom<Name>("send", "receive").chain((name) =>
  fc.tuple(
    fc.constant(name),
    fc.subarray(needed[name], { minLength: 2 }),
    fc.array(fc.oneof(pair, word), { maxLength: 4 }),
    fc.infiniteStream(fc.nat()),
  ).map(([name, needed, more, order]) => {
    const parts = [...needed, ...more].map((part) => ({ part, at: order.next().value! }));
    parts.sort((a, b) => a.at - b.at);
    return { name, words: parts.flatMap(({ part }) => part) };
  })
);

Deno.test("readPlainLine() means what the library means, or leaves it to the library", () => {
  let plain = 0;
  fc.assert(
    fc.property(lines, ({ name, words }) => {
      const line = readPlainLine([name, ...words]);
      if (line === null) return;
      plain++;
      assert.deepEqual(line.options, byLibrary(name, words));
    }),
    { numRuns: 3_000, seed: 5 },
  );
  assert.ok(plain > 300, `${plain} lines were plain`);
});

for (
  const [name, ...words] of [
    ["send", "--qmp", "/q", "--to", "b:1", "--peer", "b", "--state-dir", "/s", "--json"],
    ["send", "--qmp", "/q", "--to", "b:1", "--peer", "b", "--keep-source", "--max-stop", "30s"],
    ["receive", "--qmp", "/q", "--listen", "[::]:0", "--allow", "a", "--allow", "c", "--json"],
    ["receive", "--qmp", "/q", "--listen", "[::]:0", "--allow", "a", "--land", "mapped"],
  ] as [Name, ...string[]][]
) {
  Deno.test(`readPlainLine() reads ${name} ${words.join(" ")}`, () => {
    const line = readPlainLine([name, ...words]);
    assert.ok(line !== null);
    assert.deepEqual(line.options, byLibrary(name, words));
  });
}

for (
  const words of [
    [],
    ["demo"],
    ["send", "--help"],
    ["send", "--qmp", "/q", "--to", "b:1"],
    ["send", "--qmp", "/q", "--qmp", "/r", "--to", "b:1", "--peer", "b"],
    ["send", "--qmp", "/q", "--to", "b:1", "--peer", "b", "--json", "--json"],
    ["send", "--qmp", "/q", "--to", "b:1", "--peer", "b", "--json", ""],
    ["__proto__"],
  ]
) {
  Deno.test(`readPlainLine() leaves ${JSON.stringify(words.join(" "))} to the library`, () => {
    assert.equal(readPlainLine(words), null);
  });
}
