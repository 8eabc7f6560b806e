/**
 * Who is at the other end of a unix socket, by the kernel's word (SO_PEERCRED).
 *
 * Deno does not tell the descriptor of a connection, so ours is found among `/proc/self/fd` by both of its addresses.
 *
 * @module
 */

import { KvmError } from "./errors.ts";
import { libc } from "./libc.ts";

/** `struct ucred`. @see unix(7) */
export interface PeerCredentials {
  pid: number;
  uid: number;
  gid: number;
}

/** `struct sockaddr_un`: family u16, path of at most 108 bytes. */
const SOCKADDR_UN_BYTES = 110;
const AF_UNIX = 1;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const UCRED_BYTES = 12;

/** Both ends of a connection, as the kernel has them: null for an end that has no path. */
interface SocketPaths {
  local: string | null;
  remote: string | null;
}

/**
 * The process at the other end of `conn`, as it was when the connection was made. For a connection that we dialled this
 * is the process that listens; for one that we accepted, the one that dialled.
 *
 * @throws {KvmError} `peer` when the kernel cannot say, or says two things
 * @see unix(7), SO_PEERCRED
 */
export function peerCredentials(conn: Deno.UnixConn): PeerCredentials {
  const wanted = pathsOf(conn);
  if (wanted.local === null && wanted.remote === null) {
    throw new KvmError("peer", "Cannot tell who is at the socket: neither of its ends has a path");
  }
  const text = wanted.remote ?? wanted.local;
  let found: PeerCredentials | null = null;
  for (const fd of socketDescriptors()) {
    const paths = socketPaths(fd);
    if (paths === null || paths.local !== wanted.local || paths.remote !== wanted.remote) continue;
    const credentials = readCredentials(fd);
    if (credentials === null) continue;
    // Two connections to one path: fine while both say the same.
    if (found !== null && (found.pid !== credentials.pid || found.uid !== credentials.uid)) {
      throw new KvmError(
        "peer",
        `Cannot tell who is at ${text}: two connections there have different peers`,
      );
    }
    found = credentials;
  }
  if (found === null || found.pid === 0) {
    throw new KvmError(
      "peer",
      `Cannot tell who is at ${text}: its process is not visible from here`,
    );
  }
  return found;
}

function pathsOf(conn: Deno.UnixConn): SocketPaths {
  return { local: pathOf(conn.localAddr), remote: pathOf(conn.remoteAddr) };
}

function pathOf(address: Deno.Addr): string | null {
  // An unnamed end has no path, whatever the type says.
  return address.transport === "unix" && address.path ? address.path : null;
}

/** Our descriptors that are sockets. */
function* socketDescriptors(): Generator<number> {
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    let target: string;
    try {
      target = Deno.readLinkSync(`/proc/self/fd/${name}`);
    } catch {
      continue; // the descriptor of the listing itself
    }
    if (target.startsWith("socket:")) yield Number(name);
  }
}

/** Both addresses of a connected unix socket; null for anything else: a listening socket has no peer. */
function socketPaths(fd: number): SocketPaths | null {
  const { getsockname, getpeername } = libc();
  const local = readPath(getsockname, fd), remote = readPath(getpeername, fd);
  return local === undefined || remote === undefined ? null : { local, remote };
}

/** A path, null for an unnamed end, undefined when this is no such socket. */
function readPath(
  call: (fd: number, address: BufferSource, length: BufferSource) => number,
  fd: number,
): string | null | undefined {
  const address = new Uint8Array(SOCKADDR_UN_BYTES);
  const length = new Uint32Array([SOCKADDR_UN_BYTES]);
  // SAFETY: `length` says how much room `address` has; both are referenced until the call has returned.
  if (call(fd, address, length) !== 0) return undefined;
  const view = new DataView(address.buffer);
  if (view.getUint16(0, true) !== AF_UNIX) return undefined;
  const path = address.subarray(2, Math.min(length[0] ?? 0, SOCKADDR_UN_BYTES));
  const end = path.indexOf(0);
  const text = new TextDecoder().decode(end < 0 ? path : path.subarray(0, end));
  return text === "" ? null : text;
}

function readCredentials(fd: number): PeerCredentials | null {
  const ucred = new Int32Array(UCRED_BYTES / 4);
  const length = new Uint32Array([UCRED_BYTES]);
  // SAFETY: `length` says how much room `ucred` has; both are referenced until the call has returned.
  if (libc().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ucred, length) !== 0) return null;
  const [pid = 0, uid = 0, gid = 0] = ucred;
  return { pid, uid: uid >>> 0, gid: gid >>> 0 };
}
