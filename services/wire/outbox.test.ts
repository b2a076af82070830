import { describe, expect, test } from 'vitest';

import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { type FrameStream, Outbox, OUTBOX_FRAME_BYTES } from './outbox.ts';

/** A stream that takes `room` frames before it asks to wait. */
class FakeStream implements FrameStream<readonly number[]> {
  readonly frames: (readonly number[])[] = [];
  room = Number.POSITIVE_INFINITY;
  onWrite: () => void = () => undefined;
  readonly listeners = new Set<() => void>();

  readonly takers: ((() => void) | undefined)[] = [];

  write(frame: readonly number[], taken?: () => void): boolean {
    this.frames.push(frame);
    this.takers.push(taken);
    this.room -= 1;
    this.onWrite();
    return this.room > 0;
  }

  on(_event: 'drain', listener: () => void): void {
    this.listeners.add(listener);
  }

  off(_event: 'drain', listener: () => void): void {
    this.listeners.delete(listener);
  }

  drain(room: number): void {
    this.room = room;
    for (const listener of this.listeners) listener();
  }
}

function frameOf(items: readonly number[]): readonly number[] {
  return items;
}

function setUp(onDrained?: () => void): {
  clock: ManualClock;
  stream: FakeStream;
  outbox: Outbox<number, readonly number[]>;
} {
  const [clock, stream] = [new ManualClock(), new FakeStream()];
  const outbox = new Outbox({ clock, stream, frame: frameOf, ...(onDrained === undefined ? {} : { onDrained }) });
  return { clock, stream, outbox };
}

describe('Outbox', () => {
  test('writes what one turn says as one frame', () => {
    const { clock, stream, outbox } = setUp();
    for (const item of [1, 2, 3]) outbox.push(item, 10);
    expect([stream.frames, outbox.queuedItems, outbox.queuedBytes]).toEqual([[], 3, 30]);
    clock.turn();
    expect([stream.frames, outbox.queuedItems, outbox.queuedBytes]).toEqual([[[1, 2, 3]], 0, 0]);
    outbox.push(4);
    clock.turn();
    expect(stream.frames).toEqual([[1, 2, 3], [4]]);
  });

  test('does not wait for the turn when a frame is full, by bytes or by items', () => {
    const { clock, stream, outbox } = setUp();
    outbox.push(1, 10);
    outbox.push(2, OUTBOX_FRAME_BYTES - 10);
    expect(stream.frames).toEqual([[1, 2]]);
    for (let item = 0; item < 4_096; item++) outbox.push(item);
    expect(stream.frames[1]?.length).toBe(4_096);
    clock.turn();
    expect(stream.frames.length).toBe(2);
  });

  test('says how many bytes have left, when they have', () => {
    const [clock, stream] = [new ManualClock(), new FakeStream()];
    const left: number[] = [];
    const outbox = new Outbox({ clock, stream, frame: frameOf, onTaken: (bytes) => left.push(bytes) });
    for (const item of [1, 2, 3]) outbox.push(item, 10);
    clock.turn();
    outbox.push(4);
    clock.turn();
    outbox.push(5, 7);
    clock.turn();
    expect([stream.frames.length, left]).toEqual([3, []]);
    for (const taken of stream.takers) taken?.();
    expect(left).toEqual([30, 7]); // nothing is told of what has no bytes
  });

  test('an item that is larger than a frame has one of its own', () => {
    const { stream, outbox } = setUp();
    outbox.push(1, 10);
    outbox.push(2, OUTBOX_FRAME_BYTES * 3);
    expect(stream.frames).toEqual([[1], [2]]);
  });

  test('waits while the stream asks to, then goes on in order and in frames of the usual size', () => {
    const drained: number[] = [];
    const { clock, stream, outbox } = setUp(() => drained.push(stream.frames.length));
    stream.room = 1;
    outbox.push(0);
    clock.turn();
    expect(outbox.blocked).toBe(true);
    for (let item = 1; item <= 5; item++) outbox.push(item, OUTBOX_FRAME_BYTES / 2);
    clock.turn();
    outbox.flush();
    expect([stream.frames, outbox.queuedItems, outbox.queuedBytes]).toEqual([[[0]], 5, OUTBOX_FRAME_BYTES * 2.5]);
    stream.drain(1);
    expect([stream.frames, outbox.queuedItems, drained]).toEqual([[[0], [1, 2]], 3, []]);
    stream.drain(5);
    expect([stream.frames, outbox.queuedItems, drained]).toEqual([[[0], [1, 2], [3, 4], [5]], 0, [4]]);
    expect(outbox.queuedBytes).toBe(0);
  });

  test('what is pushed while a frame is written goes into a later frame, once', () => {
    const { clock, stream, outbox } = setUp();
    outbox.push(1);
    stream.onWrite = (): void => {
      if (stream.frames.length === 1) outbox.push(2);
    };
    clock.turn();
    expect(stream.frames).toEqual([[1]]);
    clock.turn();
    expect(stream.frames).toEqual([[1], [2]]);
  });

  test('what is pushed while a frame is written goes out although it fills a frame', () => {
    const { clock, stream, outbox } = setUp();
    outbox.push(1);
    stream.onWrite = (): void => {
      if (stream.frames.length === 1) outbox.push(2, OUTBOX_FRAME_BYTES);
    };
    clock.turn();
    clock.turn();
    expect([stream.frames, outbox.queuedBytes]).toEqual([[[1], [2]], 0]);
  });

  test('close writes everything, whether the stream asks to wait or not, and takes nothing more', () => {
    const { clock, stream, outbox } = setUp();
    stream.room = 1;
    outbox.push(1);
    clock.turn();
    outbox.push(2);
    outbox.push(3, OUTBOX_FRAME_BYTES);
    outbox.close();
    outbox.close();
    outbox.push(4);
    clock.turn();
    expect(stream.frames).toEqual([[1], [2, 3]]);
    expect([outbox.queuedItems, outbox.queuedBytes, stream.listeners.size]).toEqual([0, 0, 0]);
  });

  test('discard forgets what is queued, also from within a write', () => {
    const { clock, stream, outbox } = setUp();
    stream.onWrite = (): void => outbox.discard();
    stream.room = 1;
    for (let item = 0; item < 3; item++) outbox.push(item, OUTBOX_FRAME_BYTES - 1);
    clock.turn();
    expect(stream.frames).toEqual([[0]]);
    expect([outbox.queuedItems, outbox.queuedBytes, stream.listeners.size]).toEqual([0, 0, 0]);
  });
});
