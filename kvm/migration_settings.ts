/**
 * Migration parameters and capabilities of a QEMU: changed for one migration, put back after it.
 *
 * @module
 */

import { asList, asObject, type JsonObject } from "./json_values.ts";
import type { QmpClient } from "./qmp.ts";
import { QmpError } from "./qmp_error.ts";

/** Parameters by QEMU's name of them. */
export type Parameters = Readonly<Record<string, string | number | boolean>>;
/** Capabilities by QEMU's name of them. */
export type Capabilities = Readonly<Record<string, boolean>>;

/** The settings of one QEMU as they were, and what was changed since. */
export class MigrationSettings {
  readonly #qmp: QmpClient;
  readonly #parameters: JsonObject;
  readonly #capabilities: Capabilities;
  readonly #changedParameters = new Set<string>();
  readonly #changedCapabilities = new Set<string>();

  private constructor(
    qmp: QmpClient,
    saved: { parameters: JsonObject; capabilities: Capabilities },
  ) {
    this.#qmp = qmp;
    this.#parameters = saved.parameters;
    this.#capabilities = saved.capabilities;
  }

  /** Reads what is to be put back later. @throws {QmpError} */
  static async read(qmp: QmpClient): Promise<MigrationSettings> {
    const parameters = asObject(await qmp.execute("query-migrate-parameters"), "the parameters");
    return new MigrationSettings(qmp, { parameters, capabilities: await readAll(qmp) });
  }

  /** Whether a capability was on before; null when this QEMU has no such capability. */
  wasOn(capability: string): boolean | null {
    return this.#capabilities[capability] ?? null;
  }

  /** A number as it was before; null when this QEMU has no such parameter. */
  numberBefore(parameter: string): number | null {
    const value = this.#parameters[parameter];
    return typeof value === "number" ? value : null;
  }

  /** Changes parameters; they can be changed during a migration. @throws {QmpError} */
  async setParameters(parameters: Parameters): Promise<void> {
    const names = Object.keys(parameters);
    if (names.length === 0) return;
    await unlessRefused(
      this.#qmp.execute("migrate-set-parameters", parameters),
      () => names.forEach((name) => this.#changedParameters.add(name)),
    );
  }

  /** Changes capabilities; QEMU refuses that during a migration. @throws {QmpError} */
  async setCapabilities(capabilities: Capabilities): Promise<void> {
    const names = Object.keys(capabilities);
    await unlessRefused(
      sendCapabilities(this.#qmp, capabilities),
      () => names.forEach((name) => this.#changedCapabilities.add(name)),
    );
  }

  /** Puts back what was changed. Does nothing when QMP has closed. @throws {QmpError} */
  async restore(): Promise<void> {
    if (this.#qmp.hasEnded) return;
    const parameters: Record<string, unknown> = {};
    for (const name of this.#changedParameters) parameters[name] = this.#parameters[name];
    if (this.#changedParameters.size > 0) {
      await this.#qmp.execute("migrate-set-parameters", parameters);
      this.#changedParameters.clear();
    }
    const capabilities: Record<string, boolean> = {};
    for (const name of this.#changedCapabilities) {
      capabilities[name] = this.#capabilities[name] ?? false;
    }
    if (this.#changedCapabilities.size > 0) {
      await sendCapabilities(this.#qmp, capabilities);
      this.#changedCapabilities.clear();
    }
  }
}

/** Waits for a command and calls `record` unless QEMU refused it: without an answer it may have been done. */
async function unlessRefused(command: Promise<unknown>, record: () => void): Promise<void> {
  try {
    await command;
  } catch (error) {
    if (!(error instanceof QmpError && error.code === "command")) record();
    throw error;
  }
  record();
}

async function sendCapabilities(qmp: QmpClient, capabilities: Capabilities): Promise<void> {
  await qmp.execute("migrate-set-capabilities", {
    capabilities: Object.entries(capabilities).map(([capability, state]) => ({
      capability,
      state,
    })),
  });
}

async function readAll(qmp: QmpClient): Promise<Capabilities> {
  const entries = asList(await qmp.execute("query-migrate-capabilities"), "the capabilities")
    .map((entry) => asObject(entry, "a capability"));
  return Object.fromEntries(
    entries.map(({ capability, state }) => [String(capability), state === true]),
  );
}
