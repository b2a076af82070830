import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LineSplitter } from './line-splitter.ts';

function linesOf(chunks: readonly Buffer[], longestBytes = 1_000): Buffer[] {
  const splitter = new LineSplitter(longestBytes);
  const lines: Buffer[] = [];
  for (const chunk of chunks) lines.push(...splitter.split(chunk));
  const last = splitter.end();
  if (last !== undefined) lines.push(last);
  return lines;
}

/** A dumb twin: cuts the whole input at once. */
function expected(input: Buffer): string[] {
  const parts = input.toString('latin1').split('\n');
  if (parts.at(-1) === '') parts.pop();
  return parts;
}

describe('LineSplitter', () => {
  test('cuts at LF alone and keeps CR, NUL, empty lines and bytes that are no UTF-8', () => {
    const input = Buffer.from('a\r\n\n\0b\n\xff\xfe\x85\x0b\x0c\nlast', 'latin1');
    const lines = linesOf([input]).map((line) => line.toString('latin1'));
    expect(lines).toEqual(['a\r', '', '\0b', '\xff\xfe\x85\x0b\x0c', 'last']);
  });

  test('an empty input has no line, a lone LF has one', () => {
    expect(linesOf([])).toEqual([]);
    expect(linesOf([Buffer.from('\n')])).toEqual([Buffer.alloc(0)]);
  });

  test('gives the same lines however the input is cut into chunks', () => {
    const byte = fc.oneof(fc.constant(10), fc.integer({ min: 0, max: 255 }));
    fc.assert(
      fc.property(fc.array(fc.array(byte, { maxLength: 12 }), { maxLength: 12 }), (pieces) => {
        const chunks = pieces.map((piece) => Buffer.from(piece));
        const lines = linesOf(chunks).map((line) => line.toString('latin1'));
        expect(lines).toEqual(expected(Buffer.concat(chunks)));
      }),
    );
  });

  test('a line at the limit passes, one above it is refused before it is held', () => {
    expect(linesOf([Buffer.alloc(5, 'x'), Buffer.from('yyyyy\nz')], 10)).toHaveLength(2);
    expect(() => linesOf([Buffer.from('ok\n'), Buffer.alloc(6), Buffer.alloc(5)], 10)).toThrow(
      'line 1 of the input (counted from 0) is longer than 10 bytes',
    );
  });
});
