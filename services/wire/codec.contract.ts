/** What every frame codec has to do: speak exactly the wire format of the `.proto`, held against protobufjs. */
import { Long } from '@grpc/proto-loader';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { describe, expect, test } from 'vitest';

import { PiecedMessage } from '../lib/bytes.ts';
import { hasCode } from '../lib/errors.ts';
import type { EntryId, LedgerId, MessageIndex, SequenceId } from '../lib/ids.ts';
import type { Codec } from './codec.ts';
import type { Credit, ClientHello, ServerHello, WireError } from './frames.ts';
import { protoDir } from './loader.ts';

const { Reader, Writer } = protobuf;

/** The message of this name, by protobufjs. */
export function referenceType(file: string, name: string): protobuf.Type {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) => `${protoDir}/${target}`;
  return root.loadSync(file).lookupType(name);
}

// Values over the full ranges. fast-check looks at their ends first.
export const uint32: fc.Arbitrary<number> = fc.integer({ min: 0, max: 4_294_967_295 });
export const safe: fc.Arbitrary<number> = fc.oneof(fc.maxSafeNat(), fc.nat(200), fc.nat(20_000));
export const ledgerIds: fc.Arbitrary<LedgerId> = safe as fc.Arbitrary<LedgerId>;
export const entryIds: fc.Arbitrary<EntryId> = safe as fc.Arbitrary<EntryId>;
export const entryIdsOrNone: fc.Arbitrary<EntryId> = fc.oneof(fc.constant(-1), safe) as fc.Arbitrary<EntryId>;
export const indexes: fc.Arbitrary<MessageIndex> = safe as fc.Arbitrary<MessageIndex>;
export const sequenceIds: fc.Arbitrary<SequenceId> = fc.bigInt({
  min: 0n,
  max: (1n << 64n) - 1n,
}) as fc.Arbitrary<SequenceId>;
export const text: fc.Arbitrary<string> = fc.string({ unit: 'grapheme', maxLength: 20 });
export const bytes: fc.Arbitrary<Buffer> = fc
  .oneof(
    { arbitrary: fc.uint8Array({ maxLength: 40 }), weight: 4 },
    { arbitrary: fc.uint8Array({ minLength: 120, maxLength: 300 }), weight: 4 },
    { arbitrary: fc.constantFrom(8_191, 8_192, 20_000).map((length) => Buffer.alloc(length, length)), weight: 1 },
  )
  .map((array) => Buffer.from(array));

export const errors: fc.Arbitrary<WireError> = fc.record({
  code: text,
  message: text,
  retryable: fc.boolean(),
  details: fc.dictionary(
    text.filter((key) => key !== '__proto__'),
    text,
    { maxKeys: 3 },
  ),
});
export const credits: fc.Arbitrary<Credit> = fc.record({ items: uint32, bytes: safe });
export const clientHellos: fc.Arbitrary<ClientHello> = fc.record({
  protocolVersion: fc.integer({ min: 1, max: 4_294_967_295 }),
  features: fc.array(text, { maxLength: 3 }),
  client: text,
});
export const serverHellos: fc.Arbitrary<ServerHello> = fc.record(
  {
    protocolVersion: uint32,
    features: fc.array(text, { maxLength: 3 }),
    server: text,
    maxMessageBytes: uint32,
    maxFrameBytes: uint32,
    credit: credits,
    instance: bytes.filter((array) => array.length > 0),
  },
  { requiredKeys: ['protocolVersion', 'features', 'server', 'maxMessageBytes', 'maxFrameBytes'] },
);

/** A frame as an object that protobufjs takes. */
function toReference(value: unknown): unknown {
  if (typeof value === 'bigint') return Long.fromString(value.toString(), true);
  if (value === 'exclusive') return 0;
  if (Array.isArray(value)) return value.map(toReference);
  if (value === null || typeof value !== 'object' || Buffer.isBuffer(value)) return value;
  const entries: [string, unknown][] = [];
  for (const [name, field] of Object.entries(value as Record<string, unknown>)) {
    if (field === undefined || name === 'payloadBytes') continue;
    if (name === 'payload' && Array.isArray(field)) entries.push([name, Buffer.concat(field as Buffer[])]);
    else if (name === 'unknown') return field;
    else if (name !== 'at') entries.push([name === 'id' ? 'messageId' : name, toReference(field)]);
    else if (field === 'earliest' || field === 'latest') entries.push([field, true]);
  }
  return Object.fromEntries(entries);
}

/** A frame as a decoder gives it: repeated fields are there, payloads in one piece. */
function decoded(value: unknown, repeated: readonly string[] = []): unknown {
  if (Array.isArray(value)) return value.map((item) => decoded(item));
  if (value === null || typeof value !== 'object' || Buffer.isBuffer(value)) return value;
  const entries = Object.entries(value).map(([name, field]): [string, unknown] => {
    const pieces = name === 'payload' && Array.isArray(field);
    return [name, pieces ? [Buffer.concat(field as Buffer[])] : decoded(field)];
  });
  const missing = repeated.map((name): [string, unknown] => [name, []]);
  return Object.fromEntries([...missing, ...entries]);
}

interface RawField {
  readonly id: number;
  readonly wireType: number;
  /** Tag and value. */
  readonly bytes: Uint8Array;
  /** The value without tag and length. */
  readonly content: Uint8Array;
}

function fieldsOf(message: Uint8Array): RawField[] {
  const reader = Reader.create(message);
  const fields: RawField[] = [];
  while (reader.pos < reader.len) {
    const start = reader.pos;
    const tag = reader.uint32();
    const from = reader.pos;
    reader.skipType(tag & 7);
    const skipLength = Reader.create(message.subarray(from));
    if ((tag & 7) === 2) skipLength.uint32();
    const content = message.subarray(from + skipLength.pos, reader.pos);
    fields.push({ id: tag >>> 3, wireType: tag & 7, bytes: message.subarray(start, reader.pos), content });
  }
  return fields;
}

/**
 * The same message in another of its many encodings: fields of different numbers in another order, packed fields unpacked,
 * fields that nobody knows in between, scalars preceded by an older value.
 */
export function scramble(type: protobuf.Type, message: Uint8Array, pick: (below: number) => number): Buffer {
  const queues = new Map<number, Uint8Array[]>();
  for (const raw of fieldsOf(message)) {
    const field = type.fieldsById[raw.id];
    const queue = queues.get(raw.id) ?? [];
    queues.set(raw.id, queue);
    field?.resolve();
    const writer = Writer.create();
    if (field?.resolvedType instanceof protobuf.Type) {
      queue.push(
        writer
          .uint32((raw.id << 3) | 2)
          .bytes(scramble(field.resolvedType, raw.content, pick))
          .finish(),
      );
    } else if (field?.repeated && field.type in protobuf.types.packed && raw.wireType === 2 && pick(2) === 0) {
      const numbers = Reader.create(raw.content);
      while (numbers.pos < numbers.len) writer.uint32(raw.id << 3).uint64(numbers.uint64());
      queue.push(writer.finish());
    } else {
      if (field !== undefined && !field.repeated && !field.map && pick(4) === 0) queue.push(raw.bytes);
      queue.push(raw.bytes);
    }
  }
  const parts: Uint8Array[] = [];
  const waiting = [...queues.values()].filter((queue) => queue.length > 0);
  while (waiting.length > 0) {
    if (pick(5) === 0) parts.push(unknownField(pick));
    const at = pick(waiting.length);
    parts.push(waiting[at]?.shift() ?? new Uint8Array());
    if (waiting[at]?.length === 0) waiting.splice(at, 1);
  }
  return Buffer.concat(parts);
}

function unknownField(pick: (below: number) => number): Uint8Array {
  const id = 100 + pick(10_000);
  const writer = Writer.create();
  switch (pick(4)) {
    case 0:
      return writer
        .uint32(id << 3)
        .uint64(Long.MAX_UNSIGNED_VALUE)
        .finish();
    case 1:
      return writer
        .uint32((id << 3) | 1)
        .fixed64(1)
        .finish();
    case 2:
      return writer
        .uint32((id << 3) | 2)
        .bytes(Buffer.alloc(pick(200)))
        .finish();
    default:
      return writer
        .uint32((id << 3) | 5)
        .fixed32(1)
        .finish();
  }
}

/** A source of choices, out of a number that fast-check made. */
export function choices(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 4_294_967_296) * below);
  };
}

/** What became of a decoder: 'decoded', or the code and message of its error. */
export function outcome(decode: () => unknown): string {
  try {
    decode();
    return 'decoded';
  } catch (error) {
    return hasCode(error) ? `${error.code}: ${error.message}` : `thrown: ${String(error)}`;
  }
}

/** What may become of a decoder that is given anything at all. */
export const DECODED_OR_VIOLATION: RegExp = /^(decoded|PROTOCOL_VIOLATION: .+)$/;

/** How a codec is put to the test. */
export interface CodecSubject<T> {
  readonly codec: Codec<T>;
  readonly type: protobuf.Type;
  readonly frames: fc.Arbitrary<T>;
  /** Names of the frame's repeated fields. */
  readonly repeated: readonly string[];
}

export function codecContract<T extends object>(
  name: string,
  { codec, type, frames, repeated }: CodecSubject<T>,
): void {
  const plain = (message: protobuf.Message): unknown =>
    type.toObject(message, { longs: String, defaults: true, bytes: String });
  const encode = (frame: T): Uint8Array =>
    type.encode(type.fromObject(toReference(frame) as Record<string, unknown>)).finish();

  describe(`${name} codec`, { tags: ['contract'] }, () => {
    test('what it encodes, protobufjs reads', () => {
      fc.assert(
        fc.property(frames, (frame) => {
          const expected = type.fromObject(toReference(frame) as Record<string, unknown>);
          expect(plain(type.decode(codec.encode(frame)))).toEqual(plain(type.decode(type.encode(expected).finish())));
        }),
      );
    });

    test('in pieces it is the same', () => {
      fc.assert(
        fc.property(frames, fc.nat(9), (frame, start) => {
          const whole = codec.encode(frame);
          const pieced = codec.encodePieced?.(frame) ?? new PiecedMessage(whole, [], whole.length);
          expect(Buffer.concat(pieced.pieces()).equals(whole)).toBe(true);
          expect([pieced.length, pieced.byteLength]).toEqual([whole.length, whole.length]);
          const target = Buffer.alloc(start + whole.length);
          pieced.copy(target, start);
          expect(target.subarray(start).equals(whole)).toBe(true);
        }),
      );
    });

    test('it encodes as short as protobufjs', () => {
      fc.assert(
        fc.property(frames, (frame) => {
          const canonical = type.encode(type.decode(codec.encode(frame))).finish();
          expect(codec.encode(frame).length).toBeLessThanOrEqual(canonical.length);
        }),
      );
    });

    test('what protobufjs encodes, it decodes', () => {
      fc.assert(
        fc.property(frames, (frame) => {
          expect(codec.decode(Buffer.from(encode(frame)))).toEqual(decoded(frame, repeated));
        }),
      );
    });

    test('fields may come in any order, repeated, unpacked and among unknown ones', () => {
      fc.assert(
        fc.property(frames, fc.nat(), (frame, seed) => {
          const scrambled = scramble(type, encode(frame), choices(seed));
          expect(codec.decode(scrambled)).toEqual(decoded(frame, repeated));
        }),
      );
    });

    test('what is cut short or damaged is a PROTOCOL_VIOLATION, or another frame', () => {
      fc.assert(
        fc.property(frames, fc.nat(), fc.nat(255), (frame, at, byte) => {
          const encoded = codec.encode(frame);
          const cut = encoded.subarray(0, at % (encoded.length + 1));
          expect(outcome(() => codec.decode(cut))).toMatch(DECODED_OR_VIOLATION);
          if (encoded.length > 0) encoded[at % encoded.length] = byte;
          expect(outcome(() => codec.decode(encoded))).toMatch(DECODED_OR_VIOLATION);
        }),
        { numRuns: 500 },
      );
    });

    test('garbage is a PROTOCOL_VIOLATION, or a frame', () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 60 }), (garbage) => {
          expect(outcome(() => codec.decode(Buffer.from(garbage)))).toMatch(DECODED_OR_VIOLATION);
        }),
        { numRuns: 500 },
      );
    });
  });
}
