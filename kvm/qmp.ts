/**
 * QMP, QEMU's control protocol: one JSON object a line over a unix socket.
 *
 * A QMP that does not answer is *not* a QEMU that is gone: it hangs, for instance, while a stopped VM waits for somebody
 * to read its migration stream. Every command therefore has a time limit.
 *
 * @see https://www.qemu.org/docs/master/interop/qmp-spec.html
 * @module
 */

import { asNumber, asObject, asText, isObject, type JsonObject } from "./json_values.ts";
import { QmpError } from "./qmp_error.ts";
import { LineSplitter } from "./qmp_lines.ts";
import { writeAll } from "./write_all.ts";

/** Longest line: `query-qmp-schema`, the longest answer known, has under 1 MiB. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;
/** Commands without an answer: QEMU itself queues 8 and stops reading. */
const MAX_UNANSWERED = 64;
const READ_BYTES = 64 * 1024;
const DEFAULT_TIMEOUT_MS = 10_000;
const DEFAULT_GREETING_TIMEOUT_MS = 3_000;

/** Something that QEMU says unasked. */
export interface QmpEvent {
  /** For instance `STOP`, `RESUME`, `MIGRATION`. */
  name: string;
  /** What comes with it, unchecked. */
  data: JsonObject;
  /** The host's wall clock when QEMU sent it, in milliseconds since 1970; null when QEMU does not know it. */
  hostTimeMs: number | null;
  /** Monotonic milliseconds (`performance.now()`) when it was read here. */
  receivedMs: number;
}

/**
 * A connection to QEMU's monitor.
 *
 * @example
 * ```ts
 * import { QmpClient } from "./qmp.ts";
 *
 * export async function showStatus(path: string): Promise<void> {
 *   await using qmp = await QmpClient.connect(path);
 *   console.log(await qmp.execute("query-status"));
 * }
 * ```
 */
export class QmpClient implements AsyncDisposable {
  /** Resolves when the connection has ended and nothing more is handed out. Never rejects. */
  readonly closed: Promise<void>;

  readonly #conn: Deno.UnixConn;
  readonly #path: string;
  readonly #greeted = Promise.withResolvers<void>();
  /** Commands whose answer has not come, by id; one that timed out stays until it does. */
  readonly #pending = new Map<number, (answer: JsonObject | QmpError) => void>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #nextId = 1;
  #writing: Promise<void> = Promise.resolve();
  #end: QmpError | null = null;
  #hasEnded = false;
  #readToEnd = false;

  private constructor(conn: Deno.UnixConn, path: string) {
    this.#conn = conn;
    this.#path = path;
    this.#greeted.promise.catch(() => {});
    this.closed = this.#read();
  }

  /**
   * Connects to the socket at `path`, waits for the greeting and enters command mode.
   *
   * @throws {QmpError} `missing`, `denied`, `refused`, `busy`, `closed`, `timeout`, `protocol`
   */
  static async connect(
    path: string,
    options: { greetingTimeoutMs?: number } = {},
  ): Promise<QmpClient> {
    const client = new QmpClient(await dial(path), path);
    const timeoutMs = options.greetingTimeoutMs ?? DEFAULT_GREETING_TIMEOUT_MS;
    const timer = setTimeout(() => client.#greeted.reject(busy(path)), timeoutMs);
    try {
      await client.#greeted.promise;
      await client.execute("qmp_capabilities");
      return client;
    } catch (error) {
      await client[Symbol.asyncDispose]();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The connection itself, to ask the kernel who is there. */
  get unsafeConn(): Deno.UnixConn {
    return this.#conn;
  }

  /** Whether the connection has ended. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** Whether it was QEMU who ended it, and everything that it had said was handed out: a RESUME among it was heard. */
  get readToEnd(): boolean {
    return this.#readToEnd;
  }

  /** Commands that QEMU has not answered yet, those given up included. */
  get unanswered(): number {
    return this.#pending.size;
  }

  /**
   * Runs a command. Several may be under way at once; QEMU answers each by its id.
   *
   * @returns what QEMU returned
   * @throws {QmpError} `command` with QEMU's words, `timeout`, `closed`, `protocol`
   */
  async execute(
    command: string,
    args?: JsonObject,
    options: { timeoutMs?: number } = {},
  ): Promise<unknown> {
    if (this.#end !== null) throw this.#end;
    if (this.#pending.size >= MAX_UNANSWERED) throw this.#timeout(command);
    const id = this.#nextId++;
    const answered = Promise.withResolvers<JsonObject>();
    const timer = setTimeout(
      () => answered.reject(this.#timeout(command)),
      options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    );
    this.#pending.set(id, (answer) => {
      if (answer instanceof QmpError) answered.reject(answer);
      else answered.resolve(answer);
    });
    this.#write({ execute: command, ...(args === undefined ? {} : { arguments: args }), id });
    try {
      const answer = await answered.promise;
      if ("return" in answer) return answer.return;
      const text = asText(asObject(answer.error, "error").desc, "error.desc");
      throw new QmpError("command", `Cannot run ${command}: ${text}`, { description: text });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Runs a line of the human monitor and returns what it prints. @throws {QmpError} as {@linkcode execute} */
  async hmp(line: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const text = await this.execute("human-monitor-command", { "command-line": line }, options);
    return asText(text, line);
  }

  /**
   * Calls `listener` with every event from now on, in QEMU's order.
   *
   * @returns a function that ends it
   */
  on(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Ends the connection; commands under way reject with `closed`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop(new QmpError("closed", `Cannot use ${this.#path}: the connection was closed here`));
    await this.closed;
  }

  /** Closes the connection; the first reason is the one that is told. */
  #stop(reason: QmpError): QmpError {
    if (this.#end === null) {
      this.#end = reason;
      this.#conn.close();
    }
    return this.#end;
  }

  #timeout(command: string): QmpError {
    return new QmpError(
      "timeout",
      `Cannot run ${command}: QEMU does not answer at ${this.#path} just now`,
    );
  }

  /** Queues a line: writes must not mix, and a hung QEMU may take none. */
  #write(message: JsonObject): void {
    const bytes = new TextEncoder().encode(`${JSON.stringify(message)}\n`);
    this.#writing = this.#writing.then(() => writeAll(this.#conn, bytes)).catch(() => {
      // The reader meets the end as well, after what QEMU still had to say.
    });
  }

  async #read(): Promise<void> {
    const buffer = new Uint8Array(READ_BYTES);
    const lines = new LineSplitter(MAX_LINE_BYTES);
    try {
      for (;;) {
        const count = await this.#conn.read(buffer);
        if (count === null) break;
        const receivedMs = performance.now();
        for (const line of lines.push(buffer.subarray(0, count))) this.#take(line, receivedMs);
      }
    } catch (error) {
      // A reset is an end like any other; what QEMU had sent before was read before.
      const reset = error instanceof Deno.errors.ConnectionReset ||
        error instanceof Deno.errors.BrokenPipe;
      if (this.#end === null && !reset) this.#stop(asQmpError(error, this.#path));
    }
    this.#readToEnd = this.#end === null;
    const end = this.#stop(
      new QmpError("closed", `Cannot use ${this.#path}: QEMU closed the connection`),
    );
    this.#hasEnded = true;
    this.#greeted.reject(end);
    for (const settle of this.#pending.values()) settle(end);
    this.#pending.clear();
  }

  #take(line: string, receivedMs: number): void {
    const message = asObject(JSON.parse(line), "its line");
    if ("QMP" in message) {
      this.#greeted.resolve();
    } else if (typeof message.event === "string") {
      const event = {
        name: message.event,
        data: isObject(message.data) ? message.data : {},
        hostTimeMs: hostTimeMs(message.timestamp),
        receivedMs,
      };
      for (const listener of [...this.#listeners]) listener(event);
    } else if ("return" in message || "error" in message) {
      const id = asNumber(message.id, "an answer's id");
      const settle = this.#pending.get(id);
      if (settle === undefined) {
        throw new QmpError("protocol", "Cannot understand QEMU: an answer to nothing");
      }
      this.#pending.delete(id);
      settle(message);
    } else {
      throw new QmpError("protocol", "Cannot understand QEMU: neither an answer nor an event");
    }
  }
}

async function dial(path: string): Promise<Deno.UnixConn> {
  try {
    return await Deno.connect({ transport: "unix", path });
  } catch (cause) {
    const what = `Cannot connect to ${path}`;
    if (cause instanceof Deno.errors.NotFound) {
      throw new QmpError("missing", `${what}: no such socket`, { cause });
    }
    if (cause instanceof Deno.errors.PermissionDenied || cause instanceof Deno.errors.NotCapable) {
      throw new QmpError("denied", `${what}: permission denied`, { cause });
    }
    // EAGAIN: QEMU's queue of waiting clients is full.
    if (cause instanceof Deno.errors.WouldBlock) throw busy(path);
    throw new QmpError("refused", `${what}: nobody listens there`, { cause });
  }
}

function busy(path: string): QmpError {
  return new QmpError(
    "busy",
    `Cannot use ${path}: no greeting came, another client holds this socket`,
  );
}

/** Anything thrown while reading means that what came is not QMP. */
function asQmpError(error: unknown, path: string): QmpError {
  if (error instanceof QmpError) return error;
  return new QmpError("protocol", `Cannot use ${path}: it does not speak QMP`, { cause: error });
}

function hostTimeMs(timestamp: unknown): number | null {
  if (!isObject(timestamp)) return null;
  const { seconds, microseconds } = timestamp;
  // QEMU says -1 when its clock fails.
  if (typeof seconds !== "number" || typeof microseconds !== "number" || seconds < 0) return null;
  return seconds * 1000 + microseconds / 1000;
}
