import assert from "node:assert/strict";
import fc from "fast-check";
import {
  formatAddress,
  parseAddress,
  parseCount,
  type Parsed,
  parseDuration,
  parseMigrationId,
  parsePeer,
  parsePeerName,
  parsePublicKey,
  parseRate,
  parseUuid,
} from "../../cli/values.ts";

function value<T>(parsed: Parsed<T>): T {
  assert.ok(parsed.ok);
  return parsed.value;
}

function refused(parse: (text: string) => Parsed<unknown>, texts: string[]): void {
  for (const text of texts) assert.equal(parse(text).ok, false, JSON.stringify(text));
}

Deno.test("parseDuration() gives milliseconds when there is a unit", () => {
  assert.equal(value(parseDuration("300ms")), 300);
  assert.equal(value(parseDuration("5s")), 5_000);
  assert.equal(value(parseDuration("2m")), 120_000);
  assert.equal(value(parseDuration("1.5h")), 5_400_000);
});

Deno.test("parseDuration() refuses what is no duration or too long for a timer", () => {
  refused(parseDuration, [
    "",
    "5",
    "0s",
    "-1s",
    "1 s",
    "1e3s",
    "1d",
    "s",
    "0.0001ms",
    "600h",
    "5s\n",
  ]);
});

Deno.test("parseRate() tells decimal and binary units apart, with and without /s", () => {
  assert.equal(value(parseRate("1kB")), 1_000);
  assert.equal(value(parseRate("1KiB/s")), 1_024);
  assert.equal(value(parseRate("1.5GiB")), 1.5 * 2 ** 30);
  assert.equal(value(parseRate("12B/s")), 12);
});

Deno.test("parseRate() refuses rates without a unit, of zero, or beyond exact numbers", () => {
  refused(parseRate, ["", "5", "/s", "0MiB", "-1MiB", "1Mib", "1iB", "1miB", "99999999TiB", "MiB"]);
  refused(parseRate, ["1GB/m", "1GB/s/s", "1 GB"]);
});

Deno.test("parseAddress() reads names, IPv4 and bracketed IPv6", () => {
  assert.deepEqual(value(parseAddress("host-b:7900")), { host: "host-b", port: 7900 });
  assert.deepEqual(value(parseAddress("192.0.2.7:1")), { host: "192.0.2.7", port: 1 });
  assert.deepEqual(value(parseAddress("[::1]:65535")), { host: "::1", port: 65535 });
  assert.deepEqual(value(parseAddress("[fe80::1%eth0]:1")), { host: "fe80::1%eth0", port: 1 });
  refused(parseAddress, [
    "",
    "host",
    "host:",
    ":1",
    "::1:1",
    "[::1]",
    "host:65536",
    "ho st:1",
    "h:1x",
  ]);
});

Deno.test("parseAddress() takes port 0 only to listen", () => {
  assert.equal(parseAddress("[::1]:0").ok, false);
  assert.deepEqual(value(parseAddress("[::1]:0", { listen: true })), { host: "::1", port: 0 });
});

Deno.test("formatAddress() writes what parseAddress() reads", () => {
  fc.assert(fc.property(
    fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()),
    fc.integer({ min: 1, max: 65_535 }),
    (host, port) => {
      assert.deepEqual(value(parseAddress(formatAddress({ host, port }))), { host, port });
    },
  ));
});

Deno.test("parsePublicKey() takes exactly the encodings of 32 bytes, and none is a name", () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
    const key = bytes.toBase64();
    assert.equal(value(parsePublicKey(key)), key);
    assert.equal(value(parsePeer(key)), key);
    assert.equal(parsePeerName(key).ok, false);
  }));
  refused(parsePublicKey, [
    "",
    "host-b",
    "A".repeat(44),
    "A".repeat(42) + "B=",
    ` ${"A".repeat(43)}=`,
  ]);
});

Deno.test("parsePeerName() refuses what could be a path or forge a line", () => {
  assert.equal(value(parsePeerName("host-b.example_1")), "host-b.example_1");
  refused(parsePeerName, ["", "a/b", "a b", "a\n", "a".repeat(65), "é"]);
});

Deno.test("parseUuid() and parseMigrationId() give lower case", () => {
  const uuid = "1B4E28BA-2FA1-11D2-883F-0016D3CCA427";
  assert.equal(value(parseUuid(uuid)), uuid.toLowerCase());
  refused(parseUuid, ["", uuid.slice(1), uuid.replaceAll("-", ""), `${uuid}\n`]);
  assert.equal(value(parseMigrationId("A".repeat(32))), "a".repeat(32));
  refused(parseMigrationId, ["", "a".repeat(31), "a".repeat(33), "../".repeat(11)]);
});

Deno.test("parseCount() holds to its range", () => {
  const parse = (text: string) => parseCount(text, { min: 1, max: 20 });
  assert.equal(value(parse("20")), 20);
  refused(parse, ["", "0", "21", "1.5", "-1", "0x1", "1e1"]);
});
