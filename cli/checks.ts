/**
 * What a dry run looks at, on both ends, and what came of each check.
 *
 * @module
 */

import { KvmError } from "../kvm/errors.ts";
import type { QemuFacts } from "../kvm/qemu_facts.ts";
import { encodeKey } from "../migration/identity.ts";
import type { MigrationResult } from "../migration/result.ts";

/** The checks, in the order in which they are made: one that fails keeps those after it from being made. */
const order = [
  "identity",
  "peer",
  "qmp",
  "lock",
  "run state",
  "capabilities",
  "journal",
  "connection",
  "keys",
  "destination",
  "destination vm",
  "destination ciphers",
  "destination journal",
  "destination landing",
] as const;
/** A check's name. Those from `destination` on are made by the other side. */
export type CheckName = typeof order[number];

/** One check of a dry run. */
export interface Check {
  name: CheckName;
  /** Null when it was not reached. */
  ok: boolean | null;
  /** What was found, or what is wrong. */
  detail: string | null;
}

/**
 * Collects the checks of one `send --dry-run`.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * const checks = new Checks();
 * checks.passed("identity", "the key");
 * checks.failed(new Error("Cannot find peer host-b: it is not known here"));
 * assert.deepEqual(checks.list().slice(0, 3).map(({ ok }) => ok), [true, false, null]);
 * ```
 */
export class Checks {
  readonly #found = new Map<CheckName, { ok: boolean; detail: string | null }>();

  /** It and all before it are as they should be. */
  passed(name: CheckName, detail: string): void {
    this.#passAll(order.indexOf(name));
    this.#found.set(name, { ok: true, detail });
  }

  /** The source's QEMU was attached. */
  attached(vm: { facts: QemuFacts; before: string }): void {
    const { facts, before } = vm;
    this.passed("qmp", `QEMU ${facts.qemuVersion}, process ${facts.process.pid}`);
    this.passed("lock", "no other command works with it");
    this.passed("run state", before);
    this.passed("capabilities", "none is on that has to be off");
  }

  /** The next check failed, or the one that `error` tells of. */
  failed(error: unknown): void {
    this.#fail(checkOf(error) ?? this.#next(), error instanceof Error ? error.message : `${error}`);
  }

  /** What the migration's own checks came to. */
  concluded(result: MigrationResult, options: { address: string; peer: Uint8Array }): void {
    const { error, lastState } = result;
    if (error !== null) {
      const offered = lastState === "offering" || error.code === "refused";
      if (offered || error.code === "handshake") this.passed("connection", options.address);
      if (offered && error.code !== "handshake") this.passed("keys", encodeKey(options.peer));
      return this.#fail(this.#next(), error.message);
    }
    const { vm, suites, backend, landing, notes } = result;
    this.passed("connection", options.address);
    this.passed("keys", `${encodeKey(options.peer)} answers, and lets this host's key in`);
    this.passed("destination", "accepts");
    this.passed("destination vm", `fits ${vm.uuid}: machine, memory blocks and capabilities`);
    this.passed(
      "destination ciphers",
      `${[...new Set(Object.values(suites ?? {}))].join(", ")} by ${backend}`,
    );
    this.passed("destination journal", "can be written");
    this.passed("destination landing", [landing, ...notes].join("; "));
  }

  /** Every check, in order. */
  list(): Check[] {
    return order.map((name) => ({ name, ...this.#found.get(name) ?? { ok: null, detail: null } }));
  }

  #next(): CheckName {
    return order.find((name) => !this.#found.has(name)) ?? "destination landing";
  }

  #fail(name: CheckName, detail: string): void {
    this.#passAll(order.indexOf(name));
    this.#found.set(name, { ok: false, detail });
  }

  /** What comes before a check that was made was in order. */
  #passAll(end: number): void {
    for (const name of order.slice(0, end)) {
      if (!this.#found.has(name)) this.#found.set(name, { ok: true, detail: null });
    }
  }
}

/** The checks for people, one a line. */
export function formatChecks(checks: readonly Check[]): string[] {
  return checks.map(({ name, ok, detail }) => {
    const result = ok === null ? "-" : ok ? "ok" : "failed";
    return `  ${result.padEnd(7)} ${name.padEnd(20)} ${
      detail ?? (ok === null ? "not reached" : "")
    }`
      .trimEnd();
  });
}

/** Which check of a QEMU it was that failed; null when the error does not say. */
function checkOf(error: unknown): CheckName | null {
  if (!(error instanceof KvmError)) return null;
  const byCode: Partial<Record<KvmError["code"], CheckName>> = {
    locked: "lock",
    denied: "lock",
    state: "run state",
    capability: "capabilities",
  };
  return byCode[error.code] ?? null;
}
