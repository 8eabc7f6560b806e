/**
 * The C library, as far as the kernel cannot be asked through Deno: one lazily opened table of symbols, `errno`,
 * and what both need to be called safely.
 *
 * @module
 */

import { KvmError } from "./errors.ts";

const symbols = {
  __errno_location: { parameters: [], result: "pointer" },
  geteuid: { parameters: [], result: "u32" },
  open: {
    parameters: ["buffer", /* pathname */ "i32", /* flags */ "u32" /* mode */],
    result: "i32",
  },
  close: { parameters: ["i32" /* fd */], result: "i32" },
  flock: { parameters: ["i32", /* fd */ "i32" /* operation */], result: "i32" },
  getsockopt: {
    parameters: [
      "i32", /* sockfd */
      "i32", /* level */
      "i32", /* optname */
      "buffer", /* optval */
      "buffer", /* optlen */
    ],
    result: "i32",
  },
  getsockname: {
    parameters: ["i32", /* sockfd */ "buffer", /* addr */ "buffer" /* addrlen */],
    result: "i32",
  },
  getpeername: {
    parameters: ["i32", /* sockfd */ "buffer", /* addr */ "buffer" /* addrlen */],
    result: "i32",
  },
  pread: {
    parameters: ["i32", /* fd */ "buffer", /* buf */ "usize", /* count */ "i64" /* offset */],
    result: "isize",
  },
  lseek: { parameters: ["i32", /* fd */ "i64", /* offset */ "i32" /* whence */], result: "i64" },
  pwrite: {
    parameters: ["i32", /* fd */ "buffer", /* buf */ "usize", /* count */ "i64" /* offset */],
    result: "isize",
  },
  mmap: {
    parameters: [
      "pointer", /* addr */
      "usize", /* length */
      "i32", /* prot */
      "i32", /* flags */
      "i32", /* fd */
      "i64", /* offset */
    ],
    result: "pointer",
  },
  munmap: { parameters: ["pointer", /* addr */ "usize" /* length */], result: "i32" },
  madvise: {
    parameters: ["pointer", /* addr */ "usize", /* length */ "i32" /* advice */],
    result: "i32",
  },
  memmem: {
    parameters: [
      "buffer", /* haystack */
      "usize", /* haystacklen */
      "buffer", /* needle */
      "usize", /* needlelen */
    ],
    result: "pointer",
  },
  process_vm_readv: {
    parameters: [
      "i32", /* pid */
      "buffer", /* local_iov */
      "usize", /* liovcnt */
      "buffer", /* remote_iov */
      "usize", /* riovcnt */
      "usize", /* flags */
    ],
    result: "isize",
  },
  process_vm_writev: {
    parameters: [
      "i32", /* pid */
      "buffer", /* local_iov */
      "usize", /* liovcnt */
      "buffer", /* remote_iov */
      "usize", /* riovcnt */
      "usize", /* flags */
    ],
    result: "isize",
  },
  // A variadic function: both ways to pass its third argument, each with a fixed type. The kernel takes 32 bits of a request.
  ioctlBuffer: {
    name: "ioctl",
    parameters: ["i32", /* fd */ "u32", /* op */ "buffer" /* argp */],
    result: "i32",
  },
  ioctlValue: {
    name: "ioctl",
    parameters: ["i32", /* fd */ "u32", /* op */ "usize" /* arg */],
    result: "i32",
  },
  gettid: { parameters: [], result: "i32" },
  tgkill: {
    parameters: ["i32", /* tgid */ "i32", /* tid */ "i32" /* sig */],
    result: "i32",
  },
  sigaction: {
    parameters: ["i32", /* signum */ "buffer", /* act */ "buffer" /* oldact */],
    result: "i32",
  },
  // Only its address is taken: see kick_signal.ts.
  abs: { type: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The symbols of the C library that this project calls. */
export type Libc = Deno.DynamicLibrary<typeof symbols>["symbols"];

let library: Deno.DynamicLibrary<typeof symbols> | null = null;
let errnoView: Deno.UnsafePointerView | null = null;

/**
 * The C library, opened at the first call and kept open: a thread's `errno` lives as long as the thread.
 *
 * @throws {KvmError} `unsupported` when there is no glibc
 */
export function libc(): Libc {
  if (library === null) {
    try {
      library = Deno.dlopen("libc.so.6", symbols);
    } catch (cause) {
      throw new KvmError(
        "unsupported",
        "Cannot open libc.so.6: it is not there, or --allow-ffi is not given",
        {
          cause,
        },
      );
    }
    // Found now, so that reading errno later is one load right after the failed call.
    // SAFETY: takes nothing; the result is valid for the life of this thread, which is that of this isolate.
    const location = library.symbols.__errno_location();
    if (location === null) {
      throw new KvmError("unsupported", "Cannot find errno: libc has no place for it");
    }
    errnoView = new Deno.UnsafePointerView(location);
  }
  return library.symbols;
}

/** `errno` of the last failed call on this thread: to be read at once, before anything else is called or awaited. */
export function lastErrno(): number {
  return errnoView?.getInt32(0) ?? 0;
}

/** Error numbers of Linux (x86-64 and arm64 alike) by name. @see errno(3) */
export const errnos = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  EROFS: 30,
  ENOSYS: 38,
  ELOOP: 40,
  ENOTSOCK: 88,
  EOPNOTSUPP: 95,
  ENOTCONN: 107,
} as const;

/** Names in {@linkcode errnos}. */
export type ErrnoName = keyof typeof errnos;

/**
 * The name of an error number.
 *
 * @example
 * ```ts
 * import { errnoText } from "./libc.ts";
 * import { equal } from "node:assert/strict";
 *
 * equal(errnoText(13), "EACCES");
 * equal(errnoText(4000), "errno 4000");
 * ```
 */
export function errnoText(errno: number): string {
  for (const [name, value] of Object.entries(errnos)) if (value === errno) return name;
  return `errno ${errno}`;
}

/**
 * A NUL-terminated path for a `buffer` parameter.
 *
 * @throws {TypeError} when `text` contains a NUL, which would cut it short
 */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new TypeError("Cannot pass a path to the kernel: it contains a NUL");
  }
  return new TextEncoder().encode(`${text}\0`);
}

/** Flags of `open(2)`. */
export const openFlags = {
  O_RDONLY: 0,
  O_RDWR: 2,
  O_CREAT: 0o100,
  O_CLOEXEC: 0o2000000,
  // Differs on arm64 (0o100000); x86-64 is what the page format is for.
  O_NOFOLLOW: 0o400000,
} as const;

/** A file descriptor of our own, closed when it goes out of scope. */
export class FileDescriptor implements Disposable {
  #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Opens `path` with flags of {@linkcode openFlags}; `O_CLOEXEC` is always added.
   *
   * @throws {KvmError} `denied`, `missing` or `system`
   */
  static open(path: string, options: { flags: number; mode?: number }): FileDescriptor {
    const pathname = cString(path);
    const { open } = libc();
    // SAFETY: `pathname` is NUL-terminated and referenced until the call has returned.
    const fd = open(pathname, options.flags | openFlags.O_CLOEXEC, options.mode ?? 0);
    if (fd < 0) throw errnoError(`Cannot open ${path}`, lastErrno());
    return new FileDescriptor(fd);
  }

  /** The raw number; -1 once closed. */
  get unsafeFd(): number {
    return this.#fd;
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    // SAFETY: a descriptor that only this object owns, closed once.
    libc().close(this.#fd);
    this.#fd = -1;
  }
}

/**
 * The error for a failed system call: "Cannot <verb> <object>" and the errno's name.
 *
 * @param errno as {@linkcode lastErrno} gave it right after the call
 */
export function errnoError(what: string, errno: number): KvmError {
  const name = errnoText(errno);
  switch (name) {
    case "EPERM":
    case "EACCES":
      return new KvmError("denied", `${what}: permission denied (${name})`);
    case "ENOENT":
      return new KvmError("missing", `${what}: no such file (${name})`);
    case "ESRCH":
      return new KvmError("gone", `${what}: no such process (${name})`);
    default:
      return new KvmError("system", `${what}: ${name}`);
  }
}
