import assert from "node:assert/strict";
import {
  builtInRegistry,
  type CipherErrorCode,
  CipherRegistry,
  type CipherSuite,
  defaultRegistry,
  defaultSuiteId,
  libcrypto,
  paperSuiteIds,
  registerCipher,
  sealedSuiteIds,
} from "../../ciphers/mod.ts";
import { fakeSuite, libcryptoMissing } from "./_support.ts";

function rejects(call: () => unknown, code: CipherErrorCode): void {
  assert.throws(call, { name: "CipherError", code });
}

Deno.test("defaultRegistry() has the sealed suites, the default first", () => {
  const ids = defaultRegistry().list().map((suite) => suite.id);
  assert.deepEqual(ids.slice(0, sealedSuiteIds.length), [...sealedSuiteIds]);
  assert.equal(ids[0], defaultSuiteId);
  assert.equal(defaultRegistry(), defaultRegistry());
});

/** The suites for use. */
function sealed(registry: CipherRegistry): CipherSuite[] {
  return registry.list().filter((suite) => suite.profile === "sealed");
}

Deno.test("builtInRegistry() has the paper's suites after the sealed ones", () => {
  const suites = builtInRegistry().list();
  assert.deepEqual(suites.map((suite) => suite.id), [...sealedSuiteIds, ...paperSuiteIds]);
  assert.deepEqual(sealed(builtInRegistry()).map((suite) => suite.id), [...sealedSuiteIds]);
});

Deno.test("builtInRegistry() takes every sealed suite from libcrypto when it loads", {
  ignore: libcryptoMissing !== null,
}, () => {
  for (const suite of sealed(builtInRegistry())) {
    assert.match(suite.backend, /^libcrypto 3\.\d+\.\d+/);
  }
});

Deno.test("builtInRegistry() falls back to node:crypto when libcrypto is absent", () => {
  const registry = builtInRegistry({
    available: false,
    reason: "missing",
    cause: new Error("no such library"),
  });
  assert.deepEqual(sealed(registry).map((suite) => suite.id), [...sealedSuiteIds]);
  for (const suite of sealed(registry)) assert.equal(suite.backend, "node:crypto");
  assert.equal(registry.get("aes-256-ctr").backend, "node:crypto");
});

Deno.test("builtInRegistry() falls back for one suite when libcrypto lacks it", {
  ignore: libcryptoMissing !== null,
}, () => {
  const library = libcrypto();
  assert(library.available);
  const suites = library.suites.filter((suite) => suite.id !== "chacha20-poly1305");
  const registry = builtInRegistry({ ...library, suites });
  assert.equal(registry.get("chacha20-poly1305").backend, "node:crypto");
  assert.equal(registry.get("aes-256-gcm").backend, library.backend);
});

Deno.test("CipherRegistry.register() takes a third party's suite with a domain", () => {
  const registry = builtInRegistry();
  const suite = fakeSuite({ id: "crypto.example.com/aes-256-ocb" });
  registry.register(suite);
  assert.equal(registry.get(suite.id), suite);
  assert.equal(registry.has(suite.id), true);
  assert.equal(registry.list().at(-1), suite);
});

Deno.test("CipherRegistry.register() refuses ids that are Sealift's own, malformed or taken", () => {
  const registry = builtInRegistry();
  for (
    const id of [
      ...[
        "aes-256-gcm",
        "mine",
        "",
        "/",
        "example.com/",
        "/name",
        "example/name",
        "Example.com/name",
      ],
      ...[
        "example.com/Name",
        "example.com/a/b",
        "example.com/a b",
        ".com/name",
        "example..com/name",
      ],
      ...["example.com/name\n", "exämple.com/name", `example.com/${"a".repeat(60)}`, "-a.com/name"],
    ]
  ) rejects(() => registry.register(fakeSuite({ id })), "invalidSuite");
  registry.register(fakeSuite());
  rejects(() => registry.register(fakeSuite()), "duplicateSuite");
});

Deno.test("CipherRegistry.register() refuses numbers that make no safe suite", () => {
  const bad: Partial<CipherSuite>[] = [
    { tagBytes: 15 },
    { tagBytes: 32 },
    { backend: "" },
    { backend: "two\nlines" },
    { nonceBytes: 7 },
    { keyBytes: 15 },
    { keyBytes: 256 },
    { tagBytes: 16.5 },
    { nonceBytes: NaN },
    { maxMessagesPerKey: 0 },
    { maxMessagesPerKey: Infinity },
    { maxBytesPerKey: -1 },
    { profile: "other" as "sealed" },
  ];
  for (const overrides of bad) {
    rejects(() => new CipherRegistry().register(fakeSuite(overrides)), "invalidSuite");
  }
  // The lab's suites promise no authenticity: their tag is the paper's checksum.
  for (const overrides of [{ tagBytes: 16 }, { tagBytes: 3 }, { nonceBytes: 17 }]) {
    const suite = fakeSuite({ profile: "paper", tagBytes: 4, nonceBytes: 8, ...overrides });
    rejects(() => new CipherRegistry().register(suite), "invalidSuite");
  }
  new CipherRegistry().register(fakeSuite({ profile: "paper", tagBytes: 4, nonceBytes: 0 }));
});

Deno.test("CipherRegistry.get() names what is known when the id is not", () => {
  assert.throws(() => builtInRegistry().get("rot13"), {
    code: "unknownSuite",
    message: /"rot13".*aes-256-gcm/,
  });
  rejects(() => builtInRegistry().get("toString"), "unknownSuite");
});

Deno.test("registerCipher() registers for the whole process", () => {
  const suite = fakeSuite({ id: "example.com/registered" });
  registerCipher(suite);
  assert.equal(defaultRegistry().get("example.com/registered"), suite);
  rejects(() => registerCipher(suite), "duplicateSuite");
});
