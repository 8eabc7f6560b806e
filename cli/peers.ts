/**
 * The allow-list: the hosts that this one knows, by name and public key.
 *
 * @module
 */

import { decodeKey, isEncodedKey } from "../migration/identity.ts";
import { CliError, systemCode, systemReason } from "./cli_error.ts";
import { readCapped, replacePrivateFile } from "./files.ts";
import { makeStateDirectory, type StateDirectory } from "./state_directory.ts";
import { isPeerName } from "./values.ts";

/** 4,096 peers with long names take half of it. */
const MAX_PEERS_BYTES = 1024 * 1024;
const MAX_PEERS = 4096;

/** A host that is known here. */
export interface Peer {
  /** `[A-Za-z0-9._-]{1,64}`. */
  name: string;
  /** Its public key: 44 characters of padded base64. */
  key: string;
}

/**
 * The peers of this host, by name; none when there is no file yet.
 *
 * @throws {CliError} `malformed`, `permission`, `io`
 */
export async function readPeers(directory: StateDirectory): Promise<Peer[]> {
  let text: string;
  try {
    text = await readCapped(directory.peers, {
      what: "the peers",
      maxBytes: MAX_PEERS_BYTES,
      check: ({ mode }) => {
        if (mode === null || (mode & 0o022) === 0) return;
        throw new CliError(
          "permission",
          `Cannot use the peers ${directory.peers}: other users may change them`,
          { hint: `chmod 600 ${directory.peers}` },
        );
      },
    });
  } catch (error) {
    if (error instanceof CliError && error.code === "missing") return [];
    throw error;
  }
  return parsePeers(text, directory.peers);
}

function parsePeers(text: string, path: string): Peer[] {
  const malformed = (reason: string) =>
    new CliError("malformed", `Cannot read the peers ${path}: ${reason}`, {
      hint: "mend it by hand, or move it away and add the peers again",
    });
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch {
    throw malformed("it is no JSON");
  }
  const list = isRecord(file) ? file["peers"] : undefined;
  if (!Array.isArray(list)) throw malformed("it has no list `peers`");
  if (list.length > MAX_PEERS) throw malformed(`it lists more than ${MAX_PEERS}`);
  const peers: Peer[] = [];
  const names = new Set<string>();
  for (const [index, item] of list.entries()) {
    const { name, key } = isRecord(item) ? item : {};
    if (typeof name !== "string" || !isPeerName(name)) {
      throw malformed(`entry ${index} has no name`);
    }
    if (typeof key !== "string" || !isEncodedKey(key)) throw malformed(`entry ${index} has no key`);
    if (names.has(name)) throw malformed(`the name ${name} is there twice`);
    names.add(name);
    peers.push({ name, key });
  }
  return peers;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Adds a peer. The same name with the same key again changes nothing.
 *
 * @throws {CliError} `exists` when the name has another key
 */
export async function addPeer(directory: StateDirectory, peer: Peer): Promise<void> {
  await changePeers(directory, (peers) => {
    const known = peers.find(({ name }) => name === peer.name);
    if (known?.key === peer.key) return peers;
    if (known !== undefined) {
      throw new CliError("exists", `Cannot add peer ${peer.name}: it has another key`, {
        hint: `if the host has a new key, \`sealift peer remove ${peer.name}\` first`,
      });
    }
    if (peers.length >= MAX_PEERS) {
      throw new CliError("io", `Cannot add peer ${peer.name}: there are ${MAX_PEERS} already`);
    }
    return [...peers, peer].sort((a, b) => a.name < b.name ? -1 : 1);
  });
}

/** Removes a peer. @throws {CliError} `usage` when there is none of that name */
export async function removePeer(directory: StateDirectory, name: string): Promise<void> {
  await changePeers(directory, (peers) => {
    if (!peers.some((peer) => peer.name === name)) throw unknownPeer(name);
    return peers.filter((peer) => peer.name !== name);
  });
}

/** Reads, changes and writes under a lock: two commands at once must not lose a peer. */
async function changePeers(
  directory: StateDirectory,
  change: (peers: Peer[]) => Peer[],
): Promise<void> {
  await makeStateDirectory(directory);
  try {
    using lock = await Deno.open(`${directory.path}/peers.lock`, {
      create: true,
      write: true,
      mode: 0o600,
    });
    await lock.lock(true);
    const peers = await readPeers(directory);
    const changed = change(peers);
    if (changed === peers) return;
    await replacePrivateFile(directory.peers, JSON.stringify({ peers: changed }, null, 2) + "\n");
  } catch (cause) {
    if (cause instanceof CliError) throw cause;
    throw new CliError(
      systemCode(cause),
      `Cannot write the peers ${directory.peers}: ${systemReason(cause)}`,
      { cause },
    );
  }
}

/** A peer that was named on the command line. */
export interface ResolvedPeer {
  /** Null when it was named by a key that is not in the list. */
  name: string | null;
  /** 32 bytes. */
  publicKey: Uint8Array<ArrayBuffer>;
}

/**
 * What `--peer` and `--allow` name: a peer of the list, or any host by its key.
 *
 * @throws {CliError} `usage` when the name is not known
 */
export async function resolvePeer(
  directory: StateDirectory,
  nameOrKey: string,
): Promise<ResolvedPeer> {
  const peers = await readPeers(directory);
  if (isEncodedKey(nameOrKey)) {
    const known = peers.find((peer) => peer.key === nameOrKey);
    return { name: known?.name ?? null, publicKey: decodeKey(nameOrKey) };
  }
  const peer = peers.find(({ name }) => name === nameOrKey);
  if (peer === undefined) throw unknownPeer(nameOrKey);
  return { name: peer.name, publicKey: decodeKey(peer.key) };
}

function unknownPeer(name: string): CliError {
  return new CliError("usage", `Cannot find peer ${name}: it is not known here`, {
    hint: "`sealift peer list` shows who is; `sealift peer add NAME KEY` adds one",
  });
}
