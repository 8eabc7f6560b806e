/**
 * A `send` or `receive` in a process of its own, read through its `--json` lines.
 *
 * @module
 */

import type { MigrationReport } from "../report.ts";

const ENTRY = new URL("../migrate.ts", import.meta.url);

/** One line that an agent printed. */
export interface AgentLine {
  type: string;
  [key: string]: unknown;
}

/** How an agent's process ended. */
export interface AgentEnd {
  code: number;
  report: MigrationReport | null;
  /** What it said for people. */
  stderr: string;
}

/** See the module. Disposing of it kills the process. */
export class AgentProcess implements AsyncDisposable {
  readonly pid: number;
  /** Resolves when the process has ended and all of its output was read. */
  readonly ended: Promise<AgentEnd>;
  readonly lines: AgentLine[] = [];
  readonly #child: Deno.ChildProcess;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  #stderr = "";
  #changed = Promise.withResolvers<void>();
  #over = false;

  /**
   * Starts `sealift ARGS --json`; `hold` names states at which it waits for `go`, `wrapper` is a command that starts
   * the command that follows it.
   */
  constructor(
    args: readonly string[],
    options: {
      hold?: readonly string[];
      env?: Record<string, string>;
      wrapper?: readonly string[];
    } = {},
  ) {
    const hold = options.hold === undefined ? {} : { SEALIFT_TEST_HOLD: options.hold.join(",") };
    const [program = "", ...rest] = [
      ...(options.wrapper ?? []),
      ...[Deno.execPath(), "run", "-A", "--no-prompt", ENTRY.pathname, ...args, "--json"],
    ];
    this.#child = new Deno.Command(program, {
      args: rest,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      env: { ...options.env, ...hold, NO_COLOR: "1" },
    }).spawn();
    this.pid = this.#child.pid;
    this.#stdin = this.#child.stdin.getWriter();
    this.ended = this.#read();
  }

  /** Whether the process has ended. */
  get hasEnded(): boolean {
    return this.#over;
  }

  /** The first line of that type (and state), among those that came and those that come; null when the process ends without. */
  async line(type: string, state?: string): Promise<AgentLine | null> {
    for (;;) {
      const found = this.lines.find((line) =>
        line.type === type && (state === undefined || line["state"] === state)
      );
      if (found !== undefined || this.#over) return found ?? null;
      await this.#changed.promise;
    }
  }

  /** Lets it go on from where it is held. */
  async go(): Promise<void> {
    await this.#stdin.write(new TextEncoder().encode("go\n"));
  }

  /** Sends a signal; nothing when it has ended. */
  signal(signal: Deno.Signal): void {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.signal("SIGKILL");
    await this.ended;
    await this.#stdin.close().catch(() => {});
  }

  async #read(): Promise<AgentEnd> {
    const errors = (async () => {
      for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) {
        this.#stderr += text;
      }
    })();
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + text).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) this.lines.push(JSON.parse(part));
      this.#wake();
    }
    await errors;
    const { code } = await this.#child.status;
    this.#over = true;
    this.#wake();
    const last = this.lines.at(-1);
    return {
      code,
      report: last?.type === "report" ? last as unknown as MigrationReport : null,
      stderr: this.#stderr,
    };
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}
