import assert from "node:assert/strict";
import { join } from "node:path";
import { CliError, type CliErrorCode } from "../../cli/cli_error.ts";
import {
  generateIdentityFile,
  makeStateDirectory,
  readIdentityFile,
  stateDirectory,
} from "../../cli/state_directory.ts";
import { encodeKey } from "../../migration/identity.ts";
import { TempDir } from "../support/temp_dir.ts";

function hasCode(code: CliErrorCode, pattern: RegExp) {
  return (error: unknown) =>
    error instanceof CliError && error.code === code && pattern.test(error.message);
}

Deno.test("stateDirectory() takes the first that is named, in the documented order", () => {
  const env = (variables: Record<string, string>) => (name: string) => variables[name];
  const path = (
    variables: Record<string, string>,
    options: { stateDir?: string; uid: number },
  ) => stateDirectory({ ...options, env: env(variables) }).path;
  const all = { SEALIFT_STATE_DIR: "/env", XDG_STATE_HOME: "/xdg", HOME: "/home/u" };
  assert.equal(path(all, { stateDir: "/flag", uid: 0 }), "/flag");
  assert.equal(path(all, { uid: 0 }), "/env");
  assert.equal(path({ ...all, SEALIFT_STATE_DIR: "" }, { uid: 0 }), "/var/lib/sealift");
  assert.equal(path({ XDG_STATE_HOME: "/xdg", HOME: "/home/u" }, { uid: 1000 }), "/xdg/sealift");
  assert.equal(
    path({ XDG_STATE_HOME: "relative", HOME: "/home/u" }, { uid: 1000 }),
    "/home/u/.local/state/sealift",
  );
  assert.throws(() => path({}, { uid: 1000 }), hasCode("usage", /HOME is not set/));
});

Deno.test("makeStateDirectory() makes it 0700 and accepts it again", async () => {
  await using temp = await TempDir.make();
  const directory = stateDirectory({ stateDir: join(temp.path, "a/b") });
  await makeStateDirectory(directory);
  await makeStateDirectory(directory);
  assert.equal((await Deno.stat(directory.path)).mode! & 0o777, 0o700);
});

Deno.test("makeStateDirectory() refuses one that others may write to", async () => {
  await using temp = await TempDir.make();
  await Deno.chmod(temp.path, 0o770);
  await assert.rejects(
    makeStateDirectory(stateDirectory({ stateDir: temp.path })),
    hasCode("permission", /other users may write/),
  );
});

Deno.test("readIdentityFile() reads what generateIdentityFile() made, mode 0600", async () => {
  await using temp = await TempDir.make();
  const path = join(temp.path, "identity");
  const publicKey = await generateIdentityFile(path);
  assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
  assert.equal(encodeKey((await readIdentityFile(path)).publicKey), publicKey);
  assert.doesNotMatch(await Deno.readTextFile(path), new RegExp(RegExp.escape(publicKey)));
});

Deno.test("generateIdentityFile() never overwrites", async () => {
  await using temp = await TempDir.make();
  const path = join(temp.path, "identity");
  await generateIdentityFile(path);
  const before = await Deno.readTextFile(path);
  await assert.rejects(generateIdentityFile(path), hasCode("exists", /exists already/));
  assert.equal(await Deno.readTextFile(path), before);
});

Deno.test("readIdentityFile() refuses a file that others may read, with the command that mends it", async () => {
  await using temp = await TempDir.make();
  const path = join(temp.path, "identity");
  await generateIdentityFile(path);
  for (const mode of [0o640, 0o604, 0o620, 0o602]) {
    await Deno.chmod(path, mode);
    await assert.rejects(readIdentityFile(path), (error: CliError) => {
      return error.code === "permission" && error.hint === `chmod 600 ${path}`;
    });
  }
});

Deno.test("readIdentityFile() never quotes the file in its error", async () => {
  await using temp = await TempDir.make();
  const path = join(temp.path, "identity");
  await Deno.writeTextFile(path, "secret-but-wrong", { mode: 0o600 });
  await assert.rejects(readIdentityFile(path), (error: CliError) => {
    return error.code === "malformed" && !`${error.message}${error.cause}`.includes("secret");
  });
});
