/**
 * Two hosts on this machine, as far as the agents can tell: a state directory and an identity each.
 *
 * @module
 */

import { join } from "node:path";
import { generateIdentityFile } from "../state_directory.ts";

/** A host. */
export interface DemoHost {
  stateDir: string;
  /** Its public key. */
  key: string;
}

/** Makes both; the stack removes them. */
export async function makeHosts(
  stack: AsyncDisposableStack,
): Promise<{ a: DemoHost; b: DemoHost }> {
  const directory = await Deno.makeTempDir({ prefix: "sealift-demo-" });
  stack.defer(() => Deno.remove(directory, { recursive: true }));
  const host = async (name: string) => {
    const stateDir = join(directory, name);
    await Deno.mkdir(stateDir, { mode: 0o700 });
    return { stateDir, key: await generateIdentityFile(join(stateDir, "identity")) };
  };
  return { a: await host("a"), b: await host("b") };
}
