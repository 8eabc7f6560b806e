import { deepEqual } from "node:assert/strict";

const root = new URL("../../", import.meta.url);

/** Lines of the folder's sources that match. */
async function lines(folder: string, pattern: RegExp): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, root))) {
    if (isDirectory) found.push(...await lines(`${folder}${name}/`, pattern));
    else if (name.endsWith(".ts")) {
      const text = await Deno.readTextFile(new URL(folder + name, root));
      for (const line of text.split("\n")) {
        if (pattern.test(line)) found.push(`${folder}${name}: ${line.trim()}`);
      }
    }
  }
  return found;
}

Deno.test("migration/ has no line for micro-VMs", async () => {
  deepEqual(await lines("migration/", /micro[-_ ]?vm|\bmicro\b|Micro[A-Z]/), []);
});

Deno.test("nothing outside kvm/ knows an ioctl", async () => {
  for (const folder of ["cli/", "ciphers/", "migration/", "scripts/"]) {
    deepEqual(await lines(folder, /\bKVM_[A-Z]|\bioctl/), []);
  }
});
