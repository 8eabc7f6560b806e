/**
 * A monitor that says what a test tells it to say.
 *
 * @module
 */

import { writeAll } from "../../kvm/write_all.ts";

/** What QEMU 7.2 says first. */
export const greeting = '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, ' +
  '"capabilities": ["oob"]}}\r\n';

/** One command as it came. */
export interface FakeCommand {
  execute: string;
  id: number;
  arguments?: Record<string, unknown>;
}

/** One connection of a {@linkcode serveQmp}. */
export class FakeMonitor {
  readonly #conn: Deno.Conn;

  constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  /** Says `text` as it is. */
  async say(text: string): Promise<void> {
    await writeAll(this.#conn, new TextEncoder().encode(text));
  }

  /** Answers a command. */
  async answer(command: FakeCommand, value: unknown = {}): Promise<void> {
    await this.say(JSON.stringify({ return: value, id: command.id }) + "\r\n");
  }

  close(): void {
    this.#conn.close();
  }
}

/** How a fake monitor behaves; `qmp_capabilities` is always answered. */
export interface FakeBehaviour {
  /** Said to everybody who connects; {@linkcode greeting} by default. */
  greeting?: string;
  onCommand?(command: FakeCommand, monitor: FakeMonitor): void | Promise<void>;
}

/** Listens at `path` until it is disposed. */
export function serveQmp(path: string, behaviour: FakeBehaviour = {}): AsyncDisposable {
  const listener = Deno.listen({ transport: "unix", path });
  const conns: Deno.Conn[] = [];
  const served: Promise<void>[] = [];
  const accepting = (async () => {
    try {
      for await (const conn of listener) {
        conns.push(conn);
        served.push(serve(conn, behaviour));
      }
    } catch {
      // The listener was closed.
    }
  })();
  return {
    async [Symbol.asyncDispose]() {
      listener.close();
      for (const conn of conns) close(conn);
      await accepting;
      await Promise.all(served);
    },
  };
}

async function serve(conn: Deno.Conn, behaviour: FakeBehaviour): Promise<void> {
  const monitor = new FakeMonitor(conn);
  try {
    await monitor.say(behaviour.greeting ?? greeting);
    let text = "";
    const buffer = new Uint8Array(65_536);
    for (let count = await conn.read(buffer); count !== null; count = await conn.read(buffer)) {
      text += new TextDecoder().decode(buffer.subarray(0, count));
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) {
        const command: FakeCommand = JSON.parse(line);
        if (command.execute === "qmp_capabilities") await monitor.answer(command);
        else await behaviour.onCommand?.(command, monitor);
      }
    }
  } catch {
    // Either side hung up.
  } finally {
    close(conn);
  }
}

function close(conn: Deno.Conn): void {
  try {
    conn.close();
  } catch {
    // It is closed.
  }
}
