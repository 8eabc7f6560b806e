/**
 * The commands by name, each loaded when it is asked for: a command that moves a VM waits for no other's
 * modules.
 *
 * @module
 */

import { map } from "@optique/core/modifiers";
import type { Parser } from "@optique/core/parser";
import type { CommonOptions } from "./options.ts";

/** A command line that was understood. */
export interface Invocation {
  /** What every command takes. */
  options: CommonOptions;
  /** Runs the command. @returns the exit code */
  execute: () => Promise<number>;
}

/** The parser of one command's whole line, its name included. */
export type CommandParser = Parser<"sync", Invocation, unknown>;

/** In the order of the help. */
export const commands: Readonly<Record<string, () => Promise<CommandParser>>> = {
  demo: async () => {
    const { demoCommand, executeDemo } = await import("./demo.ts");
    return invocation(demoCommand, executeDemo);
  },
  send: async () => {
    const { sendCommand, executeSend } = await import("./send.ts");
    return invocation(sendCommand, executeSend);
  },
  receive: async () => {
    const { receiveCommand, executeReceive } = await import("./receive.ts");
    return invocation(receiveCommand, executeReceive);
  },
  recover: async () => {
    const { recoverCommand, executeRecover } = await import("./recover.ts");
    return invocation(recoverCommand, executeRecover);
  },
  status: async () => {
    const { statusCommand, executeStatus } = await import("./status.ts");
    return invocation(statusCommand, executeStatus);
  },
  key: async () => {
    const { keyCommand, executeKey } = await import("./key.ts");
    return invocation(keyCommand, executeKey);
  },
  peer: async () => {
    const { peerCommand, executePeer } = await import("./peer.ts");
    return invocation(peerCommand, executePeer);
  },
  policy: async () => {
    const { policyCommand, executePolicy } = await import("./policy.ts");
    return invocation(policyCommand, executePolicy);
  },
  inspect: async () => {
    const { inspectCommand, executeInspect } = await import("./inspect.ts");
    return invocation(inspectCommand, executeInspect);
  },
  ciphers: async () => {
    const { ciphersCommand, executeCiphers } = await import("./ciphers.ts");
    return invocation(ciphersCommand, executeCiphers);
  },
};

function invocation<T extends CommonOptions, S>(
  parser: Parser<"sync", T, S>,
  execute: (options: T) => Promise<number>,
): CommandParser {
  return map(parser, (options) => ({ options, execute: () => execute(options) }));
}
