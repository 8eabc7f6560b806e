import { Connection } from "../../migration/connection.ts";
import { FrameReader } from "../../migration/frame.ts";
import type { FakeClock } from "./fake_clock.ts";
import { loopbackPair } from "./loopback.ts";

/** A connection as a handshake leaves it: both ends. */
export function connected(clock: FakeClock): [Connection, Connection] {
  const ends = loopbackPair();
  const key = (first: number) => new Uint8Array(32).fill(first);
  return [0, 1].map((side) => {
    const transport = ends[side]!;
    return new Connection({
      transport,
      reader: new FrameReader(transport),
      keys: {
        sendKey: key(1 + side),
        receiveKey: key(2 - side),
        handshakeHash: new Uint8Array(32),
      },
      clock,
      onCut: () => {},
    });
  }) as [Connection, Connection];
}
