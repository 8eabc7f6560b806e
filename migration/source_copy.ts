/**
 * Step 1 of PROTOCOL.md section 7.1: reads the VM's stream to its end and sends it, round by round, then whatever was
 * damaged on the way.
 *
 * @see PROTOCOL.md sections 4 and 5
 * @module
 */

import type { CopyLimits } from "./copy_limits.ts";
import { MigrationError } from "./errors.ts";
import { messageOf, unknownOutcome } from "./failure.ts";
import type { PageStream } from "./page_stream.ts";
import type { PageSource } from "./ports.ts";
import type { Sending } from "./sending.ts";
import type { SourceLink } from "./source_link.ts";
import type { SourceOptions } from "./source_options.ts";
import type { SourceSteps } from "./source_steps.ts";
import type { StopBudget } from "./stop_budget.ts";
import type { TamperAlarm } from "./tamper_alarm.ts";
import type { Waiter } from "./waiter.ts";

/** What a {@linkcode SourceCopy} works with. */
export interface CopyParts {
  options: Pick<SourceOptions, "vm" | "clock" | "live" | "onRound">;
  waiter: Waiter;
  steps: SourceSteps;
  budget: StopBudget;
  limits: CopyLimits;
  alarm: TamperAlarm;
  link: SourceLink;
  sending: Sending;
  /** Waits as `SourceSwitchover.forwardIfGone`. */
  forwardIfGone: (condition: () => boolean) => Promise<void>;
}

/** See the module. */
export class SourceCopy {
  readonly #options: CopyParts["options"];
  readonly #waiter: Waiter;
  readonly #steps: SourceSteps;
  readonly #budget: StopBudget;
  readonly #limits: CopyLimits;
  readonly #alarm: TamperAlarm;
  readonly #link: SourceLink;
  readonly #sending: Sending;
  readonly #forwardIfGone: CopyParts["forwardIfGone"];
  #pages: PageSource | null = null;
  #firstPageAtMs: number | null = null;
  #readToEnd = false;
  #draining: Promise<void> | null = null;
  /** What the VM says; null once STATE is sealed. */
  #stream: PageStream | null = null;
  /** Why that could not be sealed: what is missing then is nowhere any more. */
  #unsealed: { cause: unknown } | null = null;

  constructor(parts: CopyParts) {
    this.#options = parts.options;
    this.#waiter = parts.waiter;
    this.#steps = parts.steps;
    this.#budget = parts.budget;
    this.#limits = parts.limits;
    this.#alarm = parts.alarm;
    this.#link = parts.link;
    this.#sending = parts.sending;
    this.#forwardIfGone = parts.forwardIfGone;
  }

  /** When the first page could be sent; null before. */
  get firstPageAtMs(): number | null {
    return this.#firstPageAtMs;
  }

  /** Whether the VM has said everything: its QEMU may be gone from here on. */
  get readToEnd(): boolean {
    return this.#readToEnd;
  }

  /** Starts the VM's migration. @throws what the VM does, or the waiting was interrupted with */
  async start(): Promise<void> {
    this.#pages = await this.#options.vm.start(this.#options.live);
    this.#waiter.check();
  }

  /** Everything up to the last byte of the VM's stream, and everything of it acknowledged. @throws what stopped it */
  async run(): Promise<void> {
    const { window } = this.#link;
    const stream = this.#stream = this.#sending.stream((closed, vmStopped) => {
      this.#options.onRound?.(closed);
      this.#limits.roundClosed(closed, vmStopped);
    });
    await this.#steps.enter("setup");
    for (let more = true; more;) {
      more = await this.#read(stream);
      if (this.#steps.state === "setup" && stream.setupSealed) await this.#openGate(stream);
      // Behind the gate nothing is held back: all that the VM has to say is here.
      this.#readToEnd = !more && stream.hasStopped;
      if (this.#steps.state === "copying" && stream.hasStopped) await this.#stopping();
      // Nothing lies about while the connection is idle, and a busy one gets whole slabs.
      if (this.#link.idle || window.full) window.flush();
      // While the administrator is asked nothing more is sent that could be damaged.
      if (window.full || this.#alarm.asking) {
        const ready = () => !window.full && !this.#alarm.asking;
        if (this.#readToEnd) await this.#forwardIfGone(ready);
        else await this.#waiter.until(ready);
      } else if (!this.#readToEnd) this.#waiter.check();
    }
    if (this.#steps.state !== "stopping") {
      throw new MigrationError("vm", "Cannot migrate the VM: its stream ended before it stopped");
    }
    await this.mend();
  }

  /**
   * The last round sends dirty OR mistake: STATE, unless it is sent, then until everything is acknowledged and nothing is
   * marked (PROTOCOL.md section 5).
   *
   * @throws what stopped it: `unknownOutcome` where forward is the only way
   */
  async mend(): Promise<void> {
    try {
      await this.#mend();
    } catch (cause) {
      if (!this.#waiter.shielded || this.#steps.state === "unknown") throw cause;
      await this.#steps.enter("unknown");
      throw unknownOutcome(cause);
    }
  }

  async #mend(): Promise<void> {
    const { window } = this.#link;
    const stream = this.#stream;
    this.#stream = null;
    if (this.#unsealed !== null) throw this.#unsealed.cause;
    try {
      stream?.end();
    } catch (cause) {
      this.#unsealed = { cause };
      throw cause;
    }
    await this.#resend();
    do {
      window.flush();
      await this.#forwardIfGone(() => this.#link.acknowledged >= this.#sending.lastSequence);
    } while (await this.#resend() || !window.empty);
  }

  /** From here on `--max-stop` counts, and silence is noticed sooner. */
  vmStopped(): void {
    if (this.#budget.stoppedAtMs !== null) return;
    const { vm, clock } = this.#options;
    this.#budget.begin(vm.stoppedAtMs ?? clock.now());
    this.#link.vmStopped();
  }

  /** A read of the VM ends only with its stream; QEMU sees its migration fail, and the VM goes on. */
  interrupt(): void {
    const { state } = this.#steps;
    if (state in { setup: 1, copying: 1 } || (state === "stopping" && !this.#readToEnd)) {
      this.close();
    }
  }

  /** Closes the VM's stream. */
  close(): void {
    this.#pages?.close();
  }

  /** Sends what is marked by now, a record at a time, so that the wire is not idle while the next is sealed. @returns whether anything was */
  async #resend(): Promise<boolean> {
    const link = this.#link;
    for (let any = false;; any = true) {
      link.window.flush();
      await this.#forwardIfGone(() => {
        // Each time anew: a PING, or another connection, may have kept it busy since.
        if (!link.idle) this.#wakeWhenDrained();
        return link.idle && !link.window.full && !this.#alarm.asking;
      });
      if (!this.#sending.repair.resend()) return any;
    }
  }

  /** One waits at a time, however often somebody asks. */
  #wakeWhenDrained(): void {
    this.#draining ??= this.#link.drained().then(() => {
      this.#draining = null;
      this.#waiter.wake();
    });
  }

  async #read(stream: PageStream): Promise<boolean> {
    try {
      return await this.#pages!.next(stream);
    } catch (cause) {
      this.#waiter.check();
      if (cause instanceof MigrationError) throw cause;
      throw new MigrationError("vm", `Cannot read the VM's memory: ${messageOf(cause)}`, { cause });
    }
  }

  /** SETUP is whole: no page is sealed before every byte of it has arrived; a damaged piece was sealed again meanwhile. */
  async #openGate(stream: PageStream): Promise<void> {
    await this.#waiter.until(() =>
      !this.#alarm.asking && this.#link.acknowledged >= this.#sending.lastSequence
    );
    stream.openGate();
    this.#firstPageAtMs = this.#options.clock.now();
    await this.#steps.enter("copying");
  }

  async #stopping(): Promise<void> {
    this.vmStopped();
    await this.#steps.enter("stopping");
  }
}
