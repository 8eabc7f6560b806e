/**
 * Where a host keeps what must outlive a command: its identity, its peers and the journals.
 *
 * @module
 */

import { importIdentity } from "../migration/identity.ts";
import { decodeKey, encodeKey, generateIdentity, type Identity } from "../migration/identity.ts";
import { CliError, systemCode, systemReason } from "./cli_error.ts";
import { createPrivateFile, readCapped } from "./files.ts";

/** An identity is one line of 44 characters; anything longer is another kind of file. */
const MAX_IDENTITY_BYTES = 256;

/** The paths inside a state directory. None of them has to exist. */
export interface StateDirectory {
  readonly path: string;
  readonly identity: string;
  readonly peers: string;
  readonly migrations: string;
  /** What can be made again, such as the demo's guest. */
  readonly cache: string;
}

/** What decides where the state directory is. */
export interface StateDirectoryOptions {
  /** `--state-dir`. */
  stateDir?: string | undefined;
  /** Default: the process's. */
  env?: (name: string) => string | undefined;
  /** Effective user id. Default: the process's. */
  uid?: number | null;
}

/**
 * The state directory: `--state-dir`, else `$SEALIFT_STATE_DIR`, else `/var/lib/sealift` for root, else
 * `$XDG_STATE_HOME/sealift`, whose default is `~/.local/state/sealift`. Touches nothing.
 *
 * @throws {CliError} `usage` when nothing says where
 * @see https://specifications.freedesktop.org/basedir-spec/latest/
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(stateDirectory({ env: () => undefined, uid: 0 }).path, "/var/lib/sealift");
 * ```
 */
export function stateDirectory(options: StateDirectoryOptions = {}): StateDirectory {
  const path = resolvePath(options);
  return {
    path,
    identity: `${path}/identity`,
    peers: `${path}/peers.json`,
    migrations: `${path}/migrations`,
    cache: `${path}/cache`,
  };
}

function resolvePath(options: StateDirectoryOptions): string {
  const env = options.env ?? ((name) => Deno.env.get(name));
  const given = options.stateDir ?? env("SEALIFT_STATE_DIR");
  if (given !== undefined && given !== "") return given.replace(/(?<=.)\/+$/, "");
  if ((options.uid ?? Deno.uid()) === 0) return "/var/lib/sealift";
  const stateHome = env("XDG_STATE_HOME");
  // The specification: a relative path is invalid and counts as not set.
  if (stateHome !== undefined && stateHome.startsWith("/")) return `${stateHome}/sealift`;
  const home = env("HOME");
  if (home !== undefined && home.startsWith("/")) return `${home}/.local/state/sealift`;
  throw new CliError("usage", "Cannot find the state directory: HOME is not set", {
    hint: "name one with --state-dir",
  });
}

/**
 * Makes the directory, mode 0700, if it is not there.
 *
 * @throws {CliError} `permission` when others may write to it: they could put in a peer of theirs
 */
export async function makeStateDirectory(directory: StateDirectory): Promise<void> {
  try {
    await Deno.mkdir(directory.path, { recursive: true, mode: 0o700 });
    const { mode } = await Deno.stat(directory.path);
    if (mode !== null && (mode & 0o022) !== 0) {
      throw new CliError(
        "permission",
        `Cannot use the state directory ${directory.path}: other users may write to it`,
        { hint: `chmod 700 ${directory.path}` },
      );
    }
  } catch (cause) {
    if (cause instanceof CliError) throw cause;
    throw new CliError(
      systemCode(cause),
      `Cannot make the state directory ${directory.path}: ${systemReason(cause)}`,
      { hint: "name another with --state-dir, or set SEALIFT_STATE_DIR", cause },
    );
  }
}

/**
 * Makes an identity and keeps its private key in a new file of mode 0600, as one line of base64.
 *
 * @returns the public key, base64
 * @throws {CliError} `exists` when the file is there: whoever knows its key would be locked out
 */
export async function generateIdentityFile(path: string): Promise<string> {
  const identity = await generateIdentity();
  const privateKey = await identity.exportPrivateKey();
  try {
    await createPrivateFile(path, `${encodeKey(privateKey)}\n`);
  } catch (cause) {
    const there = cause instanceof Deno.errors.AlreadyExists;
    throw new CliError(
      systemCode(cause),
      `Cannot create the identity ${path}: ${systemReason(cause)}`,
      {
        hint: there
          ? "`sealift key show` prints its public key; to replace it, move the file away first"
          : undefined,
        cause,
      },
    );
  } finally {
    privateKey.fill(0);
  }
  return encodeKey(identity.publicKey);
}

/**
 * Reads an identity.
 *
 * @throws {CliError} `missing`; `permission`, also when others may read the file; `malformed`
 */
export async function readIdentityFile(path: string): Promise<Identity> {
  const text = await readIdentityText(path);
  let privateKey: Uint8Array;
  try {
    privateKey = decodeKey(text.endsWith("\n") ? text.slice(0, -1) : text);
  } catch {
    // No cause: it may quote what the file holds.
    throw new CliError("malformed", `Cannot read the identity ${path}: it holds no private key`, {
      hint: "it is one line of 44 characters of base64, as `sealift key generate` writes it",
    });
  }
  try {
    return await importIdentity(privateKey);
  } finally {
    privateKey.fill(0);
  }
}

async function readIdentityText(path: string): Promise<string> {
  try {
    return await readCapped(path, {
      what: "the identity",
      maxBytes: MAX_IDENTITY_BYTES,
      check: ({ mode }) => {
        if (mode === null || (mode & 0o077) === 0) return;
        throw new CliError(
          "permission",
          `Cannot use the identity ${path}: other users may read or change it`,
          { hint: `chmod 600 ${path}` },
        );
      },
    });
  } catch (error) {
    if (!(error instanceof CliError) || error.code !== "missing") throw error;
    throw new CliError("missing", error.message, {
      hint: "make one with `sealift key generate`",
      cause: error.cause,
    });
  }
}
