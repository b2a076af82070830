import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { SequenceId } from '../../lib/ids.ts';
import { InFlight } from './in-flight.ts';

interface Batch {
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
}

function batch(first: number, last = first): Batch {
  return { firstSequenceId: BigInt(first) as SequenceId, lastSequenceId: BigInt(last) as SequenceId };
}

function seq(value: number): SequenceId {
  return BigInt(value) as SequenceId;
}

describe('the window of a producer', () => {
  test('gives batches to the stream in order, and settles them in order', () => {
    const window = new InFlight<Batch>();
    for (let i = 0; i < 3; i++) window.push(batch(i));
    for (let i = 0; i < 2; i++) {
      expect(window.next?.firstSequenceId).toBe(seq(i));
      window.sent();
    }
    expect([window.size, window.awaitsReceipts]).toEqual([3, true]);
    expect(window.due(seq(0))?.firstSequenceId).toBe(seq(0));
    window.settle();
    window.due(seq(1));
    window.settle();
    expect([window.size, window.awaitsReceipts, window.next?.firstSequenceId]).toEqual([1, false, seq(2)]);
  });

  test('a receipt that is not due is refused', () => {
    const window = new InFlight<Batch>();
    window.push(batch(0));
    expect(() => window.due(seq(0))).toThrow(/answers no batch/);
    window.sent();
    expect(() => window.due(seq(1))).toThrow(/came where 0 was due/);
  });

  test('what is given up keeps its place while its receipt is outstanding, and is never sent again', () => {
    const window = new InFlight<Batch>();
    for (let i = 0; i < 3; i++) window.push(batch(i));
    window.sent();
    expect(window.abandon().map((b) => b.firstSequenceId)).toEqual([0n, 1n, 2n]);
    expect([window.size, window.oldest]).toEqual([0, undefined]);
    window.push(batch(3));
    expect(window.next?.firstSequenceId).toBe(3n);
    window.sent();
    expect(window.due(seq(0))).toBeUndefined();
    window.settle();
    expect(window.due(seq(3))?.firstSequenceId).toBe(3n);
    window.restart();
    expect(window.next?.firstSequenceId).toBe(3n);
  });

  test('batches that lie on both sides of a watermark are cut there', () => {
    const window = new InFlight<Batch>();
    window.push(batch(0, 4));
    window.push(batch(5, 9));
    window.push(batch(10, 14));
    window.cutAt(seq(6), (whole) => [
      { ...whole, lastSequenceId: seq(6) },
      { ...whole, firstSequenceId: seq(7) },
    ]);
    const sent: string[] = [];
    for (let next = window.next; next !== undefined; next = window.next) {
      sent.push(`${next.firstSequenceId}-${next.lastSequenceId}`);
      window.sent();
    }
    expect(sent).toEqual(['0-4', '5-6', '7-9', '10-14']);
    expect(window.size).toBe(4);
  });

  test('any run of sends, receipts, losses and give-ups: nothing is lost, doubled or out of order', () => {
    const step = fc.constantFrom('push', 'push', 'send', 'send', 'store', 'receipt', 'lose', 'abandon');
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const window = new InFlight<Batch>();
        const model = new Model();
        for (const each of [
          ...steps,
          'lose',
          ...Array.from({ length: 300 }, () => ['send', 'store', 'receipt']).flat(),
        ]) {
          model.step(window, each);
        }
        expect(window.size).toBe(0);
        const kept = model.stored.filter((i) => !model.givenUp.has(i));
        expect(kept).toEqual([...Array(model.pushed).keys()].filter((i) => !model.givenUp.has(i)));
        expect(model.stored).toEqual(model.stored.toSorted((a, b) => a - b));
      }),
      { numRuns: 300 },
    );
  });
});

/** A stream, and a broker that deduplicates behind it. */
class Model {
  pushed = 0;
  readonly givenUp = new Set<number>();
  readonly stored: number[] = [];
  #underWay: number[] = [];
  #receipts: number[] = [];

  step(window: InFlight<Batch>, name: string): void {
    switch (name) {
      case 'push':
        window.push(batch(this.pushed++));
        break;
      case 'send': {
        const { next } = window;
        if (next === undefined) return;
        this.#underWay.push(Number(next.firstSequenceId));
        window.sent();
        break;
      }
      case 'store': {
        const first = this.#underWay.shift();
        if (first === undefined) return;
        if (first > (this.stored.at(-1) ?? -1)) this.stored.push(first);
        this.#receipts.push(first);
        break;
      }
      case 'receipt': {
        const first = this.#receipts.shift();
        if (first === undefined) return;
        window.due(seq(first));
        window.settle();
        break;
      }
      case 'lose':
        this.#underWay = [];
        this.#receipts = [];
        window.restart();
        break;
      default:
        for (const each of window.abandon()) this.givenUp.add(Number(each.firstSequenceId));
    }
  }
}
