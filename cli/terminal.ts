/**
 * Everything for people, on stderr: lines, warnings, `error:` then `hint:`, and one progress line that is
 * redrawn on a terminal and repeated sparsely elsewhere.
 *
 * @module
 */

import { stderr, type TextWriter } from "./queued_writer.ts";

/** How often the progress line is redrawn on a terminal, and printed elsewhere, in milliseconds. */
const REDRAW_INTERVAL_MS = 100;
const PLAIN_INTERVAL_MS = 2_000;

/** Columns when the terminal does not say. */
const DEFAULT_COLUMNS = 80;

/** Back to the first column, and erase to the end of the line (ECMA-48, EL). */
const ERASE_LINE = "\r\x1b[K";

const colors = { red: 31, yellow: 33, cyan: 36 } as const;

/** What a {@linkcode Terminal} is told; everything absent is found out. */
export interface TerminalOptions {
  /** Warnings and errors only. */
  quiet?: boolean;
  /** Details too. */
  verbose?: boolean;
  /** Default: stderr. */
  writer?: TextWriter;
  /** Whether lines can be redrawn. Default: stderr is a terminal, and not a dumb one. */
  isTerminal?: boolean;
  /** Default: on a terminal, unless `NO_COLOR` is set. @see https://no-color.org */
  color?: boolean;
  /** The width of the terminal, asked for at each redraw. */
  columns?: () => number;
  /** Monotonic milliseconds. */
  now?: () => number;
}

/**
 * The text with everything that could steer a terminal, forge a line or reverse the reading order replaced
 * by U+FFFD: for whatever came from outside, such as a VM's name or the other side's reasons.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(printable("vm\u001b[2J\nerror: no"), "vm\uFFFD[2J\uFFFDerror: no");
 * ```
 */
export function printable(text: string): string {
  // Cc: controls; Zl, Zp: line and paragraph separators; the rest: Unicode's bidirectional controls (UAX #9).
  return text.replace(
    /[\p{Cc}\p{Zl}\p{Zp}\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/gu,
    "\uFFFD",
  );
}

/** Writes for people. Every text goes through {@linkcode printable}, so one call gives one line. */
export class Terminal implements Disposable {
  readonly #writer: TextWriter;
  readonly #quiet: boolean;
  readonly #verbose: boolean;
  readonly #isTerminal: boolean;
  readonly #color: boolean;
  readonly #columns: () => number;
  readonly #now: () => number;
  #progressShown = false;
  #lastProgressMs = -Infinity;

  constructor(options: TerminalOptions = {}) {
    this.#writer = options.writer ?? stderr;
    this.#quiet = options.quiet ?? false;
    this.#verbose = options.verbose ?? false;
    this.#isTerminal = options.isTerminal ??
      (Deno.stderr.isTerminal() && Deno.env.get("TERM") !== "dumb");
    this.#color = options.color ?? (this.#isTerminal && !Deno.noColor);
    this.#columns = options.columns ?? terminalColumns;
    this.#now = options.now ?? (() => performance.now());
  }

  /** A line, unless `quiet`. */
  line(text: string): void {
    if (!this.#quiet) this.#write(printable(text));
  }

  /** A line for those who asked for `verbose`. */
  detail(text: string): void {
    if (this.#verbose && !this.#quiet) this.#write(printable(text));
  }

  /** `warning: ...`, also when `quiet`. */
  warn(text: string): void {
    this.#write(`${this.#paint("warning:", "yellow")} ${printable(text)}`);
  }

  /** `error: ...`, then `hint: ...` if there is one; also when `quiet`. */
  error(message: string, hint?: string | null): void {
    this.#write(`${this.#paint("error:", "red")} ${printable(message)}`);
    if (hint !== undefined && hint !== null && hint !== "") {
      this.#write(`${this.#paint("hint:", "cyan")} ${printable(hint)}`);
    }
  }

  /** The state of something under way: the newest is shown, those that come too fast are left out. */
  progress(text: string): void {
    if (this.#quiet) return;
    const nowMs = this.#now();
    const intervalMs = this.#isTerminal ? REDRAW_INTERVAL_MS : PLAIN_INTERVAL_MS;
    if (nowMs - this.#lastProgressMs < intervalMs) return;
    this.#lastProgressMs = nowMs;
    if (!this.#isTerminal) {
      this.#writer.write(printable(text) + "\n", { mayDrop: true });
      return;
    }
    // One column stays free: a full line would make some terminals wrap.
    const line = [...printable(text)].slice(0, Math.max(1, this.#columns() - 1)).join("");
    this.#writer.write(ERASE_LINE + line, { mayDrop: true });
    this.#progressShown = true;
  }

  /** Takes the progress line away. */
  endProgress(): void {
    if (this.#progressShown) this.#writer.write(ERASE_LINE);
    this.#progressShown = false;
    this.#lastProgressMs = -Infinity;
  }

  [Symbol.dispose](): void {
    this.endProgress();
  }

  #write(line: string): void {
    this.#writer.write((this.#progressShown ? ERASE_LINE : "") + line + "\n");
    this.#progressShown = false;
  }

  #paint(text: string, color: keyof typeof colors): string {
    return this.#color ? `\x1b[${colors[color]}m${text}\x1b[0m` : text;
  }
}

function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns || DEFAULT_COLUMNS;
  } catch {
    return DEFAULT_COLUMNS;
  }
}
