import { expect, test } from 'vitest';
import { smallMemory } from '../runtime/testing/small-memory.ts';
import { FrameGate } from './frame-gate.ts';

/** A gate for frames of which the first byte is the cost; 255 cannot be read. */
function gateOf(bytes: number) {
  const share = smallMemory({ write: bytes }).share('write');
  const log: string[] = [];
  const gate: FrameGate<number> = new FrameGate({
    share,
    decode(frame) {
      if (frame[0] === 255) throw new Error('damaged');
      return frame[0] ?? 0;
    },
    cost: (frame) => frame,
    run: (frame) => log.push(`run ${frame}`),
    attempt(work) {
      try {
        work();
      } catch {
        log.push('ended');
        gate.close();
      }
    },
    fail: () => log.push('failed'),
    read: (on) => log.push(on ? 'reads' : 'stops'),
  });
  return { share, log, enter: (cost: number) => gate.enter(Buffer.from([cost])), close: () => gate.close(), gate };
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('frames pass while there is memory; then the stream is not read, and they pass in order as there is some', async () => {
  const { share, log, enter, gate } = gateOf(10);
  for (const cost of [4, 6, 0, 5, 0, 6]) enter(cost);
  expect(log).toEqual(['run 4', 'run 6', 'run 0', 'stops']);
  expect(gate.waiting).toBe(3);
  share.give(10);
  await settle();
  expect(log.slice(4)).toEqual(['run 5', 'run 0', 'stops']);
  share.give(5);
  await settle();
  expect(log.slice(7)).toEqual(['run 6', 'reads']);
  expect([gate.waiting, share.usedBytes]).toEqual([0, 6]);
});

test('a stream that ends while frames wait takes nothing', async () => {
  const { share, log, enter, close } = gateOf(10);
  for (const cost of [10, 5, 5]) enter(cost);
  close();
  share.give(10);
  await settle();
  expect(log).toEqual(['run 10', 'stops']);
  expect([share.usedBytes, share.waiting]).toEqual([0, 0]);
});

test('a frame that cannot be read, or that can never fit, ends the stream', async () => {
  const waiting = gateOf(10);
  for (const cost of [10, 5, 255, 3]) waiting.enter(cost);
  waiting.share.give(10);
  await settle();
  expect(waiting.log).toEqual(['run 10', 'stops', 'run 5', 'ended']);
  const large = gateOf(10);
  large.enter(11);
  await settle();
  expect(large.log).toEqual(['stops', 'failed']);
});
