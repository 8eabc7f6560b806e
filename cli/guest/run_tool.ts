import { GuestError } from "./guest_error.ts";

/** Settings of {@linkcode runTool}. */
export interface RunToolOptions {
  /** Working directory. */
  cwd?: string;
  /** Added to the environment. */
  env?: Record<string, string>;
  /** Written to the program's standard input. */
  input?: Uint8Array;
}

/** How a program ended. */
export interface ToolOutput {
  /** Whether its exit status was 0. */
  ok: boolean;
  /** Its standard output, as UTF-8. */
  stdout: string;
  /** Its standard error, as UTF-8. */
  stderr: string;
}

/**
 * Runs a program to its end and returns what it wrote; a failure is not an exception here.
 *
 * @throws {GuestError} `missing` when there is no such program
 */
export async function tryTool(
  program: string,
  args: readonly string[],
  options: RunToolOptions = {},
): Promise<ToolOutput> {
  const { input, ...settings } = options;
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args: [...args],
      ...settings,
      stdin: input === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  } catch (cause) {
    throw new GuestError("missing", `Cannot run ${program}: no such program`, { cause });
  }
  const written = input === undefined ? undefined : feed(child, input);
  const { success, stdout, stderr } = await child.output();
  await written;
  const decoder = new TextDecoder();
  return { ok: success, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/**
 * Runs a program that has to succeed; returns its standard output.
 *
 * @throws {GuestError} `build` with the program's own words when it fails
 */
export async function runTool(
  program: string,
  args: readonly string[],
  options: RunToolOptions = {},
): Promise<string> {
  const { ok, stdout, stderr } = await tryTool(program, args, options);
  if (ok) return stdout;
  throw new GuestError("build", `Cannot run ${program}: ${stderr.trim().slice(-2000)}`);
}

async function feed(child: Deno.ChildProcess, input: Uint8Array): Promise<void> {
  const writer = child.stdin.getWriter();
  try {
    await writer.write(input);
    await writer.close();
  } catch {
    // It ended without reading all of it: its exit status tells.
  }
}
