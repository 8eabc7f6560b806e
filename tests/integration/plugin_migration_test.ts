/**
 * A third party's suite, from its file to a VM that it has moved; and a bad one, which moves nothing.
 *
 * @module
 */

import assert from "node:assert/strict";
import { qemuTest } from "../support/qemu.ts";
import { VmPair } from "../support/vm_pair.ts";

const worked = new URL("../../scripts/suites/aes_256_gcm_siv.ts", import.meta.url).pathname;
const library = new URL("../../mod.ts", import.meta.url).href;
const suite = "example.com/aes-256-gcm-siv";

qemuTest("send and receive move a VM under a plug-in's suite", async () => {
  await using pair = await VmPair.bootSectors();
  const receiver = await pair.receive("--plugin", worked);
  const args = ["--plugin", worked, "--cipher", suite];
  const { sent, received } = await pair.move(receiver, { args });
  for (const { report } of [sent, received]) {
    assert.equal(report?.suite, suite);
    assert.equal(report?.backend, "@noble/ciphers");
    assert.equal(report?.profile, "sealed");
  }
  await pair.hosts.checkClean();
});

qemuTest("receive without the plug-in refuses its suite, and the VM runs on", async () => {
  await using pair = await VmPair.bootSectors();
  const receiver = await pair.receive();
  const args = ["--plugin", worked, "--cipher", suite];
  const { report } = await pair.refuse(receiver, { args });
  assert.match(report?.error?.message ?? "", /no cipher suite for pages of class user/);
});

qemuTest("send and receive refuse a plug-in with a short tag before they touch a VM", async () => {
  await using pair = await VmPair.bootSectors();
  const { hosts, source, destination } = pair;
  const file = `${hosts.directory}/short_tag.ts`;
  await Deno.writeTextFile(
    file,
    `import { nodeCryptoSuites } from "${library}";
export default { ...nodeCryptoSuites()[0], id: "example.com/short", tagBytes: 8 };
`,
  );
  const settings = await source.settings();
  const send = hosts.send(source, 1, { args: ["--plugin", file, "--cipher", "example.com/short"] });
  const receive = hosts.receiveAnyway(destination, { args: ["--plugin", file] });
  assert.equal(await receive.line("listening"), null, "receive listens");
  for (const { code, report } of await Promise.all([send.ended, receive.ended])) {
    assert.equal(code, 2);
    assert.match(report?.error?.message ?? "", /short_tag\.ts.*tag/s);
    // QEMU was not even asked what it runs.
    assert.equal(report?.vm, null);
  }
  assert.deepEqual(await source.settings(), settings);
  assert.deepEqual([await source.status(), await destination.status()], ["running", "inmigrate"]);
  await hosts.checkClean();
});
