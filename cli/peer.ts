/**
 * `peer add`, `peer list`, `peer remove`: the allow-list.
 *
 * @module
 */

import { merge, object, or } from "@optique/core/constructs";
import { message } from "@optique/core/message";
import { argument, command, constant } from "@optique/core/primitives";
import { type CommonOptions, commonOptions, examples, valueParser } from "./options.ts";
import { parsePeerName, parsePublicKey } from "./values.ts";

/** What `peer` was told. */
export type PeerOptions =
  & CommonOptions
  & (
    | { command: "peer add"; name: string; key: string }
    | { command: "peer list" }
    | { command: "peer remove"; name: string }
  );

const name = valueParser(parsePeerName, { metavar: "NAME", format: String, placeholder: "peer" });
const key = valueParser(parsePublicKey, { metavar: "KEY", format: String, placeholder: "" });

/** The parser of {@linkcode PeerOptions}. */
export const peerCommand = command(
  "peer",
  or(
    command(
      "add",
      merge(
        object({
          command: constant("peer add"),
          name: argument(name, { description: message`How it is called here.` }),
          key: argument(key, { description: message`What \`key show\` prints there.` }),
        }),
        commonOptions,
      ),
      {
        brief: message`Add a host to the list.`,
        footer: examples("sealift peer add host-b 2Lw5Tn1lJYzS9jS1PMqv0p0FxNm0zyy3Y1tRrFOaFnE="),
      },
    ),
    command("list", merge(object({ command: constant("peer list") }), commonOptions), {
      brief: message`Print names and keys.`,
      footer: examples("sealift peer list", "sealift peer list --json"),
    }),
    command(
      "remove",
      merge(
        object({
          command: constant("peer remove"),
          name: argument(name, { description: message`How it is called here.` }),
        }),
        commonOptions,
      ),
      {
        brief: message`Remove a host from the list.`,
        footer: examples("sealift peer remove host-b"),
      },
    ),
    { errors: { noMatch: message`Missing command.` } },
  ),
  {
    brief: message`The hosts known here, by name and public key.`,
    footer: examples(
      "sealift peer add host-b 2Lw5Tn1lJYzS9jS1PMqv0p0FxNm0zyy3Y1tRrFOaFnE=",
      "sealift peer list",
      "sealift peer remove host-b",
    ),
  },
);

/** Runs it. @returns the exit code */
export async function executePeer(options: PeerOptions): Promise<number> {
  const { addPeer, readPeers, removePeer } = await import("./peers.ts");
  const { stateDirectory } = await import("./state_directory.ts");
  const directory = stateDirectory(options);
  switch (options.command) {
    case "peer add":
      await addPeer(directory, { name: options.name, key: options.key });
      break;
    case "peer remove":
      await removePeer(directory, options.name);
      break;
    case "peer list":
      break;
  }
  if (options.json) {
    const { printJson } = await import("./json_lines.ts");
    printJson({ type: "report", outcome: "completed", peers: await readPeers(directory) });
  } else if (options.command === "peer list") {
    const { formatTable, printLine } = await import("./output.ts");
    const rows = (await readPeers(directory)).map((peer) => [peer.name, peer.key]);
    for (const line of formatTable(rows)) printLine(line);
  }
  return 0;
}
