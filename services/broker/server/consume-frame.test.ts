import { describe, expect, test } from 'vitest';
import type { EntryId, LedgerId, MessageIndex } from '../../lib/ids.ts';
import type { Delivery } from '../../wire/frames.ts';
import { type ConsumeItem, toConsumeResponse } from './consume-frame.ts';

function delivery(consumer: number): ConsumeItem {
  const nothing = Buffer.alloc(0);
  const place = { ledgerId: 1 as LedgerId, entryId: 0 as EntryId, index: 0 as MessageIndex };
  const value: Delivery = {
    consumer,
    ...place,
    appendTime: 1,
    crc32c: 0,
    skip: nothing,
    block: nothing,
    redeliveries: 0,
  };
  return { kind: 'delivery', delivery: value };
}

function caughtUp(consumer: number, index: number): ConsumeItem {
  return { kind: 'caughtUp', caughtUp: { consumer, index: index as MessageIndex } };
}

describe('a frame of the consume stream', () => {
  test('leaves out a CaughtUp that a later delivery to the same consumer has made untrue', () => {
    const frame = toConsumeResponse([caughtUp(1, 5), caughtUp(2, 5), delivery(1), caughtUp(1, 6)], 0);
    expect(frame.deliveries).toHaveLength(1);
    expect(frame.caughtUp).toEqual([
      { consumer: 2, index: 5 },
      { consumer: 1, index: 6 },
    ]);
    expect(frame.credit).toBeUndefined();
  });

  test('carries the credit that has come back', () => {
    expect(toConsumeResponse([{ kind: 'credit' }], 3)).toMatchObject({ credit: { items: 3 }, deliveries: [] });
  });
});
