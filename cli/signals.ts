import type { Terminal } from "./terminal.ts";

/**
 * Turns SIGINT (Ctrl-C) and SIGTERM into an `AbortSignal` for as long as it is not disposed: the first one
 * cancels, each later one says that this is under way already. Nothing is killed: what must not be cut short
 * is not.
 *
 * @example
 * ```ts ignore
 * using interrupt = new Interrupt(terminal);
 * await source.run({ signal: interrupt.signal });
 * ```
 */
export class Interrupt implements Disposable {
  readonly #controller = new AbortController();
  readonly #terminal: Terminal;
  readonly #onSignal = () => this.#cancel();
  #expected = false;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
    Deno.addSignalListener("SIGINT", this.#onSignal);
    Deno.addSignalListener("SIGTERM", this.#onSignal);
  }

  /** Aborted at the first signal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** From here on a signal is the regular end, and nothing is said about it. */
  expect(): void {
    this.#expected = true;
  }

  [Symbol.dispose](): void {
    Deno.removeSignalListener("SIGINT", this.#onSignal);
    Deno.removeSignalListener("SIGTERM", this.#onSignal);
  }

  #cancel(): void {
    if (this.#controller.signal.aborted) {
      this.#terminal.warn(
        "already cancelling; it ends as soon as one host is known to hold the VM",
      );
      return;
    }
    if (!this.#expected) this.#terminal.warn("cancelling");
    this.#controller.abort();
  }
}
