/**
 * Takes connections until it is told to stop: a listener whose `accept` rejects is not closed.
 *
 * @see accept(2): "treat them like EAGAIN by retrying", of errors that belong to a connection that is gone already
 * @module
 */

import { closeTransport } from "./opening.ts";
import { pause } from "./pause.ts";
import type { Clock, Transport, TransportListener } from "./ports.ts";

/**
 * How long to wait after a failure, in milliseconds: long enough not to spin where there is no descriptor left, too
 * short for connections that were reset before they were accepted to keep others waiting.
 */
const RETRY_MS = 1;

/** Connections that are being taken. */
export interface AcceptLoop {
  /** Closes the listener; nothing is handed out any more. Once is enough. */
  close(): void;
  /** Resolves when no call is under way any more, after `close`. Never rejects. */
  readonly ended: Promise<void>;
}

/**
 * Hands every connection to `onTransport`, which must not throw, until `close` is called. An `accept` that rejects
 * before that (a connection that was reset already, no descriptor left) ends nothing.
 *
 * @example
 * ```ts
 * import { acceptLoop } from "./accepting.ts";
 * import type { Clock, TransportListener } from "./ports.ts";
 *
 * async function first(listener: TransportListener, clock: Clock) {
 *   const { promise, resolve } = Promise.withResolvers();
 *   const accepting = acceptLoop(listener, { clock, onTransport: resolve });
 *   await promise;
 *   accepting.close();
 *   await accepting.ended;
 * }
 * ```
 */
export function acceptLoop(
  listener: TransportListener,
  options: { clock: Clock; onTransport: (transport: Transport) => void },
): AcceptLoop {
  const { clock, onTransport } = options;
  const closing = new AbortController();
  const { signal } = closing;
  return {
    close() {
      if (signal.aborted) return;
      closing.abort();
      listener.close();
    },
    ended: accepting(),
  };

  async function accepting(): Promise<void> {
    while (!signal.aborted) {
      const transport = await listener.accept().catch(() => null);
      if (transport === null) await pause(RETRY_MS, { clock, signal });
      else if (signal.aborted) closeTransport(transport);
      else onTransport(transport);
    }
  }
}
