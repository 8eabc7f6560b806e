import assert from "node:assert/strict";
import { builtInRegistry, CipherRegistry, defaultRegistry } from "../../ciphers/registry.ts";
import { CliError } from "../../cli/cli_error.ts";
import { errorReport, exitCodes, outcomeOf } from "../../cli/exit_codes.ts";
import { loadPlugins } from "../../cli/plugin.ts";
import { TempDir } from "../support/temp_dir.ts";

// libcrypto stays open for the life of the process: it is opened before any test begins.
defaultRegistry();

const ciphers = new URL("../../ciphers/mod.ts", import.meta.url).href;
const worked = new URL("../../scripts/suites/aes_256_gcm_siv.ts", import.meta.url).pathname;

/** A plug-in whose suite is a sound one with `change` over it, in JavaScript. */
function plugin(change: string): string {
  return `import { nodeCryptoSuites } from "${ciphers}";
const sound = nodeCryptoSuites()[0];
const sealer = (change) => (key) => {
  const inner = sound.createSealer(key);
  const own = {
    begin: (nonce, ad) => inner.begin(nonce, ad),
    update: (from, to) => inner.update(from, to),
    finish: (tag) => inner.finish(tag),
    [Symbol.dispose]: () => inner[Symbol.dispose](),
  };
  return { ...own, ...change(inner) };
};
const opener = (change) => (key) => {
  const inner = sound.createOpener(key);
  const own = {
    begin: (nonce, ad, tag) => inner.begin(nonce, ad, tag),
    update: (from, to) => inner.update(from, to),
    finish: () => inner.finish(),
    [Symbol.dispose]: () => inner[Symbol.dispose](),
  };
  return { ...own, ...change(inner) };
};
const none = new Uint8Array();
export default { ...sound, id: "example.com/mine", ${change} };
`;
}

async function refusal(source: string): Promise<{ message: string; hint: string; file: string }> {
  await using directory = await TempDir.make();
  const file = `${directory.path}/suite.js`;
  await Deno.writeTextFile(file, source);
  return await refusalOf(file);
}

async function refusalOf(file: string): Promise<{ message: string; hint: string; file: string }> {
  const registry = builtInRegistry();
  const before = registry.list().length;
  try {
    await loadPlugins([file], { registry });
  } catch (error) {
    assert(error instanceof CliError, String(error));
    assert.equal(exitCodes[outcomeOf(errorReport(error).code)], 2);
    assert.equal(registry.list().length, before);
    return { message: error.message.replaceAll(file, "FILE"), hint: error.hint ?? "", file };
  }
  return assert.fail("the plug-in was taken");
}

Deno.test("loadPlugins() checks a suite and registers it", async () => {
  const registry = builtInRegistry();
  const [loaded, ...more] = await loadPlugins([worked], { registry });
  assert.deepEqual(more, []);
  assert.equal(loaded?.file, worked);
  assert.equal(loaded?.suite.id, "example.com/aes-256-gcm-siv");
  assert.ok(loaded !== undefined && loaded.checks > 15);
  assert.equal(registry.get("example.com/aes-256-gcm-siv"), loaded.suite);
});

Deno.test("loadPlugins() takes a list of suites", async () => {
  await using directory = await TempDir.make();
  const file = `${directory.path}/two.ts`;
  await Deno.writeTextFile(
    file,
    `import { nodeCryptoSuites } from "${ciphers}";
export default nodeCryptoSuites().slice(0, 2).map((suite, n) => ({ ...suite, id: \`example.com/\${n}\` }));`,
  );
  const registry = new CipherRegistry();
  await loadPlugins([file], { registry });
  assert.deepEqual(registry.list().map(({ id }) => id), ["example.com/0", "example.com/1"]);
});

const noSuites: Record<string, [string, RegExp]> = {
  "does not parse": [
    "export default {\n  id: 'example.com/mine',,\n};\n",
    /^Cannot load plug-in FILE:2:\d+: .*\S$/,
  ],
  "throws when it is loaded": [
    "const one = 1;\n\nthrow new RangeError('no luck' + one);\n",
    /^Cannot load plug-in FILE:3:7: no luck1$/,
  ],
  "throws what is no error": ["throw 'no luck';\n", /^Cannot load plug-in FILE: no luck$/],
  "imports what is not there": [
    "\nimport './absent.js';\n",
    /^Cannot load plug-in FILE:2:8: Module not found .*absent\.js/,
  ],
  "has no default export": [
    "export const suite = {};\n",
    /^Cannot load plug-in FILE: it has no default export$/,
  ],
  "has an empty list": ["export default [];\n", /^Cannot load plug-in FILE: its list is empty$/],
  "exports something else": [
    "export default () => {};\n",
    /^Cannot use plug-in FILE: its default export is no cipher suite$/,
  ],
  "has a suite without an opener": [
    plugin("createOpener: undefined"),
    /^Cannot use plug-in FILE: suite example\.com\/mine has no createOpener$/,
  ],
  "has a number in quotes": [
    plugin("keyBytes: '32'"),
    /: suite example\.com\/mine has a keyBytes that is a string, not a number$/,
  ],
  "has an id without a domain": [
    plugin("id: 'mine'"),
    /^Cannot use plug-in FILE: Cannot accept suite id "mine": names without a domain are Sealift's own/,
  ],
  "has a short tag": [
    plugin("tagBytes: 12"),
    /: Cannot accept suite example\.com\/mine: tagBytes is 12, but a sealed suite has tags of 16 bytes$/,
  ],
  "has a short nonce": [
    plugin("nonceBytes: 7"),
    /nonceBytes is 7, not a whole number from 8 to 255$/,
  ],
  "names its backend in two lines": [
    plugin("backend: 'a\\nb'"),
    /its backend is not 1 to 64 printable/,
  ],
};

for (const [what, [source, message]] of Object.entries(noSuites)) {
  Deno.test(`loadPlugins() refuses a plug-in that ${what}`, async () => {
    assert.match((await refusal(source)).message, message);
  });
}

const unsound: Record<string, [string, RegExp]> = {
  "repeats the keystream for every nonce": [
    // The tag still depends on the nonce: it goes into the associated data.
    `createSealer: sealer((inner) => ({
      begin: (nonce, ad) => inner.begin(new Uint8Array(12), Uint8Array.of(...nonce, ...ad)),
    })), createOpener: opener((inner) => ({
      begin: (nonce, ad, tag) => inner.begin(new Uint8Array(12), Uint8Array.of(...nonce, ...ad), tag),
    }))`,
    /"repeats no keystream": another nonce \(bit 0\) seals equal plaintext to equal ciphertext$/,
  ],
  "ignores the nonce": [
    `createSealer: sealer((inner) => ({ begin: (nonce, ad) => inner.begin(new Uint8Array(12), ad) })),
     createOpener: opener((inner) => ({ begin: (nonce, ad, tag) => inner.begin(new Uint8Array(12), ad, tag) }))`,
    /"repeats no keystream": another nonce \(bit 0\) seals equal plaintext to equal ciphertext$/,
  ],
  "updates asynchronously": [
    `createSealer: sealer((inner) => ({ async update(from, to) { inner.update(from, to); } }))`,
    /"does its work before it returns": update of a sealer returned a promise$/,
  ],
  "updates asynchronously, and fails so": [
    `createSealer: sealer(() => ({ async update() { await 0; throw new Error("later"); } }))`,
    /"does its work before it returns": update of a sealer returned a promise$/,
  ],
  "gives its verdict asynchronously": [
    `createOpener: opener(() => ({ async finish() { throw new Error("later"); } }))`,
    /"does its work before it returns": finish of an opener returned a promise$/,
  ],
  "writes its ciphertext later": [
    `createSealer: sealer((inner) => ({
      update(from, to) {
        const late = new Uint8Array(to.length);
        inner.update(from, late);
        queueMicrotask(() => to.set(late));
      },
    }))`,
    /"does its work before it returns": after finish of a sealer there is no ciphertext$/,
  ],
  "takes pieces of two lengths": [
    `createSealer: sealer((inner) => ({
      update(from, to) {
        const length = Math.min(from.length, to.length);
        inner.update(from.subarray(0, length), to.subarray(0, length));
      },
    }))`,
    /"refuses wrong lengths": a sealer takes 10 bytes to 9$/,
  ],
  "leaves out associated data": [
    `createSealer: sealer((inner) => ({ begin: (nonce) => inner.begin(nonce, none) })),
     createOpener: opener((inner) => ({ begin: (nonce, ad, tag) => inner.begin(nonce, none, tag) }))`,
    /"refuses a changed nonce, key or associated data": it opens with bit 0 of the header changed$/,
  ],
  "accepts every tag": [
    `createOpener: opener((inner) => ({ finish: () => (inner.finish(), true) }))`,
    /"refuses a changed tag": it opens with bit 0 of the tag changed$/,
  ],
  "throws while it seals": [
    `createSealer: sealer(() => ({ finish() { throw new Error("no luck"); } }))`,
    /"does its work before it returns": no luck \(FILE:\d+:\d+\)$/,
  ],
  "throws while it seals what is long": [
    `createSealer: sealer((inner) => ({
      update(from, to) { inner.update(from, to); if (from.length > 1000) throw new Error("no luck"); },
    }))`,
    /"opens what it sealed, at every size": no luck \(FILE:\d+:\d+\)$/,
  ],
};

for (const [what, [change, message]] of Object.entries(unsound)) {
  Deno.test(`loadPlugins() refuses a suite that ${what}`, async () => {
    const refused = await refusal(plugin(change));
    const start = "Cannot use plug-in FILE: suite example.com/mine fails the check ";
    assert.equal(refused.message.slice(0, start.length), start);
    assert.match(refused.message, message);
    assert.match(refused.hint, /conformanceChecks\(\)/);
  });
}

Deno.test("loadPlugins() refuses a file that is not there, a directory, and an address", async () => {
  await using directory = await TempDir.make();
  assert.match(
    (await refusalOf(`${directory.path}/absent.ts`)).message,
    /^Cannot load plug-in FILE: no such file or directory$/,
  );
  assert.match(
    (await refusalOf(directory.path)).message,
    /^Cannot load plug-in FILE: it is no file$/,
  );
  assert.match(
    (await refusalOf("https://example.com/suite.ts")).message,
    /no such file or directory$/,
  );
});

Deno.test("loadPlugins() refuses an id that is taken, and keeps what it took before", async () => {
  const registry = builtInRegistry();
  await assert.rejects(
    loadPlugins([worked, worked], { registry }),
    /Cannot register suite example\.com\/aes-256-gcm-siv: it is taken/,
  );
  assert.equal(registry.has("example.com/aes-256-gcm-siv"), true);
});
