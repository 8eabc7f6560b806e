/**
 * How much memory a process holds, at its peak.
 *
 * @module
 */

const INTERVAL_MS = 50;

/** Samples RssAnon + RssFile of `/proc/PID/status` until it is disposed or the process ends. */
export class MemorySampler implements Disposable {
  peakBytes = 0;
  samples = 0;
  readonly #pid: number;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(pid: number) {
    this.#pid = pid;
    this.#timer = setInterval(() => this.#sample(), INTERVAL_MS);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #sample(): void {
    let text: string;
    try {
      text = Deno.readTextFileSync(`/proc/${this.#pid}/status`);
    } catch {
      return this[Symbol.dispose]();
    }
    let bytes = 0;
    for (const [, kib] of text.matchAll(/^Rss(?:Anon|File):\s*(\d+) kB$/gm)) {
      bytes += Number(kib) * 1024;
    }
    // An ending process has no memory any more.
    if (bytes === 0) return;
    this.peakBytes = Math.max(this.peakBytes, bytes);
    this.samples++;
  }
}
