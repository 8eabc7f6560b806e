/**
 * The usual command lines of `send` and `receive`, read without the library that knows them all: to load
 * that takes longer than anything else before the first page.
 *
 * Whatever is not plain (a rarer flag, a value in doubt, a mistake, `--help`) is left to the library. So
 * every line means what the library says that it means, and only the library says what is wrong with one.
 *
 * @module
 */

import { sealedSuiteIds } from "../ciphers/sealed.ts";
import { DEFAULT_MAX_STOP_MS, DEFAULT_RECONNECT_MS } from "../migration/limits.ts";
import type { Invocation } from "./commands.ts";
import type { CommonOptions } from "./options.ts";
import type { NetworkProtectionOptions } from "./protection.ts";
import type { ReceiveOptions } from "./receive.ts";
import type { SendOptions } from "./send.ts";
import {
  landModes,
  parseAddress,
  type Parsed,
  parseDuration,
  parsePath,
  parsePeer,
  parseRate,
  parseUuid,
} from "./values.ts";

/** What the arguments say; null when they are not plain. */
export function readPlainLine([name, ...words]: readonly string[]): Invocation | null {
  try {
    const line = new Line(words);
    if (name === "send") return sendInvocation(line);
    if (name === "receive") return receiveInvocation(line);
    return null;
  } catch (error) {
    if (error instanceof NotPlain) return null;
    throw error;
  }
}

function sendInvocation(line: Line): Invocation {
  const options: SendOptions = {
    command: "send",
    vm: { qmp: line.value("--qmp", parsePath) },
    to: line.value("--to", (text) => parseAddress(text, { listen: false })),
    peer: line.value("--peer", parsePeer),
    cipher: line.optional("--cipher", oneOf(sealedSuiteIds)),
    maxBandwidth: line.optional("--max-bandwidth", parseRate),
    downtimeLimitMs: line.optional("--downtime-limit", parseDuration),
    maxStopMs: line.optional("--max-stop", parseDuration) ?? DEFAULT_MAX_STOP_MS,
    reconnectMs: line.optional("--reconnect", parseDuration) ?? DEFAULT_RECONNECT_MS,
    onTamper: "abort",
    maxRounds: undefined,
    maxTimeMs: line.optional("--max-time", parseDuration),
    autoConverge: line.has("--auto-converge"),
    vmId: line.optional("--vm-id", parseUuid),
    keepSource: line.has("--keep-source"),
    dryRun: line.has("--dry-run"),
    ...sealed,
    ...commonOptions(line),
  };
  line.end();
  return { options, execute: async () => await (await import("./send_run.ts")).runSend(options) };
}

function receiveInvocation(line: Line): Invocation {
  const options: ReceiveOptions = {
    command: "receive",
    vm: {
      qmp: line.value("--qmp", parsePath),
      land: line.optional("--land", oneOf(landModes)) ?? "auto",
    },
    listen: line.value("--listen", (text) => parseAddress(text, { listen: true })),
    allow: line.values("--allow", parsePeer),
    vmId: line.optional("--vm-id", parseUuid),
    ...sealed,
    ...commonOptions(line),
  };
  line.end();
  return {
    options,
    execute: async () => await (await import("./receive_run.ts")).runReceive(options),
  };
}

/** Without a policy, and with suites of ours. */
const sealed: NetworkProtectionOptions = {
  profile: "sealed",
  plugins: [],
  policy: undefined,
  sensitivity: undefined,
  labels: [],
  labNetwork: false,
};

function commonOptions(line: Line): CommonOptions {
  return {
    identity: line.optional("--identity", parsePath),
    stateDir: line.optional("--state-dir", parsePath),
    json: line.has("--json"),
    quiet: line.has("--quiet"),
    verbose: line.has("--verbose"),
  };
}

function oneOf<T extends string>(choices: readonly T[]): (text: string) => Parsed<T> {
  return (text) => {
    const value = choices.find((choice) => choice === text);
    return value === undefined ? { ok: false, expected: "" } : { ok: true, value };
  };
}

/** The line is the library's. */
class NotPlain extends Error {}

/** Flags, each with one value or none, that are taken one by one. @throws {NotPlain} for everything else */
class Line {
  /** What follows each: null where nothing does. */
  readonly #given = new Map<string, (string | null)[]>();

  constructor(words: readonly string[]) {
    for (let i = 0; i < words.length; i++) {
      const flag = words[i]!;
      if (!/^--[a-z-]+$/.test(flag)) throw new NotPlain();
      const given = this.#given.get(flag) ?? [];
      this.#given.set(flag, given);
      const value = words[i + 1];
      // A value that looks like a flag is one for the library.
      if (value === undefined || value.startsWith("-")) given.push(null);
      else given.push(words[++i]!);
    }
  }

  /** A switch. */
  has(flag: string): boolean {
    const given = this.#take(flag);
    if (given.length > 1 || given.some((text) => text !== null)) throw new NotPlain();
    return given.length === 1;
  }

  /** At most one value. */
  optional<T>(flag: string, parse: (text: string) => Parsed<T>): T | undefined {
    const given = this.#take(flag);
    if (given.length > 1) throw new NotPlain();
    return given.map((text) => valueOf(text, parse))[0];
  }

  /** Exactly one. */
  value<T>(flag: string, parse: (text: string) => Parsed<T>): T {
    const values = this.values(flag, parse);
    if (values.length > 1) throw new NotPlain();
    return values[0]!;
  }

  /** One or more. */
  values<T>(flag: string, parse: (text: string) => Parsed<T>): T[] {
    const given = this.#take(flag);
    if (given.length === 0) throw new NotPlain();
    return given.map((text) => valueOf(text, parse));
  }

  /** Nothing is left. */
  end(): void {
    if (this.#given.size > 0) throw new NotPlain();
  }

  #take(flag: string): (string | null)[] {
    const given = this.#given.get(flag) ?? [];
    this.#given.delete(flag);
    return given;
  }
}

function valueOf<T>(text: string | null, parse: (text: string) => Parsed<T>): T {
  const parsed = text === null ? null : parse(text);
  if (parsed?.ok !== true) throw new NotPlain();
  return parsed.value;
}
