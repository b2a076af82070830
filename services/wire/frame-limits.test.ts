import { expect, test } from 'vitest';
import { ProtoWriter } from '../lib/bytes.ts';
import type { MessageIndex } from '../lib/ids.ts';
import { appendRequest, readRequest } from './bookie-codec.ts';
import { outcome } from './codec.contract.ts';
import { FRAME_FIELDS, FRAME_ITEMS } from './common-codec.ts';
import { consumeRequest } from './consume-codec.ts';
import { publishRequest } from './publish-codec.ts';
import { MAX_FRAME_BYTES } from './server.ts';

const CODECS = { publishRequest, consumeRequest, appendRequest, readRequest } as const;
const NAMES = Object.keys(CODECS) as (keyof typeof CODECS)[];
const TOO_MANY_ITEMS = `PROTOCOL_VIOLATION: a frame has more than ${FRAME_ITEMS} items; send several frames`;
const TOO_MANY_FIELDS = `PROTOCOL_VIOLATION: a message has more than ${FRAME_FIELDS} fields and numbers`;

/** An empty submessage, so many times. */
function empties(field: number, count: number): Buffer {
  return Buffer.alloc(count * 2, Buffer.from([field * 8 + 2, 0]));
}

/** A frame of one item. */
function item(field: number, content: Buffer): Buffer {
  const writer = new ProtoWriter();
  writer.bytes(field, content);
  return writer.finish();
}

test.each(NAMES)('%s: a frame has so many items, and no more', (name) => {
  const { decode } = CODECS[name];
  expect(outcome(() => decode(empties(2, FRAME_ITEMS)))).toBe('decoded');
  expect(outcome(() => decode(empties(2, FRAME_ITEMS + 1)))).toBe(TOO_MANY_ITEMS);
  expect(outcome(() => decode(empties(15, FRAME_ITEMS + 1)))).toBe(TOO_MANY_ITEMS); // of a field that nobody knows
});

test.each(NAMES)('%s: a frame has so many fields at any depth, and no more', (name) => {
  const { decode } = CODECS[name];
  expect(outcome(() => decode(item(2, empties(15, FRAME_FIELDS - 1))))).toBe('decoded');
  expect(outcome(() => decode(item(2, empties(15, FRAME_FIELDS))))).toBe(TOO_MANY_FIELDS);
  const halves = Buffer.concat([item(2, empties(15, FRAME_FIELDS / 2)), item(2, empties(15, FRAME_FIELDS / 2))]);
  expect(outcome(() => decode(halves))).toBe(TOO_MANY_FIELDS);
});

/** A frame of one acknowledgment with so many numbers. */
function ackOf(count: number): Buffer {
  const ranges = Array.from<MessageIndex>({ length: count }).fill(1 as MessageIndex);
  return consumeRequest.encode({ acks: [{ consumer: 0, ackId: 0, below: 0 as MessageIndex, ranges }] });
}

test('the numbers of packed fields count', () => {
  expect(outcome(() => consumeRequest.decode(ackOf(FRAME_FIELDS - 2)))).toBe('decoded');
  expect(outcome(() => consumeRequest.decode(ackOf(FRAME_FIELDS)))).toBe(TOO_MANY_FIELDS);
});

test.each(NAMES)('%s: the largest frame of the smallest items is refused at once', (name) => {
  const frame = empties(2, MAX_FRAME_BYTES / 2);
  const from = performance.now();
  expect(outcome(() => CODECS[name].decode(frame))).toBe(TOO_MANY_ITEMS);
  expect(performance.now() - from).toBeLessThan(1_000); // a few ms; all of them would take seconds
});
