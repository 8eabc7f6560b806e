/**
 * The two state machines, as data: which state may follow which. `source_steps.ts` and `takeover.ts` take no
 * step that is not in these tables.
 *
 * Their places in the switchover (PROTOCOL.md section 7):
 *
 * ```mermaid
 * sequenceDiagram
 *   participant S as source
 *   participant D as destination
 *   Note over S: copying, then stopping (step 1)
 *   S->>D: pages, STATE
 *   Note over S: finishing (step 2)
 *   S->>D: FINISH
 *   Note over D: loading, loaded: journal `loaded`
 *   D->>S: LOADED
 *   Note over S: releasing (step 3): journal `releasing`, SHUT(0), journal `released`
 *   S->>D: RELEASE
 *   Note over D: taking (step 4): journal `taking`, cont, journal `running`
 *   D->>S: RUNNING
 *   Note over S: released to done (step 5)
 *   S->>D: DONE
 * ```
 *
 * A cut leads nowhere: the connection is made anew, and the state says again what it wants said. A mistake leads
 * nowhere either, until there are too many.
 *
 * @module
 */

/** States of the source, each with those that may follow. */
export const sourceTransitions = {
  connecting: ["offering", "failed"],
  offering: ["checked", "starting", "failed"],
  /** Dry run: everything was checked, nothing was touched. */
  checked: [],
  starting: ["setup", "aborting", "failed"],
  /** SETUP is under way; no page before all of it is acknowledged. */
  setup: ["copying", "aborting"],
  /** The VM runs; rounds of pages. */
  copying: ["stopping", "aborting"],
  /** The VM has stopped: the last round and STATE are read and sent. */
  stopping: ["finishing", "aborting", "unknown"],
  /** FINISH is said; waits for LOADED. */
  finishing: ["releasing", "released", "aborting", "unknown"],
  /** Journal `releasing`, then SHUT(0): from its first byte on only QEMU can end this. */
  releasing: ["released", "aborting", "discarding", "unknown"],
  /** Journal `released`; RELEASE is said; the VM is the destination's. */
  released: ["done", "discarding", "returning", "failed", "unknown"],
  /** The way back: DISCARD is said; waits for DISCARDED. */
  discarding: ["returning", "released", "unknown"],
  /** The destination's copy is gone: the VM goes on here. */
  returning: ["aborted", "failed", "unknown"],
  /** QEMU's socket is closed; waits to see the VM run. */
  aborting: ["aborted", "finishing", "failed"],
  aborted: [],
  done: [],
  failed: [],
  unknown: [],
} as const satisfies Record<string, readonly string[]>;

/** A state of the source. */
export type SourceState = keyof typeof sourceTransitions;

/** States of the destination, each with those that may follow. */
export const destinationTransitions = {
  /** No migration is bound; connections are let in until one proves its key and sends a record. */
  listening: ["receiving", "failed"],
  /** SETUP, pages and STATE come in. */
  receiving: ["loading", "discarding", "failed"],
  /** FINISH was right; END, STATE and EOF go to QEMU. */
  loading: ["loaded", "refusing", "discarding", "unknown"],
  /** Journal `loaded`; waits for RELEASE. */
  loaded: ["taking", "refusing", "discarding", "unknown"],
  /** It cannot go on to `taking`: QEMU died, or `loaded` cannot be journalled. Says so until it is told to discard. */
  refusing: ["discarding", "unknown"],
  /** Journal `taking`; `cont` where the VM ran before. */
  taking: ["running", "stuck", "discarding", "unknown"],
  /** `cont` answers an error: tries again, and never discards unasked. */
  stuck: ["running", "discarding", "unknown"],
  running: [],
  /** Its QEMU is being ended. */
  discarding: ["discarded", "unknown"],
  discarded: [],
  failed: [],
  unknown: [],
} as const satisfies Record<string, readonly string[]>;

/** A state of the destination. */
export type DestinationState = keyof typeof destinationTransitions;

/**
 * Called at each state, before anything of that state is done; where it returns a promise the machine waits for
 * that. What it throws changes nothing: whoever watches a switchover cannot stop it half-way.
 */
export type EnteredHook<State> = (state: State) => void | Promise<void>;

/** One machine: where it is, and the only way to move it. */
export class StateMachine<State extends string> {
  readonly #transitions: Readonly<Record<State, readonly string[]>>;
  readonly #entered: EnteredHook<State>;
  #state: State;

  constructor(
    start: State,
    options: {
      transitions: Readonly<Record<State, readonly string[]>>;
      entered?: EnteredHook<State> | undefined;
    },
  ) {
    this.#state = start;
    this.#transitions = options.transitions;
    this.#entered = options.entered ?? (() => {});
  }

  get state(): State {
    return this.#state;
  }

  /** Moves to `next`. @returns whether the hook held it up @throws Error when the table has no such step: a bug, never an input */
  async enter(next: State): Promise<boolean> {
    if (!this.#transitions[this.#state].includes(next)) {
      throw new Error(`Cannot go from ${this.#state} to ${next}: the table has no such step`);
    }
    this.#state = next;
    let held: void | Promise<void> = undefined;
    try {
      held = this.#entered(next);
      if (held !== undefined) await held;
    } catch {
      // See EnteredHook.
    }
    return held !== undefined;
  }
}
