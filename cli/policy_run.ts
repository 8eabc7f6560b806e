/**
 * `policy check`, put together: the policy in its process, its levels as a table, and its decision.
 *
 * @module
 */

import { defaultRegistry } from "../ciphers/registry.ts";
import { MigrationError } from "../migration/errors.ts";
import { pageClasses } from "../migration/message_types.ts";
import { decide, type PolicyConsent } from "../migration/policy_decision.ts";
import { levelSuites } from "../migration/policy_suites.ts";
import type { PolicyDefinition, PolicyVm } from "../migration/policy_types.ts";
import { printJson } from "./json_lines.ts";
import { printLine, printTable } from "./output.ts";
import { readPeers } from "./peers.ts";
import { loadPlugins } from "./plugin.ts";
import type { PolicyCheckOptions } from "./policy.ts";
import { PolicyProcess } from "./policy_process.ts";
import { formatBytes } from "./report.ts";
import { stateDirectory } from "./state_directory.ts";
import { Terminal } from "./terminal.ts";
import { isPeerName } from "./values.ts";

/** Runs `policy check`. @returns the exit code */
export async function runPolicyCheck(options: PolicyCheckOptions): Promise<number> {
  const { file, sensitivity, labels, json, plugins } = options;
  using terminal = new Terminal(options);
  const registry = defaultRegistry();
  await loadPlugins(plugins, { registry });
  await using policy = await PolicyProcess.open(file, {
    suites: registry.list(),
    onOutput: (line) => terminal.detail(`policy: ${line}`),
  });
  if (!json) printTable(levelTable(policy));
  const vm: PolicyVm = { ...options.vm, labels };
  const decision = await decide(policy, vm, { sensitivity, peer: await peerOf(options) });
  if (decision.refusal !== null) {
    const { text, hint } = decision.refusal;
    throw new MigrationError("refused", `Cannot move the VM: ${text}`, { hint });
  }
  if (json) {
    const { refusal: _, ...consent } = decision;
    printJson({
      type: "report",
      outcome: "completed",
      policy: {
        name: policy.name,
        file: policy.path,
        levels: levelsOf(policy),
        round: policy.round !== undefined,
      },
      vm,
      decision: consent,
    });
  } else {
    printLine("");
    printTable(describe(decision, { vm, policy }));
  }
  return 0;
}

/** A peer by both of its names, where the list of peers knows it. */
async function peerOf(
  options: PolicyCheckOptions,
): Promise<{ name: string | null; key: string | null } | undefined> {
  const { peer } = options;
  if (peer === undefined) return undefined;
  const known = (await readPeers(stateDirectory(options)))
    .find(({ name, key }) => name === peer || key === peer);
  return known ?? (isPeerName(peer) ? { name: peer, key: null } : { name: null, key: peer });
}

function levelsOf({ levels }: PolicyDefinition) {
  return Object.entries(levels).map(([level, content]) => ({
    level,
    profile: content.profile ?? "sealed",
    suites: levelSuites(content),
    onTamper: content.onTamper ?? null,
    to: content.to ?? null,
  }));
}

function levelTable(policy: PolicyDefinition): string[][] {
  return [
    ["level", "profile", ...pageClasses, "on tamper", "to"],
    ...levelsOf(policy).map(({ level, profile, suites, onTamper, to }) => [
      level,
      profile,
      ...pageClasses.map((pageClass) => suites[pageClass].join(",")),
      onTamper ?? "-",
      to?.join(",") ?? "-",
    ]),
  ];
}

/** What would happen, for people. */
function describe(
  { level, levelFrom, profile, suites, onTamper, to }: PolicyConsent,
  { vm, policy }: { vm: PolicyVm; policy: PolicyProcess },
): string[][] {
  const facts = [
    vm.name === null ? null : `name ${vm.name}`,
    vm.memoryBytes === 0 ? null : `memory ${formatBytes(vm.memoryBytes)}`,
    vm.machine === "" ? null : `machine ${vm.machine}`,
    vm.labels.length === 0 ? null : `labels ${vm.labels.join(", ")}`,
  ].filter((fact) => fact !== null);
  return [
    ["vm", facts.length === 0 ? "nothing known of it" : facts.join("; ")],
    ["level", `${level}, by ${levelFrom === "operator" ? "--sensitivity" : "the policy's select"}`],
    ["profile", profile === "paper" ? "paper: it takes --profile paper on both ends" : profile],
    ...pageClasses.map((pageClass) => [pageClass, suites[pageClass].join(", ")]),
    ["on tamper", onTamper ?? "as --on-tamper says"],
    ["to", to?.join(", ") ?? "any peer"],
    ["rounds", policy.round === undefined ? "as the flags say" : "as the policy's round says"],
  ];
}
