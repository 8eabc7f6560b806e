/**
 * A process that answers QMP as a QEMU does whose VM goes through one of {@linkcode fakeStories}: for ends that a real
 * one comes to within microseconds, or never. Run with the path of its monitor and the story's name.
 *
 * @module
 */

import { type FakeCommand, type FakeMonitor, serveQmp } from "./fake_qmp.ts";

const MIB = 2 ** 20;
const RAM_BLOCKS =
  `              Block Name    PSize              Offset               Used              Total
                  pc.ram    4 KiB  0x0000000000000000 0x0000000000100000 0x0000000000100000
`;

/** What a story has at hand. */
interface Fake {
  /** Of the one monitor. */
  say(...events: string[]): Promise<void>;
  runState: string;
  migration: string | null;
  /** Resolves when SHUT(0) has come. */
  shut: Promise<void>;
}

function event(name: string, data: Record<string, unknown> = {}): string {
  const timestamp = { seconds: 1, microseconds: 0 };
  return JSON.stringify({ event: name, data, timestamp }) + "\r\n";
}

const [STOP, RESUME] = [event("STOP"), event("RESUME")];

async function stops(fake: Fake): Promise<void> {
  // Behind the agent's start().
  await new Promise((resolve) => setTimeout(resolve, 50));
  fake.runState = "finish-migrate";
  await fake.say(STOP);
}

/** How a source ends, from `migrate` on; a destination, from its first SIGUSR1. */
export const fakeStories = {
  /** Behind a line that nobody understands it ran. */
  "source, garbled": async (fake: Fake) => {
    await stops(fake);
    await fake.say("{oops}\r\n", RESUME);
    Deno.exit(0);
  },
  /** Somebody cancelled, it ran, stopped and died: all of that is read at once. */
  "source, cancelled": async (fake: Fake) => {
    await stops(fake);
    await fake.say(RESUME, event("MIGRATION", { status: "cancelled" }), STOP);
    Deno.exit(0);
  },
  /** It completed, somebody ran it and moved it on, before anybody looked. */
  "source, moved on": async (fake: Fake) => {
    await stops(fake);
    await fake.shut;
    fake.runState = "postmigrate";
    fake.migration = "completed";
    await fake.say(RESUME, STOP);
  },
  /** It completed, and somebody ran and paused it. */
  "source, paused": async (fake: Fake) => {
    await stops(fake);
    await fake.shut;
    fake.runState = "paused";
    fake.migration = "completed";
  },
  /** It completed, and somebody reset it. */
  "source, reset": async (fake: Fake) => {
    await stops(fake);
    await fake.shut;
    fake.runState = "prelaunch";
    fake.migration = "completed";
  },
  /** Somebody ran it, and it stopped for good (guest-panicked, shutdown): `cont` is refused. */
  "destination, ran and stopped": async (fake: Fake) => {
    fake.runState = "guest-panicked";
    await fake.say(RESUME, STOP);
  },
  /** Somebody ran it, and it died. */
  "destination, ran": async (fake: Fake) => {
    await fake.say(RESUME);
    Deno.exit(0);
  },
} satisfies Record<string, (fake: Fake) => Promise<void>>;

/** Its name. */
export type FakeStory = keyof typeof fakeStories;

if (import.meta.main) serve(Deno.args as [string, FakeStory]);

function serve([path, story]: [string, FakeStory]): void {
  const shut = Promise.withResolvers<void>();
  let told: FakeMonitor | null = null;
  const fake: Fake = {
    say: async (...lines) => await told!.say(lines.join("")),
    runState: story.startsWith("source") ? "running" : "inmigrate",
    migration: null,
    shut: shut.promise,
  };
  const answers: Record<string, () => unknown> = {
    "query-status": () => ({ status: fake.runState, running: fake.runState === "running" }),
    "query-migrate": () =>
      fake.migration === null
        ? {}
        : { status: fake.migration, ram: { "dirty-sync-count": 3, normal: 1, duplicate: 1 } },
    "query-name": () => ({ name: "fake" }),
    "query-uuid": () => ({ UUID: "00000000-0000-0000-0000-000000000000" }),
    "qom-get": () => "pc-q35-7.2-machine",
    "query-version": () => ({ qemu: { major: 7, minor: 2, micro: 22 } }),
    "query-memory-size-summary": () => ({ "base-memory": MIB }),
    "human-monitor-command": () => RAM_BLOCKS,
    "query-migrate-capabilities": () => [],
    "query-block": () => [],
  };
  const onCommand = async (command: FakeCommand, monitor: FakeMonitor) => {
    told = monitor;
    if (command.execute === "cont") {
      const error = { class: "GenericError", desc: "Resetting the Virtual Machine is required" };
      return await monitor.say(JSON.stringify({ error, id: command.id }) + "\r\n");
    }
    await monitor.answer(command, answers[command.execute]?.() ?? {});
    if (command.execute !== "migrate") return;
    fake.migration = "active";
    const uri = command.arguments!["uri"] as string;
    const conn = await Deno.connect({ transport: "unix", path: uri.slice("unix:".length) });
    void conn.read(new Uint8Array(8)).then(() => shut.resolve());
    await fakeStories[story](fake);
  };
  serveQmp(path, { onCommand });
  Deno.addSignalListener("SIGUSR1", () => void fakeStories[story](fake));
  console.log("ready");
}
