import { expect, test } from 'vitest';
import type { MessageIndex } from '../../lib/ids.ts';
import type { LogReader } from './log-reader.ts';
import { SubscriptionControl } from './subscription-control.ts';

type Options = ConstructorParameters<typeof SubscriptionControl>[0];

test('a subscription that stands at a lost entry has a place', async () => {
  const loss = { lost: true, ledgerId: 7, entryId: 3, lastEntryId: 3, index: 3, count: 1, reason: 'bad copy' };
  const reader = {
    spans: [{ ledgerId: 7, lastEntryId: 9 }],
    oldestIndex: 0,
    endIndex: 10,
    read: async () => await Promise.resolve([loss]),
  };
  const parts = { ackLog: {} as Options['ackLog'], consumers: {} as Options['consumers'] };
  const control = new SubscriptionControl({ topic: 't', reader: reader as unknown as LogReader, ...parts });
  expect(await control.placeBefore(3 as MessageIndex)).toEqual({ ledgerId: 7, entryId: 2 });
});
