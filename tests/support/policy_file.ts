/**
 * Policies in files, as the command line takes them.
 *
 * @module
 */

const library = new URL("../../mod.ts", import.meta.url).href;

/** Writes a policy into a directory; each has a file of its own. @returns its path */
export async function writePolicy(directory: string, policy: {
  name?: string;
  /** Levels, as `definePolicy` takes them. */
  levels: Record<string, unknown>;
  /** The function's text; default: the first level. */
  select?: string;
  /** The function's text. */
  round?: string;
}): Promise<string> {
  const { name = "test", levels, round } = policy;
  const select = policy.select ?? `() => ${JSON.stringify(Object.keys(levels)[0])}`;
  const path = `${directory}/policy-${crypto.randomUUID()}.ts`;
  await Deno.writeTextFile(
    path,
    `import { definePolicy } from "${library}";
export default definePolicy({
  name: ${JSON.stringify(name)},
  levels: ${JSON.stringify(levels)},
  select: ${select},
  ${round === undefined ? "" : `round: ${round},`}
});
`,
  );
  return path;
}
