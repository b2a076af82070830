import { seededRandom } from '../../services/runtime/testing/seeded-random.ts';
import type { Ended } from './raw-stream.ts';

const ROUNDS = 40;
const STREAMS = 25;

/** A stream that damaged frames are sent on. */
interface FuzzedStream extends AsyncDisposable {
  sendBytes(bytes: Uint8Array): void;
  halfClose(): void;
  ended(): Promise<Ended>;
}

/**
 * Sends frames with flipped, missing and additional bytes, each on a stream of its own, 25 streams at a time. `open` gives the
 * `at`th of these, and a frame that is right, which is damaged in place. Returns how often a stream ended with which
 * "STATUS REASON".
 */
export async function fuzz(
  seed: number,
  open: (at: number) => { readonly stream: FuzzedStream; readonly bytes: Buffer },
): Promise<ReadonlyMap<string, number>> {
  const random = seededRandom(seed);
  const below = (limit: number): number => Math.floor(random.next() * limit);
  const ends = new Map<string, number>();
  for (let round = 0; round < ROUNDS; round++) {
    const streams = Array.from({ length: STREAMS }, (_, at) => {
      const { stream, bytes } = open(at);
      for (let flips = 1 + below(4); flips > 0; flips--) bytes[below(bytes.length)] = below(256);
      const cut = below(4) === 0 ? bytes.subarray(0, below(bytes.length)) : bytes;
      stream.sendBytes(below(4) === 0 ? Buffer.concat([cut, bytes]) : cut);
      stream.halfClose();
      return stream;
    });
    for (const stream of streams) {
      const { status, reason } = await stream.ended();
      const end = `${status} ${reason}`;
      ends.set(end, (ends.get(end) ?? 0) + 1);
      await stream[Symbol.asyncDispose]();
    }
  }
  return ends;
}
