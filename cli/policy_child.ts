/**
 * The program that a policy runs in, see `policy_process.ts`: no permission but to read that one file, and
 * not even this one once it is loaded. Its arguments: the policy's URL.
 *
 * @module
 */

// Whatever mod.ts brings is loaded already, and may be imported; for more the policy had to read files.
import "../mod.ts";
import { LineSplitter } from "../kvm/qmp_lines.ts";
import { MigrationError } from "../migration/errors.ts";
import { DefinedPolicy } from "../migration/policy.ts";
import { PolicyFault } from "../migration/policy_check.ts";
import type {
  PolicyAnswer,
  PolicyFailure,
  PolicyLoaded,
  PolicyRequest,
} from "./policy_protocol.ts";
import { writeAll } from "./write_all.ts";

// The policy may put something else in its place.
const { exit } = Deno;
/** Far above any request; the other side is ours. */
const MAX_REQUEST_BYTES = 256 * 1024;

function answer(line: PolicyAnswer): void {
  writeAll(Deno.stdout, JSON.stringify(line) + "\n");
}

/** What a policy prints must not stand between our lines. */
function redirectConsole(): void {
  const { error } = console;
  for (const [name, method] of Object.entries(console)) {
    if (typeof method === "function") Object.assign(console, { [name]: error });
  }
}

/** What was thrown, and where in the policy. */
function failureOf(thrown: unknown, url: string): PolicyFailure {
  if (!(thrown instanceof Error)) return { text: `${thrown} was thrown`, at: null };
  const { cause, message, name } = thrown;
  const at = placeIn(url, `${thrown.stack}\n${message}`);
  const fault = thrown instanceof MigrationError ? cause : thrown;
  if (fault instanceof PolicyFault) return { text: fault.message, at };
  const [line = ""] = message.split("\n");
  const asked = /^Requires (\w+ access[^,]*)/.exec(line);
  if (asked !== null) return { text: `it asks for ${asked[1]}, and a policy has none`, at };
  return { text: line.startsWith("SyntaxError") ? line : `${name}: ${line}`, at };
}

/** The first place in that file which a stack names. */
function placeIn(url: string, stack: string): string | null {
  const start = stack.indexOf(`${url}:`);
  return start < 0 ? null : /^\d+:\d+/.exec(stack.slice(start + url.length + 1))?.[0] ?? null;
}

async function load(url: string): Promise<DefinedPolicy> {
  const loaded: { default?: unknown } = await import(url);
  Deno.permissions.revokeSync({ name: "read" });
  if (loaded.default instanceof DefinedPolicy) return loaded.default;
  throw new PolicyFault("it has no `export default definePolicy({ ... })`");
}

function loadedPolicy(policy: DefinedPolicy, url: string): PolicyLoaded {
  const { name, levels, round, definedAt } = policy;
  return {
    definition: { name, levels },
    hasRound: round !== undefined,
    definedAt: definedAt === null ? null : placeIn(url, definedAt),
  };
}

function call(policy: DefinedPolicy, request: PolicyRequest): unknown {
  return request.call === "select"
    ? policy.select(request.argument)
    : policy.round!(request.argument);
}

/** Promises that were rejected and that nobody handles are told of at the end of a turn. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

async function main(url: string): Promise<void> {
  redirectConsole();
  for (const type of ["error", "unhandledrejection"] as const) {
    addEventListener(type, (event) => {
      event.preventDefault();
      const thrown = event instanceof ErrorEvent
        ? event.error
        : (event as PromiseRejectionEvent).reason;
      answer({ id: null, failure: failureOf(thrown, url) });
    });
  }
  let id = 0;
  let definedAt: string | null = null;
  try {
    const policy = await load(url);
    const loaded = loadedPolicy(policy, url);
    definedAt = loaded.definedAt;
    await turn();
    answer({ id, value: loaded });
    const lines = new LineSplitter(MAX_REQUEST_BYTES);
    for await (const bytes of Deno.stdin.readable) {
      for (const line of lines.push(bytes)) {
        const request: PolicyRequest = JSON.parse(line);
        id = request.id;
        const value = call(policy, request);
        await turn();
        answer({ id, value });
      }
    }
  } catch (thrown) {
    const { text, at } = failureOf(thrown, url);
    answer({ id, failure: { text, at: at ?? definedAt } });
  }
  exit(0);
}

await main(Deno.args[0]!);
