/**
 * Command lines as the parser library reads them.
 *
 * @module
 */

// First: see there.
import "./lazy_segmenter.ts";
import { parse } from "@optique/core/parser";
import { commands, type Invocation } from "./commands.ts";

/** A command line without a mistake needs one parser; all else is said by `usage.ts`, which loads them all. */
export async function readLine(args: readonly string[]): Promise<Invocation> {
  const [name = ""] = args;
  if (Object.hasOwn(commands, name)) {
    const parsed = parse(await commands[name]!(), args);
    if (parsed.success) return parsed.value;
  }
  const { parseOrExit } = await import("./usage.ts");
  return await parseOrExit(args);
}
