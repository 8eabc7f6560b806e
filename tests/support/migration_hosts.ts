/**
 * Two hosts on this machine, each with an identity and a state directory, and the agents that run there.
 *
 * @module
 */

import { parseJournal } from "../../cli/journal_reader.ts";
import assert from "node:assert/strict";
import { AgentProcess } from "../../cli/demo/agent_process.ts";
import { type BootSectorLoad, writeBootSector } from "../../cli/guest/boot_sector.ts";
import { runtimeDirectory } from "../../kvm/runtime_directory.ts";
import { generateIdentityFile } from "../../cli/state_directory.ts";
import { patienceMs } from "./patience.ts";
import { delay } from "./qemu.ts";
import type { QemuProcess } from "../../cli/guest/qemu_process.ts";

/** A host: what the agents on it need. */
export interface Host {
  stateDir: string;
  /** Its public key. */
  key: string;
}

/** A VM whose first QMP socket an agent gets. */
export interface AgentVm {
  process: QemuProcess;
}

/** How an agent is run in a test. */
export interface AgentOptions {
  hold?: readonly string[];
  /** Further arguments. */
  args?: readonly string[];
  /** What the agent is started by, for instance `setpriv` and its options. */
  wrapper?: readonly string[];
}

/** A `receive` that listens. */
export interface Receiver {
  agent: AgentProcess;
  port: number;
  landing: string;
}

/** See the module. Disposing of it ends the agents and removes what lies in its directory. */
export class MigrationHosts implements AsyncDisposable {
  /** Removed at the end. */
  readonly directory: string;
  readonly a: Host;
  readonly b: Host;
  readonly #stack = new AsyncDisposableStack();
  /** In the environment of every agent: finds also a process that it left behind. */
  readonly #mark = crypto.randomUUID();
  /** Of the QEMUs that agents were given. */
  readonly #pids = new Set<string>();
  readonly #runtimeBefore = new Set(runtimeFiles());

  private constructor(directory: string, hosts: { a: Host; b: Host }) {
    this.directory = directory;
    this.a = hosts.a;
    this.b = hosts.b;
  }

  static async make(): Promise<MigrationHosts> {
    const directory = await Deno.makeTempDir({ prefix: "sealift-pair-" });
    const host = async (name: string): Promise<Host> => {
      const stateDir = `${directory}/${name}`;
      await Deno.mkdir(stateDir, { mode: 0o700 });
      return { stateDir, key: await generateIdentityFile(`${stateDir}/identity`) };
    };
    await Deno.mkdir(`${directory}/tmp`);
    return new MigrationHosts(directory, { a: await host("a"), b: await host("b") });
  }

  /** A disk image of the boot sector under that load. */
  async bootSector(load: Partial<BootSectorLoad> = {}): Promise<string> {
    const path = `${this.directory}/boot-${crypto.randomUUID()}.img`;
    await writeBootSector(path, { dirtyMiBPerSecond: 8, workingSetMiB: 4, ...load });
    return path;
  }

  /** Starts `receive` on host b; resolves when it listens. */
  async receive(vm: AgentVm, options: AgentOptions = {}): Promise<Receiver> {
    const agent = this.receiveAnyway(vm, options);
    const listening = await agent.line("listening");
    if (listening === null) assert.fail(`receive: ${(await agent.ended).stderr}`);
    const port = Number(String(listening["address"]).split(":").at(-1));
    return { agent, port, landing: String(listening["landing"]) };
  }

  /** Starts `receive` on host b, whether it listens or not. */
  receiveAnyway(vm: AgentVm, options: AgentOptions = {}): AgentProcess {
    const { args = [], ...how } = options;
    this.#pids.add(String(vm.process.pid));
    return this.#agent([
      ...["receive", "--qmp", vm.process.qmpPaths[0]!, "--listen", "127.0.0.1:0"],
      ...["--allow", this.a.key, "--state-dir", this.b.stateDir, ...args],
    ], how);
  }

  /** Starts `send` on host a. */
  send(vm: AgentVm, port: number, options: AgentOptions = {}): AgentProcess {
    const { args = [], ...how } = options;
    this.#pids.add(String(vm.process.pid));
    return this.#agent([
      ...["send", "--qmp", vm.process.qmpPaths[0]!, "--to", `127.0.0.1:${port}`],
      ...["--peer", this.b.key, "--state-dir", this.a.stateDir, ...args],
    ], how);
  }

  /** Starts `recover` on the host of that side. */
  recover(side: "source" | "destination", options: AgentOptions = {}): AgentProcess {
    const { args = [], ...how } = options;
    const { stateDir } = side === "source" ? this.a : this.b;
    return this.#agent(["recover", "--state-dir", stateDir, ...args], how);
  }

  /** The states in a migration's journal; empty when there is no such journal. */
  journal(side: "source" | "destination", id: string | null | undefined): string[] {
    return this.journalEntries(side, id).map(({ state }) => state);
  }

  /** The lines of a migration's journal; empty when there is no such journal. */
  journalEntries(
    side: "source" | "destination",
    id: string | null | undefined,
  ): { state: string; time: string }[] {
    const { stateDir } = side === "source" ? this.a : this.b;
    try {
      const text = Deno.readTextFileSync(`${stateDir}/migrations/${id}.${side}.jsonl`);
      // A line that is cut off: its agent was killed.
      return parseJournal(text, side).entries;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  /** The id of the last migration that a side has a journal of; null when there is none. */
  lastId(side: "source" | "destination"): string | null {
    const { stateDir } = side === "source" ? this.a : this.b;
    const found: { id: string; time: string }[] = [];
    try {
      for (const { name } of Deno.readDirSync(`${stateDir}/migrations`)) {
        if (!name.endsWith(`.${side}.jsonl`)) continue;
        const [first] = Deno.readTextFileSync(`${stateDir}/migrations/${name}`).split("\n");
        found.push({ id: name.split(".")[0]!, time: JSON.parse(first!).time });
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return found.toSorted((x, y) => x.time < y.time ? -1 : 1).at(-1)?.id ?? null;
  }

  /** Fails when agents that have ended left a process, a socket, a lock or a temporary file. */
  async checkClean(): Promise<void> {
    assert.deepEqual([...Deno.readDirSync(`${this.directory}/tmp`)].map(({ name }) => name), []);
    assert.deepEqual(this.#marked(), [], "processes of the agents");
    // Others may use the same directory: their locks stay, their sockets go soon.
    const left = () =>
      runtimeFiles().filter((name) =>
        !this.#runtimeBefore.has(name) &&
        (!name.endsWith(".lock") || this.#pids.has(name.split("-")[0]!))
      );
    const deadlineMs = performance.now() + patienceMs;
    while (left().length > 0 && performance.now() < deadlineMs) await delay(50);
    assert.deepEqual(left(), [], `left in ${runtimeDirectory()}`);
  }

  /** Whether a file in the directory of locks and sockets came after these hosts: numbers of processes come again. */
  isNew(name: string): boolean {
    return !this.#runtimeBefore.has(name);
  }

  /** What agents that have ended left: processes and temporary files; empty when nothing. */
  leftovers(): string[] {
    return [
      ...[...Deno.readDirSync(`${this.directory}/tmp`)].map(({ name }) => `temporary file ${name}`),
      ...this.#marked().map((pid) => `process ${pid}`),
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
    // An agent that was killed leaves its lock file; the lock itself ended with it.
    for (const name of runtimeFiles()) {
      if (!this.#pids.has(name.split("-")[0]!)) continue;
      await Deno.remove(`${runtimeDirectory()}/${name}`);
    }
    await Deno.remove(this.directory, { recursive: true });
  }

  #agent(args: readonly string[], how: Omit<AgentOptions, "args">): AgentProcess {
    const env = { SEALIFT_TEST_MARK: this.#mark, TMPDIR: `${this.directory}/tmp` };
    return this.#stack.use(new AgentProcess(args, { ...how, env }));
  }

  #marked(): string[] {
    return [...Deno.readDirSync("/proc")].map(({ name }) => name).filter((pid) => {
      if (!/^\d+$/.test(pid)) return false;
      try {
        return Deno.readTextFileSync(`/proc/${pid}/environ`).includes(this.#mark);
      } catch {
        return false;
      }
    });
  }
}

function runtimeFiles(): string[] {
  return [...Deno.readDirSync(runtimeDirectory())].map(({ name }) => name);
}
