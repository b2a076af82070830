import { expect, test } from 'vitest';
import { ledgerId } from '../lib/ids.ts';
import { AheadBudget } from './ahead-budget.ts';

/** A budget of 10 bytes, asked by the numbers of ledgers for one byte at a time. */
class Subject {
  readonly budget: AheadBudget = new AheadBudget(10);
  readonly held: number[] = [];
  now = 0;

  asks(ledger: number, bytes = 1): boolean {
    const [id, held] = [ledgerId(ledger), this.held[ledger] ?? 0];
    if (!this.budget.allows(id, { held, bytes, now: ++this.now })) return false;
    this.budget.take(id, bytes);
    if (this.budget.taken > 10) throw new Error(`${this.budget.taken} bytes are taken`);
    this.held[ledger] = held + bytes;
    return true;
  }

  uses(ledger: number, bytes = 1): void {
    this.held[ledger] = (this.held[ledger] ?? 0) - bytes;
    this.budget.give(bytes);
  }

  /** Each of so many ledgers uses what it has and asks for up to four bytes, so many times. Returns how often each had something. */
  rounds(ledgers: number, rounds: number): number[] {
    const had = Array.from({ length: ledgers }, () => 0);
    for (let round = 0; round < rounds; round++) {
      for (let ledger = 0; ledger < ledgers; ledger++) {
        if ((this.held[ledger] ?? 0) > 0) {
          had[ledger] = (had[ledger] ?? 0) + 1;
          this.uses(ledger);
        }
        while ((this.held[ledger] ?? 0) < 4 && this.asks(ledger));
      }
    }
    return had;
  }
}

test('as long as there is room nobody waits', () => {
  const subject = new Subject();
  expect(subject.rounds(2, 50)).toEqual([49, 49]);
  expect([subject.held, subject.budget.waiting]).toEqual([[4, 4], 0]);
});

test('what there is is shared out evenly', () => {
  const subject = new Subject();
  subject.rounds(2, 5);
  expect(Math.min(...subject.rounds(5, 50))).toBeGreaterThanOrEqual(48);
  expect(subject.held).toEqual([2, 2, 2, 2, 2]);
});

test('those that are more than there is room for take turns', () => {
  const subject = new Subject();
  const had = subject.rounds(40, 400);
  expect(Math.min(...had)).toBeGreaterThan(70); // of 100, if whose turn it is asked at once
  expect(Math.max(...had) - Math.min(...had)).toBeLessThan(8);
});

test('more than there is at all is never given, nor waited for', () => {
  const subject = new Subject();
  expect([subject.asks(1, 11), subject.budget.waiting, subject.asks(1, 10)]).toEqual([false, 0, true]);
});

test('who waits no more is not waited for', () => {
  const subject = new Subject();
  const { budget } = subject;
  subject.asks(1, 10);
  for (const ledger of [2, 3, 4]) expect(subject.asks(ledger, 5)).toBe(false);
  expect(budget.wish(ledgerId(2))).toBe(5);
  subject.uses(1, 10);
  expect(subject.asks(4, 5)).toBe(false); // what there is is for those before it
  budget.forget(ledgerId(2));
  expect(subject.asks(4, 5)).toBe(true);
  expect(subject.asks(5, 5)).toBe(false);
  budget.forgetUntil(subject.now - 1);
  expect([budget.wish(ledgerId(3)), budget.wish(ledgerId(5)), subject.asks(5, 5)]).toEqual([undefined, 5, true]);
});

test('who has nothing, and has been read for as many bytes as there are for all, is starved', () => {
  const subject = new Subject();
  const { budget } = subject;
  const id = ledgerId(1);
  subject.asks(1);
  subject.asks(2, 9);
  budget.missed(id, 10);
  expect([subject.asks(1), budget.starvedSince(id)]).toEqual([false, undefined]);
  budget.missed(id, 10);
  expect([subject.asks(1), budget.starvedSince(id)]).toEqual([false, undefined]); // it has something
  const { now } = subject;
  subject.held[1] = 0;
  subject.asks(1, 2);
  budget.missed(id, 9);
  expect(budget.starvedSince(id)).toBeUndefined();
  budget.missed(id, 1);
  expect(budget.starvedSince(id)).toBe(now);
  subject.uses(2, 9);
  expect([subject.asks(1, 2), budget.starvedSince(id)]).toEqual([true, undefined]);
});
