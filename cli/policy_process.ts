/**
 * A policy in a process of its own, a `deno` without permissions: whatever its file does, it can neither
 * read a file nor reach the network, nor store anything, nor hold us up. It may use up to about half a GiB
 * of the host's memory and a minute of CPU time; of ours it takes what it prints and answers, which is capped.
 *
 * ```mermaid
 * sequenceDiagram
 *   participant S as sealift
 *   participant P as deno, no permissions
 *   S->>P: starts it with the file's URL
 *   P->>S: name, levels
 *   Note over S: checks them
 *   S->>P: select(vm)
 *   P->>S: a level
 *   loop each round
 *     S->>P: round(stats)
 *     P->>S: settings
 *   end
 * ```
 *
 * @see {@link https://docs.deno.com/runtime/fundamentals/security/ Deno, Security and permissions}
 * @module
 */

import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";
import { checkLiveSettings, checkSelected } from "../migration/policy_answers.ts";
import { checkDefinition, isRecord, PolicyFault } from "../migration/policy_check.ts";
import { checkPolicySuites, type SuiteFacts } from "../migration/policy_suites.ts";
import type {
  Policy,
  PolicyDefinition,
  PolicyLevel,
  PolicyRound,
  PolicyVm,
} from "../migration/policy_types.ts";
import type { LiveSettings } from "../migration/ports.ts";
import { CliError } from "./cli_error.ts";
import { readCapped } from "./files.ts";
import { placed, PolicyPipe, type PolicyTimeLimits } from "./policy_pipe.ts";

const PROGRAM = new URL("./policy_child.ts", import.meta.url);

/** A policy is a page of text. */
const MAX_FILE_BYTES = 256 * 1024;
/** Heap of JavaScript, in MiB. */
const MAX_HEAP_MEBIBYTES = 64;
/**
 * All of the process's data, in KiB. A `deno` has 0.55 GiB of them before it does anything, most of it never
 * touched, and some more for each core.
 */
const MAX_DATA_KIBIBYTES = 1024 * 1024;
/** CPU time, in seconds: an endless loop must end also when nobody is left to kill it. */
const MAX_CPU_SECONDS = 60;

/**
 * Becomes the program in `$0`, under limits: it writes to no file (a temporary table of `node:sqlite` would be
 * one), and memory beside the heap of JavaScript has no limit of its own in Deno. A Ctrl-C is for us alone.
 * Not every `setpriv` can have the process killed once we are gone (util-linux's can): without it, a policy
 * that sleeps on purpose stays.
 *
 * @see {@link https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html PR_SET_PDEATHSIG(2const)}
 */
const LIMITED = `trap '' INT XFSZ
ulimit -c 0; ulimit -f 0; ulimit -t ${MAX_CPU_SECONDS}; ulimit -d ${MAX_DATA_KIBIBYTES}
if setpriv --pdeathsig KILL true 2> /dev/null; then exec setpriv --pdeathsig KILL "$0" "$@"; fi
exec "$0" "$@"`;

const usualTimeLimits: PolicyTimeLimits = { startMs: 15_000, callMs: 2_000 };

/** What {@linkcode PolicyProcess.open} takes. */
export interface PolicyProcessOptions {
  /** The suites that there are: `defaultRegistry().list()`. */
  suites: Iterable<SuiteFacts>;
  /** Default: 15 s to start, 2 s to answer. */
  timeLimits?: PolicyTimeLimits;
  /** Takes a line that the policy printed. */
  onOutput?: (line: string) => void;
}

/** Rounds to try a policy with before anything depends on it. */
const sampleRounds: readonly PolicyRound[] = [true, false].map((converging, index) => ({
  round: index,
  pages: { user: 1000, kernelText: 1000, kernelData: 1000, unmapped: 1000, zero: 1000 },
  bytes: 4000 * 4096,
  sealedBytes: 4000 * 4096,
  durationMs: 1000,
  keyNumber: index,
  mistakes: 0,
  converging,
}));

/** See the module. Disposing of it ends the process, whatever that does. */
export class PolicyProcess implements Policy, AsyncDisposable {
  /** The policy's file, without symbolic links. */
  readonly path: string;
  readonly round: ((stats: PolicyRound) => Promise<LiveSettings>) | undefined;
  /** The policy's data. */
  readonly definition: PolicyDefinition;
  readonly #pipe: PolicyPipe;
  readonly #definedAt: string | null;

  private constructor(pipe: PolicyPipe, loaded: {
    path: string;
    definition: PolicyDefinition;
    hasRound: boolean;
    definedAt: string | null;
  }) {
    this.#pipe = pipe;
    this.path = loaded.path;
    this.definition = loaded.definition;
    this.#definedAt = loaded.definedAt;
    this.round = loaded.hasRound ? (stats) => this.#round(stats) : undefined;
  }

  /** The policy's name. */
  get name(): string {
    return this.definition.name;
  }

  /** Its levels, lowest first. */
  get levels(): Readonly<Record<string, PolicyLevel>> {
    return this.definition.levels;
  }

  /**
   * Loads a policy, checks it, and tries its `round` with two made-up rounds.
   *
   * @throws {CliError} `usage`, with the file, and the line where there is one
   */
  static async open(file: string, options: PolicyProcessOptions): Promise<PolicyProcess> {
    const path = await checkFile(file);
    const pipe = startPipe(path, options);
    try {
      const loaded = readLoaded(await pipe.loaded(), path);
      checked(() => checkPolicySuites(loaded.definition, options.suites), {
        path,
        at: loaded.definedAt,
      });
      const policy = new PolicyProcess(pipe, { path, ...loaded });
      for (const round of sampleRounds) await policy.round?.(round);
      return policy;
    } catch (error) {
      await pipe[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The level that the policy chooses. @throws {CliError} `usage`; then it answers nothing more */
  async select(vm: PolicyVm): Promise<string> {
    const value = await this.#pipe.ask({ call: "select", argument: vm });
    return this.#checked(() => checkSelected(value, this.definition));
  }

  async #round(stats: PolicyRound): Promise<LiveSettings> {
    const value = await this.#pipe.ask({ call: "round", argument: stats });
    return this.#checked(() => checkLiveSettings(value));
  }

  #checked<T>(check: () => T): T {
    return checked(check, { path: this.path, at: this.#definedAt });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pipe[Symbol.asyncDispose]();
  }
}

/** The file's path as the process will be allowed to read it. */
async function checkFile(file: string): Promise<string> {
  try {
    // Deno would say it too, but late and in many words.
    await readCapped(file, { what: "the policy", maxBytes: MAX_FILE_BYTES });
    const path = await Deno.realPath(file);
    if (!basename(path).includes(",")) return path;
  } catch (cause) {
    throw new CliError("usage", cause instanceof Error ? cause.message : `${cause}`, { cause });
  }
  throw new CliError("usage", `Cannot use policy ${file}: its name has a comma`, {
    hint: "Deno's permissions are written in lists with commas: give the file another name",
  });
}

function startPipe(path: string, { timeLimits, onOutput }: PolicyProcessOptions): PolicyPipe {
  const child = new Deno.Command("/bin/sh", {
    args: [
      "-c",
      LIMITED,
      Deno.execPath(),
      "run",
      ...["--quiet", "--no-prompt", "--no-config", "--no-lock"],
      ...["--no-remote", "--no-npm", "--deny-import"],
      `--v8-flags=--max-old-space-size=${MAX_HEAP_MEBIBYTES}`,
      `--allow-read=${basename(path)}`,
      PROGRAM.href,
      pathToFileURL(path).href,
    ],
    cwd: dirname(path),
    clearEnv: true,
    env: {
      NO_COLOR: "1",
      DENO_NO_UPDATE_CHECK: "1",
      // `caches` and `localStorage` need no permission, and are the same for every policy: they are in there.
      DENO_DIR: "/dev/null",
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  return new PolicyPipe(child, {
    path,
    timeLimits: timeLimits ?? usualTimeLimits,
    onOutput: onOutput ?? (() => {}),
  });
}

/** What the process says of its policy, believed only as far as it was checked. */
function readLoaded(value: unknown, path: string) {
  const { definition, hasRound, definedAt } = isRecord(value) ? value : {};
  const at = typeof definedAt === "string" && /^\d{1,9}:\d{1,9}$/.test(definedAt)
    ? definedAt
    : null;
  return {
    definition: checked(() => checkDefinition(definition), { path, at }),
    hasRound: hasRound === true,
    definedAt: at,
  };
}

/** A fault of the policy, found here, as the command's error. */
function checked<T>(check: () => T, { path, at }: { path: string; at: string | null }): T {
  try {
    return check();
  } catch (cause) {
    if (!(cause instanceof PolicyFault)) throw cause;
    throw new CliError("usage", `Cannot use policy ${placed(path, at)}: ${cause.message}`, {
      cause,
    });
  }
}
