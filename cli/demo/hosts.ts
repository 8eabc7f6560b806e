/**
 * Two hosts on this machine, as far as the agents can tell: a state directory and an identity each.
 *
 * @module
 */

import { join } from "node:path";
import { addPeer } from "../peers.ts";
import { generateIdentityFile, stateDirectory } from "../state_directory.ts";

/** What each calls the other. */
export const hostNames = { a: "host-a", b: "host-b" } as const;

/** A host. */
export interface DemoHost {
  stateDir: string;
  /** Its public key. */
  key: string;
}

/** Makes both, each in the other's list of peers; the stack removes them. */
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
  const [a, b] = [await host("a"), await host("b")];
  await addPeer(stateDirectory(a), { name: hostNames.b, key: b.key });
  await addPeer(stateDirectory(b), { name: hostNames.a, key: a.key });
  return { a, b };
}
