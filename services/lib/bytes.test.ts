import fc from 'fast-check';
import protobuf from 'protobufjs';
import { describe, expect, test } from 'vitest';

import { BYTES, FIXED32, FIXED64, ProtoReader, ProtoWriter, VARINT, varintSize } from './bytes.ts';
import { hasCode } from './errors.ts';

const safe = fc.oneof(
  fc.maxSafeNat(),
  fc.nat(300),
  fc.nat(52).map((bits) => 2 ** bits),
  fc.nat(52).map((bits) => 2 ** bits - 1),
);
const uint64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
const MIN_SINT = -(2 ** 52);

function written(write: (writer: ProtoWriter) => void): Buffer {
  const writer = new ProtoWriter(1); // has to grow
  write(writer);
  return writer.finish();
}

/** A reader at the first field of what was written. */
function reading(write: (writer: ProtoWriter) => void): ProtoReader {
  const reader = new ProtoReader(written(write));
  expect(reader.next()).toBe(true);
  return reader;
}

function violation(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    if (hasCode(error, 'PROTOCOL_VIOLATION')) return error.message;
    throw error;
  }
  return 'nothing was thrown';
}

/** What a text field with these bytes reads as. */
function textOf(bytes: Buffer): string {
  const writer = new ProtoWriter();
  writer.bytes(1, bytes);
  const reader = new ProtoReader(writer.finish());
  reader.next();
  return reader.text();
}

describe('fields come back', () => {
  test('integers', () => {
    fc.assert(
      fc.property(safe, fc.integer({ min: 1, max: 536_870_911 }), (value, field) => {
        const reader = reading((writer) => writer.varint(field, value));
        expect([reader.field, reader.wireType, reader.varint(), reader.next()]).toEqual([field, VARINT, value, false]);
        expect(written((writer) => writer.rawVarint(value)).length).toBe(varintSize(value));
      }),
    );
  });

  test('64-bit integers, signed and not', () => {
    fc.assert(
      fc.property(uint64, safe, fc.boolean(), (wide, value, negative) => {
        const signed = negative ? -value : value;
        expect(reading((writer) => writer.bigint(1, wide)).bigint()).toBe(wide);
        expect(reading((writer) => writer.int64(1, signed)).int64() + 0).toBe(signed + 0);
        const half = Math.trunc(signed / 2);
        expect(reading((writer) => writer.sint64(1, half)).sint64() + 0).toBe(half + 0);
      }),
    );
    expect(reading((writer) => writer.sint64(1, MIN_SINT)).sint64()).toBe(MIN_SINT);
    expect(reading((writer) => writer.int64(1, -1)).int64()).toBe(-1);
  });

  test('strings, bytes in parts, fixed32, bools', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', maxLength: 200 }),
        fc.array(fc.uint8Array({ maxLength: 100 })),
        fc.integer({ min: 0, max: 4_294_967_295 }),
        fc.boolean(),
        (text, parts, fixed, flag) => {
          const reader = reading((writer) => {
            writer.string(1, text);
            writer.bytes(2, ...parts);
            writer.fixed32(3, fixed);
            writer.varint(4, flag ? 1 : 0);
          });
          expect(reader.string()).toBe(text);
          reader.next();
          expect(reader.bytes().equals(Buffer.concat(parts))).toBe(true);
          reader.next();
          expect(reader.fixed32()).toBe(fixed);
          reader.next();
          expect([reader.bool(), reader.next(), reader.done]).toEqual([flag, false, true]);
        },
      ),
    );
  });

  test('messages of any length, nested', () => {
    fc.assert(
      fc.property(fc.constantFrom(0, 1, 126, 127, 128, 129, 16_383, 16_384, 20_000), (length) => {
        const content = Buffer.alloc(length, 7);
        const reader = reading((writer) => {
          writer.message(1, (outer) => outer.message(2, (inner) => inner.raw(content)));
          writer.item(3, length, (item, value) => item.varint(1, value));
        });
        const outer = reader.message();
        expect(outer.next()).toBe(true);
        expect([outer.field, outer.bytes().equals(content), outer.next()]).toEqual([2, true, false]);
        expect(reader.next()).toBe(true);
        const item = reader.message();
        expect([item.next(), item.varint(), reader.next()]).toEqual([true, length, false]);
      }),
    );
  });

  test('repeated integers, packed or not', () => {
    fc.assert(
      fc.property(fc.array(safe), fc.array(safe), (packed, single) => {
        const reader = new ProtoReader(
          written((writer) => {
            writer.packed(1, packed);
            for (const value of single) writer.varint(1, value);
          }),
        );
        const values: number[] = [];
        while (reader.next()) reader.packed(values);
        expect(values).toEqual([...packed, ...single]);
      }),
    );
  });
});

describe('against protobufjs', () => {
  const type = protobuf
    .parse(
      `syntax = "proto3"; message All {
        uint64 uint64 = 1; int64 int64 = 2; sint64 sint64 = 3; fixed32 fixed32 = 4;
        bool bool = 5; bytes bytes = 6; string string = 7; repeated uint64 many = 8;
      }`,
    )
    .root.resolveAll()
    .lookupType('All');

  test('the same bytes for the same values', () => {
    fc.assert(
      fc.property(
        safe,
        fc.integer(),
        fc.string({ unit: 'grapheme' }),
        fc.array(safe, { minLength: 1 }),
        (value, small, text, many) => {
          const ours = written((writer) => {
            writer.varint(1, value);
            writer.int64(2, -value);
            writer.sint64(3, small);
            writer.fixed32(4, small >>> 0);
            writer.varint(5, 1);
            writer.bytes(6, Buffer.from(text));
            writer.string(7, text);
            writer.packed(8, many);
          });
          const object = { uint64: value, int64: -value, sint64: small, fixed32: small >>> 0, bool: true };
          const rest = { bytes: Buffer.from(text), string: text, many };
          expect(ours.equals(type.encode(type.fromObject({ ...object, ...rest })).finish())).toBe(true);
        },
      ),
    );
  });
});

describe('what is malformed is a violation that says where', () => {
  test.each([
    ['80', (reader: ProtoReader) => reader.next(), 'an unexpected end at byte 1'],
    ['00', (reader: ProtoReader) => reader.next(), 'an illegal field number at byte 1'],
    ['0880', (reader: ProtoReader) => reader.next() && reader.varint(), 'an unexpected end at byte 2'],
    [
      '0880808080808080808080',
      (reader: ProtoReader) => reader.next() && reader.bool(),
      'a varint of more than ten bytes',
    ],
    [
      '0880808080808080808080',
      (reader: ProtoReader) => reader.next() && reader.bigint(),
      'a varint of more than ten bytes',
    ],
    [
      '0880808080808080808080',
      (reader: ProtoReader) => reader.next() && reader.varint(),
      'a varint of more than ten bytes',
    ],
    ['0880808080808080 10', (reader: ProtoReader) => reader.next() && reader.varint(), 'a number above 2^53-1'],
    ['0880808080808080 10', (reader: ProtoReader) => reader.next() && reader.int64(), 'a number beyond 2^53-1'],
    ['0805', (reader: ProtoReader) => reader.next() && reader.varintUpTo(4), '5 for field 1, which takes at most 4'],
    ['0805', (reader: ProtoReader) => reader.next() && reader.bytes(), 'wire type 0 for field 1'],
    ['0a0300', (reader: ProtoReader) => reader.next() && reader.bytes(), 'an unexpected end'],
    ['0a0300', (reader: ProtoReader) => reader.next() && reader.message(), 'an unexpected end'],
    ['0d0000', (reader: ProtoReader) => reader.next() && reader.fixed32(), 'an unexpected end'],
    ['0b', (reader: ProtoReader) => reader.next() && reader.skip(), 'wire type 3'],
  ])('%s', (hex, read, what) => {
    const reader = new ProtoReader(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
    expect(violation(() => read(reader))).toContain(`malformed protobuf: ${what}`);
  });

  test('a name that is not UTF-8; the replacement character itself is a character', () => {
    for (const bytes of [[0xc3, 0x28], [0xff], [0xed, 0xa0, 0x80], [0xef, 0xbf, 0xbd, 0x80]]) {
      expect(() => textOf(Buffer.from(bytes))).toThrow(/not UTF-8 in field 1/);
    }
    for (const text of ['', 'ü☃\u{1f600}', 'a\u{fffd}b']) expect(textOf(Buffer.from(text))).toBe(text);
  });

  test('every field that is cut short cannot be passed over', () => {
    const whole = [`08ffff01`, `09${'00'.repeat(8)}`, `0a03616263`, `0d00000000`];
    for (const hex of whole) {
      const bytes = Buffer.from(hex, 'hex');
      const skip = (length: number): void => {
        const reader = new ProtoReader(bytes, 0, length);
        reader.next();
        reader.skip();
        expect(reader.position).toBe(length);
      };
      skip(bytes.length);
      for (let length = 1; length < bytes.length; length++)
        expect(violation(() => skip(length))).toContain('an unexpected end');
    }
    expect([VARINT, FIXED64, BYTES, FIXED32]).toEqual([0, 1, 2, 5]);
  });

  test('a reader of a part does not look behind its end', () => {
    const bytes = Buffer.from([0x08, 0x80, 0x01]);
    const reader = new ProtoReader(bytes, 0, 2);
    reader.next();
    expect(violation(() => reader.varint())).toContain('an unexpected end');
  });
});
