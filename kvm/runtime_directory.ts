/**
 * Where locks and sockets live: a directory that ends with the boot and that nobody else can write to.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { libc } from "./libc.ts";

const SYSTEM_DIRECTORY = "/run/sealift";

/** Longest path that fits into `struct sockaddr_un` with its NUL. @see unix(7) */
const MAX_SOCKET_PATH_BYTES = 107;

/**
 * The agent's runtime directory, made if need be: `/run/sealift` where that can be had, else `$XDG_RUNTIME_DIR/sealift`.
 *
 * @throws {KvmError} `denied` when neither can be had
 */
export function runtimeDirectory(): string {
  const home = Deno.env.get("XDG_RUNTIME_DIR");
  const candidates = [SYSTEM_DIRECTORY, ...(home?.startsWith("/") ? [`${home}/sealift`] : [])];
  for (const path of candidates) if (isOurs(path)) return path;
  throw new KvmError(
    "denied",
    `Cannot make a directory for locks: tried ${candidates.join(" and ")}`,
  );
}

/**
 * A fresh directory for one socket, that only its owner can enter; removed with what is in it when it goes out of scope.
 */
export class SocketDirectory implements Disposable {
  /** The directory. */
  readonly path: string;
  /** Where the socket belongs. */
  readonly socketPath: string;

  private constructor(path: string) {
    this.path = path;
    this.socketPath = `${path}/stream.sock`;
  }

  /**
   * Makes one that is ours.
   *
   * @param options.parent instead of {@linkcode runtimeDirectory}
   * @throws {KvmError} `denied`; `unsupported` when its path is too long for a socket
   */
  static make(options: { parent?: string } = {}): SocketDirectory {
    const parent = options.parent ?? runtimeDirectory();
    // Mode 0700.
    const directory = new SocketDirectory(Deno.makeTempDirSync({ dir: parent, prefix: "vm-" }));
    if (new TextEncoder().encode(directory.socketPath).length <= MAX_SOCKET_PATH_BYTES) {
      return directory;
    }
    directory[Symbol.dispose]();
    throw new KvmError("unsupported", `Cannot make a socket in ${parent}: its path is too long`);
  }

  /** Removes it. */
  [Symbol.dispose](): void {
    try {
      Deno.removeSync(this.path, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/**
 * Gives a path to the user `uid`: QEMU may run as another. Follows links: never for what lies in a directory that was given away.
 *
 * @throws {KvmError} `denied`
 */
export function giveTo(path: string, uid: number): void {
  // SAFETY: takes nothing, cannot fail.
  if (libc().geteuid() === uid) return;
  try {
    Deno.chownSync(path, uid, null);
  } catch (cause) {
    throw new KvmError(
      "denied",
      `Cannot give ${path} to user ${uid}, as whom QEMU runs: run as root or as that user`,
      { cause },
    );
  }
}

/** Makes `path` if it is missing; whether it then is a directory that only we can write to. */
function isOurs(path: string): boolean {
  // SAFETY: takes nothing, cannot fail.
  const uid = libc().geteuid();
  try {
    // Others may pass through to a socket that is theirs, and see nothing else.
    Deno.mkdirSync(path, { mode: 0o711 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) return false;
  }
  const found = Deno.lstatSync(path);
  return found.isDirectory && found.uid === uid && ((found.mode ?? 0) & 0o022) === 0;
}
