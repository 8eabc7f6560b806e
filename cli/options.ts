/**
 * What the subcommands' parsers share: value parsers, the common options, and how examples are shown.
 *
 * @module
 */

import { object } from "@optique/core/constructs";
import { lineBreak, type Message, message, text } from "@optique/core/message";
import { optional } from "@optique/core/modifiers";
import { option } from "@optique/core/primitives";
import type { ValueParser } from "@optique/core/valueparser";
import {
  type Address,
  formatAddress,
  parseAddress,
  parseCount,
  type Parsed,
  parseDuration,
  parsePath,
  parsePeer,
  parseRate,
  parseUuid,
} from "./values.ts";

/** What every command takes. */
export interface CommonOptions {
  /** `--identity`: the file of this host's private key; default: in the state directory. */
  identity: string | undefined;
  /** `--state-dir`. */
  stateDir: string | undefined;
  /** One JSON object per line on stdout. */
  json: boolean;
  /** Warnings and errors only. */
  quiet: boolean;
  /** Details too. */
  verbose: boolean;
}

/** What {@linkcode valueParser} needs besides the parser itself. */
export interface ValueParserOptions<T> {
  /** How the value is called in the usage. */
  metavar: ValueParser<"sync", T>["metavar"];
  /** How a default value is shown. */
  format: (value: T) => string;
  /** Any value of the type. */
  placeholder: T;
}

/** A parser of `values.ts` as the command line's: the flag's name comes before its error by itself. */
export function valueParser<T>(
  parse: (input: string) => Parsed<T>,
  options: ValueParserOptions<T>,
): ValueParser<"sync", T> {
  return {
    mode: "sync",
    ...options,
    parse(input) {
      const parsed = parse(input);
      if (parsed.ok) return { success: true, value: parsed.value };
      const expected = text(parsed.expected);
      return {
        success: false,
        error: input === ""
          ? message`Expected ${expected}; got nothing.`
          : message`Expected ${expected}; got ${input}.`,
      };
    },
  };
}

/** A path. The shell completes it. */
export function pathValue(metavar: "FILE" | "PATH" | "DIR"): ValueParser<"sync", string> {
  return {
    ...valueParser(parsePath, { metavar, format: String, placeholder: "path" }),
    *suggest(prefix) {
      const type = metavar === "DIR" ? "directory" : "any";
      yield { kind: "file", pattern: prefix, type, includeHidden: /(^|\/)\.[^/]*$/.test(prefix) };
    },
  };
}

/** `300ms`, `5s`; in milliseconds. */
export const durationValue: ValueParser<"sync", number> = valueParser(parseDuration, {
  metavar: "TIME",
  format: (ms) => ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`,
  placeholder: 1,
});

/** `100MiB/s`; in bytes per second. */
export const rateValue: ValueParser<"sync", number> = valueParser(parseRate, {
  metavar: "RATE",
  format: (bytes) => `${bytes}B/s`,
  placeholder: 1,
});

/** A peer's name or its key. */
export const peerValue: ValueParser<"sync", string> = valueParser(parsePeer, {
  metavar: "NAME|KEY",
  format: String,
  placeholder: "peer",
});

/** A VM's UUID. */
export const uuidValue: ValueParser<"sync", string> = valueParser(parseUuid, {
  metavar: "UUID",
  format: String,
  placeholder: "00000000-0000-0000-0000-000000000000",
});

/** HOST:PORT; port 0 only to `listen`. */
export function addressValue(options: { listen: boolean }): ValueParser<"sync", Address> {
  return valueParser((text) => parseAddress(text, options), {
    metavar: "HOST:PORT",
    format: formatAddress,
    placeholder: { host: "localhost", port: 1 },
  });
}

/** A whole number from `min` to `max`. */
export function countValue(
  range: { min: number; max: number; metavar: "N" | "MIB" },
): ValueParser<"sync", number> {
  return valueParser((text) => parseCount(text, range), {
    metavar: range.metavar,
    format: String,
    placeholder: range.min,
  });
}

/** The parser of {@linkcode CommonOptions}. */
export const commonOptions = object("Common options", {
  identity: optional(option("--identity", pathValue("FILE"), {
    description: message`This host's private key (default: identity in the state directory).`,
  })),
  stateDir: optional(option("--state-dir", pathValue("DIR"), {
    description:
      message`Where identity, peers and journals are (default: $SEALIFT_STATE_DIR, else /var/lib/sealift for root, else ~/.local/state/sealift).`,
  })),
  json: option("--json", {
    description: message`One JSON object per line on stdout; the last is the report.`,
  }),
  quiet: option("--quiet", { description: message`Warnings and errors only.` }),
  verbose: option("--verbose", { description: message`Details too.` }),
});

/** The examples at the foot of a command's help, one a line. */
export function examples(...commands: string[]): Message {
  return [
    text("Examples:"),
    ...commands.flatMap((command) => [lineBreak(), text(`  ${command}`)]),
  ];
}
