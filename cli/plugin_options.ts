/**
 * The options of commands that use cipher suites: `--plugin`, and the value of `--cipher`.
 *
 * @module
 */

import { message } from "@optique/core/message";
import { multiple } from "@optique/core/modifiers";
import { option } from "@optique/core/primitives";
import type { Suggestion } from "@optique/core/parser";
import type { ValueParser } from "@optique/core/valueparser";
import { pathValue, valueParser } from "./options.ts";
import type { Parsed } from "./values.ts";

/** A third party's id in outline; the registry knows whether there is such a suite. */
const THIRD_PARTY_ID = /^[a-z0-9.-]+\/[a-z0-9._-]+$/;

/** The parser of `--plugin FILE`, any number of times: paths for `loadPlugins`. */
export const pluginsOption = multiple(option("--plugin", pathValue("FILE"), {
  description:
    message`A TypeScript or JavaScript file with cipher suites of your own; may be repeated. It is trusted code: it runs in this process, with all its rights. Its suites are checked before they are used.`,
}));

/**
 * A suite's id: one of `ids`, or of a third party. Whether a plug-in has that one is known only after
 * the plug-ins are loaded.
 */
export function suiteValue(ids: readonly string[]): ValueParser<"sync", string> {
  const base = valueParser((text) => parseSuiteId(text, ids), {
    metavar: "ID",
    format: String,
    placeholder: ids[0] ?? "example.com/name",
  });
  return {
    ...base,
    *suggest(prefix): Iterable<Suggestion> {
      for (const id of ids) if (id.startsWith(prefix)) yield { kind: "literal", text: id };
    },
  };
}

function parseSuiteId(text: string, ids: readonly string[]): Parsed<string> {
  if (ids.includes(text) || THIRD_PARTY_ID.test(text)) return { ok: true, value: text };
  return {
    ok: false,
    expected: `${ids.join(", ")}, or the id of a plug-in's suite such as example.com/name`,
  };
}
