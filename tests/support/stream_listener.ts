/**
 * A reader's listener, and how to read a built stream.
 *
 * @module
 */

import assert from "node:assert/strict";
import { KvmError } from "../../kvm/errors.ts";
import { MIN_SPACE_BYTES, StreamReader } from "../../kvm/stream_reader.ts";
import type { PageEvents } from "../../migration/ports.ts";
import { builtBlocks, concat } from "./stream_builder.ts";

/** What a reader said, with the pieces of SETUP and STATE joined. */
export interface Heard {
  setup: Uint8Array;
  pages: string[];
  state: Uint8Array;
  ended: boolean;
}

/** Writes down what it hears. */
export class Listener implements PageEvents {
  readonly setupPieces: Uint8Array[] = [];
  readonly pages: string[] = [];
  readonly statePieces: Uint8Array[] = [];
  drains = 0;
  setup(bytes: Uint8Array): void {
    assert.equal(this.pages.length, 0, "SETUP behind a page");
    this.setupPieces.push(bytes.slice());
  }
  page(block: number, number: number, bytes: Uint8Array): void {
    assert.equal(bytes.length, 4096);
    // Built pages are all of one byte, but damaged ones are not.
    const fill = bytes.every((byte) => byte === bytes[0]) ? bytes[0] : "mixed";
    this.pages.push(`page ${block} ${number} ${fill}`);
  }
  zero(block: number, number: number): void {
    this.pages.push(`zero ${block} ${number}`);
  }
  stopped(): void {
    this.pages.push("stopped");
  }
  state(bytes: Uint8Array): void {
    assert.ok(this.pages.includes("stopped"), "STATE of a VM that runs");
    this.statePieces.push(bytes.slice());
  }
  drained(): void {
    this.drains++;
  }
}

/** Reads `stream` in pieces that end at `cuts`. */
export function read(
  stream: Uint8Array,
  options: { cuts?: Iterable<number>; reader?: StreamReader } = {},
): Heard {
  const { cuts = [], reader = new StreamReader({ blocks: builtBlocks, bufferBytes: 384 * 1024 }) } =
    options;
  const listener = new Listener();
  let from = 0;
  let calls = 0;
  for (const cut of [...cuts, stream.length]) {
    while (from < cut) {
      const space = reader.space();
      assert.ok(space.length >= MIN_SPACE_BYTES);
      const piece = stream.subarray(from, Math.min(cut, from + space.length));
      space.set(piece);
      reader.advance(piece.length, listener);
      from += piece.length;
      assert.equal(listener.drains, ++calls);
    }
  }
  return {
    setup: concat(...listener.setupPieces),
    pages: listener.pages,
    state: concat(...listener.statePieces),
    ended: reader.ended,
  };
}

/** Asserts that a reader refuses `stream`, whole and cut at every byte. */
export function refuses(stream: Uint8Array, message: RegExp): void {
  const every = Array.from({ length: stream.length }, (_, index) => index);
  for (const cuts of [[], every]) {
    assert.throws(
      () => read(stream, { cuts }),
      (error) =>
        error instanceof KvmError && error.code === "stream" && message.test(error.message),
      `expected ${message}`,
    );
  }
}

/** Expects nothing but `stopped` and `drained`. */
export function silent(): PageEvents {
  const unexpected = () => assert.fail("unexpected event");
  return {
    setup: unexpected,
    page: unexpected,
    zero: unexpected,
    stopped: () => {},
    state: unexpected,
    drained: () => {},
  };
}

/** Reads `bytes` at once. */
export function put(reader: StreamReader, bytes: Uint8Array, events: PageEvents): void {
  reader.space().set(bytes);
  reader.advance(bytes.length, events);
}
