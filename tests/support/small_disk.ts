/**
 * A disk that is full when a test wants it to be: a tmpfs of four pages. Only root can mount one.
 *
 * @module
 */

import assert from "node:assert/strict";
import { qemuTest } from "./qemu.ts";

const PAGE_BYTES = 4096;

/** A test that needs a {@linkcode SmallDisk} and QEMU: skipped for who is not root. */
export function rootTest(name: string, test: () => Promise<void>): void {
  if (Deno.uid() === 0) qemuTest(name, test);
  else Deno.test({ name: `${name} (needs root)`, ignore: true, fn: test });
}

/** See the module. Disposing of it unmounts it. */
export class SmallDisk implements Disposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Mounts one at `path`, which is made if need be. */
  static mount(path: string): SmallDisk {
    Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
    command("mount", ["-t", "tmpfs", "-o", "size=16k,mode=700", "sealift-test", path]);
    return new SmallDisk(path);
  }

  /** Leaves no free page. */
  fill(): void {
    using file = Deno.openSync(`${this.path}/fill`, { create: true, append: true });
    const page = new Uint8Array(PAGE_BYTES);
    assert.throws(() => {
      for (let count = 0; count < 16; count++) file.writeSync(page);
    }, /No space left/);
  }

  /** Leaves no free page, and `bytes` in the last one of the only journal there is. */
  leaveInJournal(bytes: number): void {
    const [journal] = [...Deno.readDirSync(this.path)].filter(({ name }) => /jsonl$/.test(name));
    assert.ok(journal !== undefined);
    const path = `${this.path}/${journal.name}`;
    const text = Deno.readTextFileSync(path);
    // The first line once more, with something in it that nobody reads.
    const [first = ""] = text.split("\n");
    const line = (padding: number) => `${first.slice(0, -1)},"padding":"${"x".repeat(padding)}"}\n`;
    const used = (text.length + line(0).length) % PAGE_BYTES;
    const padding = (2 * PAGE_BYTES - used - bytes) % PAGE_BYTES;
    Deno.writeTextFileSync(path, line(padding), { append: true });
    this.fill();
  }

  [Symbol.dispose](): void {
    command("umount", ["--lazy", this.path]);
  }
}

function command(name: string, args: string[]): void {
  const { success, stderr } = new Deno.Command(name, { args }).outputSync();
  assert.ok(success, new TextDecoder().decode(stderr));
}
