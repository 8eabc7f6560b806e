/**
 * Modules of Node that are loaded when they are first used: to import one costs a process some 30 ms at its
 * start, and where libcrypto loads nobody needs them.
 *
 * @module
 */

/** `node:crypto`. */
export function nodeCrypto(): typeof import("node:crypto") {
  // deno-lint-ignore no-process-global -- to import it would load what is to be left out
  return process.getBuiltinModule("node:crypto");
}

/** `node:zlib`. */
export function nodeZlib(): typeof import("node:zlib") {
  // deno-lint-ignore no-process-global -- as above
  return process.getBuiltinModule("node:zlib");
}
