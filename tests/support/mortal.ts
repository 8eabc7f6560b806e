/**
 * An agent that can be killed: from that moment nothing that it does reaches the world, and nothing of the world
 * reaches it.
 *
 * @module
 */

import type { Clock } from "../../migration/ports.ts";
import { LoopbackEnd } from "./loopback.ts";

/** Hands an agent its world, and takes it away. */
export class Mortal {
  readonly #died = Promise.withResolvers<void>();
  readonly #transports: LoopbackEnd[] = [];
  readonly #timers = new Set<{ clear(): void }>();
  #dead = false;

  get dead(): boolean {
    return this.#dead;
  }

  /** Resolves when it is killed. */
  get died(): Promise<void> {
    return this.#died.promise;
  }

  /** `kill -9`: its connections are closed by the kernel; what it had asked for may still happen. */
  kill(): void {
    if (this.#dead) return;
    this.#dead = true;
    for (const end of this.#transports) if (!end.closed) end.close();
    for (const timer of this.#timers) timer.clear();
    this.#died.resolve();
  }

  /** The clock as this agent sees it. */
  clock(clock: Clock): Clock {
    return {
      now: () => clock.now(),
      date: () => clock.date(),
      timer: (ms, callback) => {
        if (this.#dead) return { clear: () => {} };
        const timer = clock.timer(ms, () => {
          this.#timers.delete(timer);
          callback();
        });
        this.#timers.add(timer);
        return {
          clear: () => {
            this.#timers.delete(timer);
            timer.clear();
          },
        };
      },
    };
  }

  /** A thing of the world as this agent sees it; what its methods give is of the same kind. */
  world<T extends object>(thing: T): T {
    if (thing instanceof LoopbackEnd) this.#transports.push(thing);
    return new Proxy(thing, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        return (...given: unknown[]) => {
          if (this.#dead) return never();
          const result: unknown = value.apply(target, given);
          return result instanceof Promise ? this.#whileAlive(result) : result;
        };
      },
      set: (target, name, value) => this.#dead || Reflect.set(target, name, value, target),
    });
  }

  async #whileAlive(result: Promise<unknown>): Promise<unknown> {
    try {
      const value = await result;
      if (this.#dead) return await never();
      return isThing(value) ? this.world(value) : value;
    } catch (error) {
      if (this.#dead) return await never();
      throw error;
    }
  }
}

function never(): Promise<never> {
  return new Promise(() => {});
}

/** Something with methods; not data. */
function isThing(value: unknown): value is object {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return false;
  return Object.getPrototypeOf(value) !== Object.prototype ||
    Object.values(value).some((member) => typeof member === "function");
}
