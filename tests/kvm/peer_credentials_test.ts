import assert from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { libc } from "../../kvm/libc.ts";
import { peerCredentials } from "../../kvm/peer_credentials.ts";

// Stays open for the life of the process: opened here, it is no leak of the first test.
libc();

const program = `
  const path = Deno.args[0];
  const listener = Deno.listen({ transport: "unix", path: path + ".theirs" });
  const dialled = await Deno.connect({ transport: "unix", path: path + ".ours" });
  await listener.accept();
  await dialled.read(new Uint8Array(1));
`;

Deno.test({
  name: "peerCredentials() names the process when we dialled it and when it dialled us",
  permissions: "inherit",
  async fn() {
    const directory = await Deno.makeTempDir({ prefix: "peer-" });
    const path = `${directory}/socket`;
    using listener = Deno.listen({ transport: "unix", path: `${path}.ours` });
    const other = new Deno.Command(Deno.execPath(), {
      args: ["eval", program, path],
      stdin: "null",
    }).spawn();
    try {
      using accepted = await listener.accept();
      using dialled = await Deno.connect({ transport: "unix", path: `${path}.theirs` });
      const expected = { pid: other.pid, uid: Deno.uid(), gid: Deno.gid() };
      assert.deepEqual(peerCredentials(accepted), expected);
      assert.deepEqual(peerCredentials(dialled), expected);

      // A second connection to our socket, from ourselves: now the kernel would say two things.
      using _own = await Deno.connect({ transport: "unix", path: `${path}.ours` });
      using second = await listener.accept();
      assert.throws(
        () => peerCredentials(second),
        (error) => error instanceof KvmError && error.code === "peer",
      );
    } finally {
      other.kill("SIGKILL");
      await other.status;
      await Deno.remove(directory, { recursive: true });
    }
  },
});
