/**
 * The pipes to a policy's process: questions, answers, time limits, and what it says on stderr.
 *
 * @module
 */

import { LineSplitter } from "../kvm/qmp_lines.ts";
import { isRecord } from "../migration/policy_check.ts";
import { printable } from "../migration/printable.ts";
import { CliError } from "./cli_error.ts";
import type { PolicyFailure, PolicyRequest } from "./policy_protocol.ts";

/** A definition of 32 levels with long lists fits. */
const MAX_ANSWER_BYTES = 256 * 1024;
/** What is kept, and passed on, of everything that a policy prints. */
const MAX_KEPT_BYTES = 64 * 1024;
/** A policy that prints more is ended: reading it costs us CPU time that the VM's pages need. */
const MAX_OUTPUT_BYTES = 4 * 1024 * 1024;

/** How long a policy may take, in milliseconds. */
export interface PolicyTimeLimits {
  /** To start a process, load Sealift and run the file's top level: 0.6 s on a machine at rest. */
  startMs: number;
  /** To answer a question. */
  callMs: number;
}

/** A question without its number. */
type Question = PolicyRequest extends infer One
  ? One extends PolicyRequest ? Omit<One, "id"> : never
  : never;

/** See the module. A failure is final: the process is killed, and every later question fails the same way. */
export class PolicyPipe implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #path: string;
  readonly #timeLimits: PolicyTimeLimits;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  readonly #answers: AsyncGenerator<string>;
  readonly #output: Promise<string>;
  #id = 0;
  #failure: CliError | null = null;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(child: Deno.ChildProcess, options: {
    path: string;
    timeLimits: PolicyTimeLimits;
    onOutput: (line: string) => void;
  }) {
    this.#child = child;
    this.#path = options.path;
    this.#timeLimits = options.timeLimits;
    this.#stdin = child.stdin.getWriter();
    this.#answers = linesOf(child.stdout);
    this.#output = readOutput(child.stderr, {
      onOutput: options.onOutput,
      onTooMuch: () => this.#end("it prints without end, and was ended"),
    });
  }

  /** What the process says once the policy is loaded. @throws {CliError} `usage` */
  loaded(): Promise<unknown> {
    return this.#inTurn(() => this.#answer(null));
  }

  /** Asks, and waits for the answer. @throws {CliError} `usage` */
  ask(question: Question): Promise<unknown> {
    return this.#inTurn(() => {
      this.#id++;
      const line = new TextEncoder().encode(JSON.stringify({ id: this.#id, ...question }) + "\n");
      // A process that has ended says why when it is read from.
      this.#stdin.write(line).catch(() => {});
      return this.#answer(question.call);
    });
  }

  /** One question at a time. */
  #inTurn<T>(ask: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(async () => {
      if (this.#failure !== null) throw this.#failure;
      try {
        return await ask();
      } catch (error) {
        this.#kill();
        if (error instanceof CliError) this.#failure ??= error;
        throw this.#failure ?? error;
      }
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** The answer to `call`, or to the start. */
  async #answer(call: Question["call"] | null): Promise<unknown> {
    const { startMs, callMs } = this.#timeLimits;
    const limitMs = call === null ? startMs : callMs;
    const timer = setTimeout(() => {
      const what = call === null ? "load" : `answer ${call}()`;
      this.#end(`it took longer than ${limitMs / 1000} s to ${what}, and was ended`);
    }, limitMs);
    try {
      const { value: line, done } = await this.#answers.next();
      if (this.#failure !== null) throw this.#failure;
      return done === true ? await this.#throwEnd() : this.#read(line, call);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw this.#error({ text: `its answer is longer than ${MAX_ANSWER_BYTES} bytes`, at: null });
    } finally {
      clearTimeout(timer);
    }
  }

  #read(line: string, call: Question["call"] | null): unknown {
    let answer: unknown;
    try {
      answer = JSON.parse(line);
    } catch {
      // Said below.
    }
    if (isRecord(answer) && isRecord(answer["failure"])) {
      const { text, at } = answer["failure"];
      const thrown = typeof text === "string" ? printable(text) : "it failed";
      const isAnswer = call !== null && answer["id"] === this.#id;
      throw this.#error({
        text: isAnswer && !thrown.startsWith(`${call}()`) ? `in ${call}(): ${thrown}` : thrown,
        at: typeof at === "string" && /^\d{1,9}:\d{1,9}$/.test(at) ? at : null,
      });
    }
    if (isRecord(answer) && answer["id"] === this.#id && "value" in answer) return answer["value"];
    throw this.#error({
      text: "it wrote to stdout itself, which is for Sealift; console.log() is for notes",
      at: null,
    });
  }

  /** It has ended without an answer: why. */
  async #throwEnd(): Promise<never> {
    const { code, signal } = await this.#child.status;
    const output = await this.#output;
    const text = /out of memory|allocation failed/i.test(output)
      ? "it used more memory than a policy is given"
      : signal === "SIGXCPU" || signal === "SIGKILL"
      ? "it used more CPU time than a policy is given"
      : `its process ended by itself (${signal ?? `exit code ${code}`})${firstLine(output)}`;
    throw this.#error({ text, at: null });
  }

  #error({ text, at }: PolicyFailure): CliError {
    return new CliError("usage", `Cannot use policy ${placed(this.#path, at)}: ${text}`, {
      hint: text.includes("it asks for read access")
        ? `a policy reads nothing; what it may import is Sealift's ${MOD}`
        : undefined,
    });
  }

  /** Ends the process for this reason, unless there was one before. */
  #end(text: string): void {
    this.#failure ??= this.#error({ text, at: null });
    this.#kill();
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end("it is not needed any more, and was ended");
    await this.#child.status;
    await this.#turn;
    await this.#output;
    await this.#answers.return(undefined);
    await this.#stdin.close().catch(() => {});
  }
}

const MOD = new URL("../mod.ts", import.meta.url).pathname;

function firstLine(output: string): string {
  const [line = ""] = output.trimStart().split("\n");
  return line === "" ? "" : `: ${printable(line)}`;
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const lines = new LineSplitter(MAX_ANSWER_BYTES);
  for await (const bytes of stream) yield* lines.push(bytes);
}

/** Reads all of it, passes lines on, and keeps the beginning. `onTooMuch` has to end the stream. */
async function readOutput(
  stream: ReadableStream<Uint8Array>,
  { onOutput, onTooMuch }: { onOutput: (line: string) => void; onTooMuch: () => void },
): Promise<string> {
  const decoder = new TextDecoder();
  let sizeBytes = 0;
  let kept = "";
  let rest = "";
  for await (const bytes of stream) {
    sizeBytes += bytes.length;
    if (sizeBytes > MAX_OUTPUT_BYTES) onTooMuch();
    if (kept.length >= MAX_KEPT_BYTES) continue;
    const more = decoder.decode(bytes, { stream: true }).slice(0, MAX_KEPT_BYTES - kept.length);
    kept += more;
    const lines = (rest + more).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onOutput(printable(line));
  }
  if (rest !== "") onOutput(printable(rest));
  return kept;
}

/** `FILE:LINE:COLUMN`, or the file alone. */
export function placed(path: string, at: string | null): string {
  return at === null ? path : `${path}:${at}`;
}
