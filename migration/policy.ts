/**
 * Policies: how sensitive a VM is, and what protects it then.
 *
 * A policy has levels, lowest first; each says which cipher suites it accepts for each class of pages. The
 * level of a VM is the operator's word, or what the policy's own `select` makes of it. Both ends may have a
 * policy: what both accept is what remains, and where nothing remains nothing moves.
 *
 * @see Paper, section 3: the administrator decides which pages are worth which protection
 * @module
 */

import { MigrationError } from "./errors.ts";
import { checkLiveSettings, checkSelected } from "./policy_answers.ts";
import { checkDefinition, isRecord, PolicyFault, refuseUnknownKeys } from "./policy_check.ts";
import { checkPolicySuites, type SuiteFacts } from "./policy_suites.ts";
import type {
  Policy,
  PolicyDefinition,
  PolicyLevel,
  PolicyRound,
  PolicySource,
  PolicyVm,
} from "./policy_types.ts";
import type { LiveSettings } from "./ports.ts";

/** What {@linkcode definePolicy} returns. */
export class DefinedPolicy implements Policy {
  readonly name: string;
  readonly levels: Readonly<Record<string, PolicyLevel>>;
  readonly round: ((stats: PolicyRound) => LiveSettings) | undefined;
  /** Where {@linkcode definePolicy} was called, as `URL:LINE:COLUMN`, for messages; null where the engine does not say. */
  readonly definedAt: string | null;
  readonly #select: (vm: PolicyVm) => string;

  /** Use {@linkcode definePolicy}. */
  constructor(
    definition: PolicyDefinition,
    parts: Pick<PolicySource<string>, "select" | "round"> & { definedAt: string | null },
  ) {
    const { select, round, definedAt } = parts;
    this.name = definition.name;
    this.levels = definition.levels;
    this.definedAt = definedAt;
    this.#select = select;
    this.round = round === undefined
      ? undefined
      : (stats) => this.#checked(() => checkLiveSettings(round(stats)));
  }

  /** The level that the policy chooses. @throws {MigrationError} `usage` when it is none of `levels`; what it throws itself */
  select(vm: PolicyVm): string {
    return this.#checked(() => checkSelected(this.#select(vm), this));
  }

  #checked<T>(check: () => T): T {
    return usageError(`policy ${this.name}`, check);
  }
}

/**
 * Defines a policy, and checks all of it that needs no registry of suites. `deno check` finds the names of
 * levels, classes and suites that are mistyped; what reaches this function is checked again.
 *
 * @throws {MigrationError} `usage`, with the place inside the policy: `levels.restricted.classes.kernelTxt`
 *
 * @example
 * ```ts
 * import { definePolicy } from "./policy.ts";
 *
 * const policy = definePolicy({
 *   name: "bank",
 *   levels: {
 *     public: { suites: ["aes-128-gcm", "aes-256-gcm"] },
 *     restricted: { suites: ["aes-256-gcm"], onTamper: "abort", to: ["host-b"] },
 *   },
 *   select: (vm) => vm.labels.includes("pci") ? "restricted" : "public",
 * });
 * console.assert(Object.keys(policy.levels).length === 2);
 * ```
 */
export function definePolicy<const Level extends string>(
  policy: PolicySource<Level>,
): DefinedPolicy {
  return usageError("policy", () => {
    const given: unknown = policy;
    if (!isRecord(given)) throw new PolicyFault("it is not an object");
    refuseUnknownKeys(given, ["name", "levels", "select", "round"], "");
    const { name, levels, select, round } = policy;
    const definition = checkDefinition({ name, levels });
    if (typeof select !== "function") throw new PolicyFault("select is not a function");
    if (round !== undefined && typeof round !== "function") {
      throw new PolicyFault("round is not a function");
    }
    return new DefinedPolicy(definition, {
      select,
      ...(round === undefined ? {} : { round }),
      definedAt: callerOf(definePolicy),
    });
  });
}

/**
 * Checks a policy against the suites that there are: each that it names is known and of its level's profile,
 * and no level accepts, for some class of pages, a weaker one than a level below it does.
 *
 * @param suites `registry.list()`
 * @throws {MigrationError} `usage`
 */
export function checkPolicy(policy: PolicyDefinition, suites: Iterable<SuiteFacts>): void {
  usageError(`policy ${policy.name}`, () => checkPolicySuites(policy, suites));
}

/** Where a function was called, as V8 writes it. */
function callerOf(callee: (...args: never[]) => unknown): string | null {
  const trace: { stack?: string } = {};
  if (!("captureStackTrace" in Error)) return null;
  (Error.captureStackTrace as (target: object, below: unknown) => void)(trace, callee);
  return /^\s+at .*?([a-z]+:\/\/.*:\d+:\d+)\)?$/m.exec(trace.stack ?? "")?.[1] ?? null;
}

/** Runs a check of a policy; its fault becomes an error of the caller's. */
function usageError<T>(what: string, check: () => T): T {
  try {
    return check();
  } catch (cause) {
    if (!(cause instanceof PolicyFault)) throw cause;
    throw new MigrationError("usage", `Cannot use ${what}: ${cause.message}`, { cause });
  }
}
