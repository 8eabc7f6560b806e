/**
 * How a running `send` is shown: the progress line, and with `--json` one object for each state and round.
 *
 * @module
 */

import type { SourceVm } from "../migration/ports.ts";
import type { RoundStatistics } from "../migration/rounds.ts";
import type { Source } from "../migration/source.ts";
import type { SourceState } from "../migration/states.ts";
import { printJson } from "./json_lines.ts";
import { formatBytes, formatMs } from "./report.ts";
import type { Terminal } from "./terminal.ts";

const INTERVAL_MS = 500;

/** So many rounds that do not get smaller are worth a word. */
const STALLED_ROUNDS = 5;

/** See the module. */
export class LiveProgress implements Disposable {
  readonly #terminal: Terminal;
  readonly #vm: SourceVm;
  readonly #json: boolean;
  #source: Source | null = null;
  #timer: ReturnType<typeof setInterval> | null = null;
  #lastBytes = 0;
  #lastAtMs = performance.now();
  #smallestRound = Infinity;
  #roundsSinceSmaller = 0;

  constructor(options: { terminal: Terminal; vm: SourceVm; json: boolean }) {
    this.#terminal = options.terminal;
    this.#vm = options.vm;
    this.#json = options.json;
  }

  /** Shows `source` from now on. */
  watch(source: Source): void {
    this.#source = source;
    this.#timer = setInterval(() => void this.#show(source), INTERVAL_MS);
  }

  /** A state was entered. */
  entered(state: SourceState): void {
    if (this.#json) printJson({ type: "state", state });
    this.#terminal.detail(state);
  }

  /** A round was closed. */
  round(round: RoundStatistics): void {
    if (this.#json) printJson({ type: "round", ...round });
    const { user, kernelText, kernelData, unmapped } = round.pages;
    const pages = user + kernelText + kernelData + unmapped;
    this.#roundsSinceSmaller = pages < this.#smallestRound ? 0 : this.#roundsSinceSmaller + 1;
    this.#smallestRound = Math.min(this.#smallestRound, pages);
    if (this.#roundsSinceSmaller !== STALLED_ROUNDS) return;
    this.#terminal.warn(
      `no progress for ${STALLED_ROUNDS} rounds: the VM writes as fast as it is copied`,
    );
    this.#terminal.line(
      "hint: give --auto-converge, raise --max-bandwidth or --downtime-limit, or end it with --max-rounds",
    );
  }

  /** Something happened that a person may want to know. */
  note(text: string): void {
    if (this.#json) printJson({ type: "note", text });
    this.#terminal.line(text);
  }

  /** A record was damaged on the way. */
  tampered(text: string): void {
    if (this.#json) printJson({ type: "tamper", text });
    this.#terminal.warn(text);
  }

  [Symbol.dispose](): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#terminal.endProgress();
  }

  async #show(source: Source): Promise<void> {
    const round = source.rounds.at(-1);
    if (round === undefined) return;
    const running = source.state === "copying";
    // QEMU's monitor may hang while the VM is stopped: it is not asked then.
    const vm = running ? await this.#vm.progress().catch(() => null) : null;
    if (this.#source === null || this.#timer === null) return;
    const nowMs = performance.now();
    const bytesPerSecond = (source.wireBytes - this.#lastBytes) / (nowMs - this.#lastAtMs) * 1000;
    this.#lastBytes = source.wireBytes;
    this.#lastAtMs = nowMs;
    const pagesLeft = vm === null ? null : Math.ceil(vm.remainingBytes / 4096);
    const expectedDowntimeMs = vm?.expectedDowntimeMs ?? null;
    if (this.#json) {
      const { state } = source;
      printJson({
        type: "progress",
        state,
        round: round.round,
        bytesPerSecond: Math.round(bytesPerSecond),
        pagesLeft,
        expectedDowntimeMs,
      });
    }
    const parts = [`round ${round.round}`, source.state];
    if (pagesLeft !== null) parts.push(`${pagesLeft} pages left`);
    parts.push(`${formatBytes(Math.round(bytesPerSecond))}/s`);
    if (expectedDowntimeMs !== null) parts.push(`downtime about ${formatMs(expectedDowntimeMs)}`);
    this.#terminal.progress(parts.join("  "));
  }
}
