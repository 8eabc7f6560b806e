/**
 * The connection that a source QEMU makes for its migration stream.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { isSilence, type QemuVm } from "./qemu_vm.ts";
import { wordsOf } from "./qmp_error.ts";
import { giveTo, SocketDirectory } from "./runtime_directory.ts";

/** QEMU connects within milliseconds; this is for a host that swaps. */
const CONNECT_TIMEOUT_MS = 10_000;

/**
 * Sends `migrate` and takes QEMU's connection; the socket's file is removed again.
 *
 * @param options.parent directory for the socket's own directory
 * @throws {KvmError} `state` when QEMU refuses, with its words; `denied`; `failed` and `peer`: a migration may be under way then
 */
export async function connectOutgoing(
  vm: QemuVm,
  options: { parent?: string },
): Promise<Deno.UnixConn> {
  using directory = SocketDirectory.make(options);
  const path = directory.socketPath;
  using listener = Deno.listen({ transport: "unix", path });
  // In this order: once the directory is theirs, they can put a link in the socket's place.
  giveTo(path, vm.process.uid);
  giveTo(directory.path, vm.process.uid);

  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => {});
  const fail = (text: string) =>
    failure.reject(new KvmError("failed", `Cannot start the migration: ${text}`));
  const timer = setTimeout(() => fail("QEMU does not connect"), CONNECT_TIMEOUT_MS);
  const off = vm.qmp.on(({ name, data }) => {
    if (name === "MIGRATION" && data.status === "failed") fail("QEMU cannot connect");
  });
  vm.qmp.closed.then(() => fail("QEMU has closed its monitor"));
  const accepted = listener.accept();
  try {
    await vm.qmp.execute("migrate", { uri: `unix:${path}` }).catch(refused);
    const conn = await Promise.race([accepted, failure.promise]);
    vm.checkPeer(conn);
    return conn;
  } catch (error) {
    // One that came too late, or from somebody else.
    accepted.then((conn) => conn.close(), () => {});
    throw error;
  } finally {
    clearTimeout(timer);
    off();
  }
}

function refused(cause: unknown): never {
  // Without an answer it may have begun.
  const code = isSilence(cause) ? "failed" : "state";
  throw new KvmError(code, `Cannot start the migration: ${wordsOf(cause)}`, { cause });
}
