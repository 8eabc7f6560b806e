import assert from "node:assert/strict";
import type { CliError } from "../../cli/cli_error.ts";
import { addPeer, readPeers, removePeer, resolvePeer } from "../../cli/peers.ts";
import { stateDirectory } from "../../cli/state_directory.ts";
import { TempDir } from "../support/temp_dir.ts";

function key(fill: number): string {
  return new Uint8Array(32).fill(fill).toBase64();
}

Deno.test("addPeer() loses none when many come at once", async () => {
  await using temp = await TempDir.make();
  const directory = stateDirectory({ stateDir: temp.path });
  await Promise.all(
    Array.from({ length: 8 }, (_, i) => addPeer(directory, { name: `host-${i}`, key: key(i) })),
  );
  assert.deepEqual((await readPeers(directory)).map(({ name }) => name), [
    "host-0",
    "host-1",
    "host-2",
    "host-3",
    "host-4",
    "host-5",
    "host-6",
    "host-7",
  ]);
  // Nothing is left of the files that were renamed.
  const names = [...Deno.readDirSync(temp.path)].map(({ name }) => name).sort();
  assert.deepEqual(names, ["peers.json", "peers.lock"]);
});

Deno.test("addPeer() keeps names apart that objects would mix up", async () => {
  await using temp = await TempDir.make();
  const directory = stateDirectory({ stateDir: temp.path });
  await addPeer(directory, { name: "__proto__", key: key(1) });
  await addPeer(directory, { name: "constructor", key: key(2) });
  assert.equal((await resolvePeer(directory, "__proto__")).publicKey[0], 1);
  await removePeer(directory, "__proto__");
  await assert.rejects(resolvePeer(directory, "__proto__"), /Cannot find peer/);
});

Deno.test("resolvePeer() takes a key that is not in the list, and names one that is", async () => {
  await using temp = await TempDir.make();
  const directory = stateDirectory({ stateDir: temp.path });
  assert.deepEqual(await resolvePeer(directory, key(7)), {
    name: null,
    publicKey: new Uint8Array(32).fill(7),
  });
  await addPeer(directory, { name: "host-b", key: key(7) });
  assert.equal((await resolvePeer(directory, key(7))).name, "host-b");
});

Deno.test("resolvePeer() calls an unknown name a usage error", async () => {
  await using temp = await TempDir.make();
  await assert.rejects(
    resolvePeer(stateDirectory({ stateDir: temp.path }), "host-b"),
    (error: CliError) => error.code === "usage",
  );
});

Deno.test("readPeers() refuses every file that it would not have written", async () => {
  await using temp = await TempDir.make();
  const directory = stateDirectory({ stateDir: temp.path });
  const peer = { name: "a", key: key(1) };
  for (
    const text of [
      "",
      "[]",
      "null",
      '{"peers":{}}',
      '{"peers":[null]}',
      JSON.stringify({ peers: [{ name: "a b", key: key(1) }] }),
      JSON.stringify({ peers: [{ name: "a", key: "AA==" }] }),
      JSON.stringify({ peers: [peer, peer] }),
      " ".repeat(1024 * 1024 + 1),
    ]
  ) {
    await Deno.writeTextFile(directory.peers, text, { mode: 0o600 });
    await assert.rejects(readPeers(directory), (error: CliError) => error.code === "malformed");
  }
});
