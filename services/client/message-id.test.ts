import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MessageId } from './message-id.ts';

const safe = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const uint32 = fc.integer({ min: 0, max: 4_294_967_295 });
const ids = fc
  .tuple(safe, safe, uint32, fc.option(safe, { nil: undefined }), fc.option(uint32, { nil: undefined }))
  .map((fields) => new MessageId(...fields));

test('an id survives text (without its index) and bytes', () => {
  fc.assert(
    fc.property(ids, (id) => {
      const { ledgerId, entryId, batchIndex, partition } = id;
      expect(MessageId.parse(id.toString())).toEqual(
        new MessageId(ledgerId, entryId, batchIndex, undefined, partition),
      );
      expect(MessageId.deserialize(id.serialize())).toEqual(id);
      expect(id.equals(MessageId.deserialize(id.serialize()))).toBe(true);
    }),
  );
});

test.each(['', '1:2', '1:2:3:4:5', 'a:b:c', '1:2:-3', '1:2:4294967296', '9007199254740993:0:0', ' 1:2:3'])(
  'text that is no id is refused: %j',
  (text) => {
    expect(() => MessageId.parse(text)).toThrow(/message id is ".*"; it must be "ledger:entry:batch"/);
  },
);

test('bytes that are no id are refused', () => {
  expect(() => MessageId.deserialize(Buffer.from([8]))).toThrow(/must be what MessageId\.serialize\(\) returned/);
});

test('ids are ordered by index where both have one, else by place', () => {
  const ordered = [
    new MessageId(1, 9, 9, 0),
    new MessageId(2, 0, 0, 1),
    new MessageId(2, 0, 3, 4),
    new MessageId(2, 1, 0, 9),
  ];
  const shuffled = [2, 0, 3, 1].map((i) => ordered[i] as MessageId);
  expect(shuffled.toSorted((a, b) => a.compare(b))).toEqual(ordered);
  const places = shuffled.map((id) => MessageId.parse(id.toString())).toSorted((a, b) => a.compare(b));
  expect(places.map(String)).toEqual(ordered.map(String));
  expect(ordered[0]?.equals(ordered[1] as MessageId)).toBe(false);
});
