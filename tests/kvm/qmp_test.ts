import assert from "node:assert/strict";
import { QmpClient, type QmpEvent } from "../../kvm/qmp.ts";
import { QmpError, type QmpErrorCode } from "../../kvm/qmp_error.ts";
import { type FakeBehaviour, type FakeCommand, greeting, serveQmp } from "../support/fake_qmp.ts";

/** A test with a socket path of its own. */
function socketTest(name: string, fn: (path: string) => Promise<void>): void {
  Deno.test({
    name,
    permissions: "inherit",
    async fn() {
      const directory = await Deno.makeTempDir({ prefix: "qmp-" });
      try {
        await fn(`${directory}/qmp`);
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
    },
  });
}

function hasCode(code: QmpErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof QmpError, `${error}`);
    assert.equal(error.code, code);
    return true;
  };
}

async function withClient(
  path: string,
  behaviour: FakeBehaviour,
  use: (client: QmpClient) => Promise<void>,
): Promise<void> {
  await using _server = serveQmp(path, behaviour);
  await using client = await QmpClient.connect(path);
  await use(client);
}

socketTest("QmpClient.connect() rejects with missing when there is no socket", async (path) => {
  await assert.rejects(QmpClient.connect(path), hasCode("missing"));
});

socketTest(
  "QmpClient.connect() rejects with refused when nobody listens any more",
  async (path) => {
    const listener = Deno.listen({ transport: "unix", path: `${path}.first` });
    await Deno.link(`${path}.first`, path);
    listener.close();
    await assert.rejects(QmpClient.connect(path), hasCode("refused"));
  },
);

socketTest("QmpClient.connect() rejects with busy when no greeting comes", async (path) => {
  await using _server = serveQmp(path, { greeting: "" });
  await assert.rejects(QmpClient.connect(path, { greetingTimeoutMs: 20 }), hasCode("busy"));
});

socketTest(
  "QmpClient.connect() rejects with protocol when it is not QMP that answers",
  async (path) => {
    await using _server = serveQmp(path, { greeting: "220 mail.example.com ESMTP\r\n" });
    await assert.rejects(QmpClient.connect(path), hasCode("protocol"));
  },
);

socketTest("QmpClient.connect() rejects with protocol when a line has no end", async (path) => {
  await using _server = serveQmp(path, { greeting: "x".repeat(16 * 1024 * 1024 + 1) });
  await assert.rejects(QmpClient.connect(path), hasCode("protocol"));
});

socketTest("QmpClient.execute() passes the arguments and returns the answer", async (path) => {
  const seen: FakeCommand[] = [];
  const behaviour: FakeBehaviour = {
    async onCommand(command, monitor) {
      seen.push(command);
      await monitor.answer(command, { status: "running" });
    },
  };
  await withClient(path, behaviour, async (client) => {
    assert.deepEqual(await client.execute("migrate", { uri: "unix:/x" }), { status: "running" });
    assert.deepEqual(await client.execute("query-status"), { status: "running" });
    assert.deepEqual(seen.map(({ execute, arguments: args }) => [execute, args]), [
      ["migrate", { uri: "unix:/x" }],
      ["query-status", undefined],
    ]);
  });
});

socketTest(
  "QmpClient.execute() gives each its answer when they come in another order",
  async (path) => {
    const commands: FakeCommand[] = [];
    const behaviour: FakeBehaviour = {
      async onCommand(command, monitor) {
        commands.push(command);
        if (commands.length < 3) return;
        for (const one of commands.reverse()) await monitor.answer(one, one.execute);
      },
    };
    await withClient(path, behaviour, async (client) => {
      const names = ["query-a", "query-b", "query-c"];
      assert.deepEqual(await Promise.all(names.map((name) => client.execute(name))), names);
      assert.equal(client.unanswered, 0);
    });
  },
);

socketTest(
  "QmpClient.execute() puts an answer together when it comes byte by byte",
  async (path) => {
    const behaviour: FakeBehaviour = {
      async onCommand({ id }, monitor) {
        const bytes = JSON.stringify({ return: "gr\u00fc\u00df dich", id }) + "\n";
        for (const byte of bytes) await monitor.say(byte);
      },
    };
    await withClient(path, behaviour, async (client) => {
      assert.equal(await client.hmp("info name"), "gr\u00fc\u00df dich");
    });
  },
);

socketTest(
  "QmpClient.execute() rejects with QEMU's words when it answers with an error",
  async (path) => {
    const behaviour: FakeBehaviour = {
      async onCommand({ id }, monitor) {
        const error = { class: "GenericError", desc: 'Failed to get "write" lock' };
        await monitor.say(JSON.stringify({ id, error }) + "\n");
      },
    };
    await withClient(path, behaviour, async (client) => {
      await assert.rejects(client.execute("cont"), (error) => {
        hasCode("command")(error);
        assert.equal((error as QmpError).description, 'Failed to get "write" lock');
        return true;
      });
    });
  },
);

socketTest(
  "QmpClient.execute() rejects with timeout and goes on when an answer comes late",
  async (path) => {
    let late: FakeCommand | null = null;
    const behaviour: FakeBehaviour = {
      async onCommand(command, monitor) {
        if (late === null) {
          late = command;
          return;
        }
        await monitor.answer(late, "late");
        await monitor.answer(command, "in time");
      },
    };
    await withClient(path, behaviour, async (client) => {
      await assert.rejects(client.execute("query-a", {}, { timeoutMs: 10 }), hasCode("timeout"));
      assert.equal(client.unanswered, 1);
      assert.equal(await client.execute("query-b"), "in time");
      assert.equal(client.unanswered, 0);
    });
  },
);

socketTest("QmpClient.execute() refuses more commands when none is answered", async (path) => {
  await withClient(path, {}, async (client) => {
    const asked = Array.from(
      { length: 64 },
      () => client.execute("query-a", {}, { timeoutMs: 10 }),
    );
    const results = await Promise.allSettled(asked);
    assert.ok(results.every(({ status }) => status === "rejected"));
    await assert.rejects(client.execute("query-b", {}, { timeoutMs: 60_000 }), hasCode("timeout"));
  });
});

socketTest(
  "QmpClient.execute() rejects with closed when QEMU hangs up before it answers",
  async (path) => {
    const event =
      '{"event": "SHUTDOWN", "data": {}, "timestamp": {"seconds": 7, "microseconds": 250}}\n';
    const behaviour: FakeBehaviour = {
      async onCommand(_command, monitor) {
        await monitor.say(event);
        monitor.close();
      },
    };
    await withClient(path, behaviour, async (client) => {
      const events: QmpEvent[] = [];
      client.on((event) => events.push(event));
      await assert.rejects(client.execute("quit"), hasCode("closed"));
      await client.closed;
      assert.equal(client.hasEnded, true);
      assert.equal(client.readToEnd, true);
      assert.deepEqual(events.map(({ name, hostTimeMs }) => [name, hostTimeMs]), [[
        "SHUTDOWN",
        7000.25,
      ]]);
      await assert.rejects(client.execute("query-status"), hasCode("closed"));
    });
  },
);

socketTest(
  "QmpClient.execute() rejects with closed when the client is disposed meanwhile",
  async (path) => {
    await using _server = serveQmp(path);
    const client = await QmpClient.connect(path);
    const asked = assert.rejects(client.execute("query-a"), hasCode("closed"));
    await client[Symbol.asyncDispose]();
    await asked;
  },
);

socketTest("QmpClient closes the connection when an answer belongs to no command", async (path) => {
  const behaviour: FakeBehaviour = {
    onCommand: ({ id }, monitor) => monitor.say(JSON.stringify({ return: {}, id: id + 1 }) + "\n"),
  };
  await withClient(path, behaviour, async (client) => {
    await assert.rejects(client.execute("query-a"), hasCode("protocol"));
    await client.closed;
    assert.equal(client.hasEnded, true);
    // What QEMU said behind it was not heard.
    assert.equal(client.readToEnd, false);
  });
});

socketTest(
  "QmpClient.on() hands out events between answers, in order, until it is ended",
  async (path) => {
    const say = (name: string) => JSON.stringify({ event: name, data: { name } }) + "\n";
    const behaviour: FakeBehaviour = {
      async onCommand(command, monitor) {
        await monitor.say(say("STOP") + say("RESUME"));
        await monitor.answer(command);
      },
    };
    await withClient(path, behaviour, async (client) => {
      const events: QmpEvent[] = [];
      const off = client.on((event) => events.push(event));
      const beforeMs = performance.now();
      await client.execute("query-a");
      off();
      await client.execute("query-b");
      assert.deepEqual(events.map(({ name, data }) => [name, data.name]), [
        ["STOP", "STOP"],
        ["RESUME", "RESUME"],
      ]);
      assert.ok(events.every(({ receivedMs }) => receivedMs >= beforeMs));
      assert.ok(events.every(({ hostTimeMs }) => hostTimeMs === null));
    });
  },
);

socketTest(
  "QmpClient.connect() takes events before the greeting's answer when they come",
  async (path) => {
    await using _server = serveQmp(path, { greeting: `${greeting}{"event": "RTC_CHANGE"}\n` });
    await using client = await QmpClient.connect(path);
    assert.equal(client.hasEnded, false);
  },
);
