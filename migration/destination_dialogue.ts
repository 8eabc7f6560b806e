/**
 * What the destination says to its source about the switchover: each message is said again on every new connection, from
 * the state of the destination, and changes nothing when it comes twice.
 *
 * @see PROTOCOL.md sections 6 and 7
 * @module
 */

import type { Heard } from "./destination_heard.ts";
import type { DestinationOptions } from "./destination_options.ts";
import type { Place } from "./destination_place.ts";
import { abortMessage } from "./failure.ts";
import type { AbortMessage, Message } from "./messages.ts";
import type { DestinationState } from "./states.ts";

/** What a {@linkcode DestinationDialogue} works with. */
export interface DestinationDialogueParts {
  options: Pick<DestinationOptions, "vm" | "clock" | "agentCpuSeconds">;
  place: Place;
  heard: Heard;
  /** Where the destination is. */
  state: () => DestinationState;
}

/** See the module. Who is not bound is told nothing. */
export class DestinationDialogue {
  readonly #options: DestinationDialogueParts["options"];
  readonly #place: Place;
  readonly #heard: Heard;
  readonly #state: () => DestinationState;
  /** What ABORT says, in `refusing` and `stuck`. */
  #refusal: AbortMessage | null = null;
  #resumedAtMs: number | null = null;
  #lingering = false;

  constructor(parts: DestinationDialogueParts) {
    this.#options = parts.options;
    this.#place = parts.place;
    this.#heard = parts.heard;
    this.#state = parts.state;
  }

  /** The source has not heard yet that its copy was discarded. */
  get lingering(): boolean {
    return this.#lingering;
  }

  /** ABORT of a destination that ends. */
  abort(error: unknown): void {
    this.#send(abortMessage(error));
  }

  /** ABORT of one that waits for the source's word: said in `refusing` and `stuck`, whenever it is time to say something. */
  refuse(refusal: AbortMessage): void {
    this.#refusal = refusal;
  }

  /** The VM runs since then, in monotonic ms: what RUNNING says. */
  ran(resumedAtMs: number): void {
    this.#resumedAtMs = resumedAtMs;
  }

  /** Says what the state wants said, after a step and on every new connection. */
  sayAgain(): void {
    const candidate = this.#place.bound;
    if (candidate === null) return;
    const { link, queue } = candidate;
    switch (this.#state()) {
      case "loaded":
        return link.send({ type: "LOADED", pages: queue.pages, records: link.records });
      case "running":
        return this.#sayRunning();
      case "refusing":
      case "stuck":
        if (this.#refusal !== null) link.send(this.#refusal);
        return;
      case "discarded":
        link.send({ type: "DISCARDED" });
        if (link.connected) this.#lingering = false;
    }
  }

  /** Of a copy that was discarded after EOF the source may wait to hear, on another connection. */
  async linger(): Promise<void> {
    const { waiter } = this.#heard;
    const link = this.#place.bound?.link;
    if (this.#state() !== "discarded" || link === undefined) return;
    const onOver = () => {
      this.#lingering = false;
      waiter.wake();
    };
    this.#lingering = !link.connected;
    link.waitForAnother(onOver);
    const over = () => !this.#lingering || this.#heard.stopAsked || this.#heard.lost !== null;
    await waiter.until(over).catch(() => {});
  }

  #sayRunning(): void {
    const { vm, clock, agentCpuSeconds } = this.#options;
    const qemuSeconds = vm.cpuSeconds();
    this.#send({
      type: "RUNNING",
      sinceResumeUs: Math.max(0, Math.round((clock.now() - this.#resumedAtMs!) * 1000)),
      cpuMs: {
        agent: Math.round(agentCpuSeconds() * 1000),
        qemu: qemuSeconds === null ? null : Math.round(qemuSeconds * 1000),
      },
    });
  }

  #send(message: Message): void {
    this.#place.bound?.link.send(message);
  }
}
