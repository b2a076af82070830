import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { MessageIndex } from '../../lib/ids.ts';
import { AckState } from './ack-state.ts';
import { type DispatchEffect, Dispatcher, type DispatchEntry, type DispatchEvent } from './dispatcher.ts';

const at = (value: number): MessageIndex => value as MessageIndex;

interface Entry extends DispatchEntry {
  readonly index: MessageIndex;
}
type Effect = DispatchEffect<Entry>;

function entry(index: number, count = 10, bytes = 100): Entry {
  return { index: at(index), count, block: { length: bytes } };
}

function loss(index: number, count: number): DispatchEntry {
  return { ...entry(index, count, 50), lost: true };
}

const MANY = { type: 'flow', messages: 1_000, bytes: 1_000_000 } as const;
const READ_BYTES = 1_000;

/** What is delivered, as text: "10" or "10 skip 3". */
function shown(effects: readonly Effect[]): string[] {
  return effects.map((effect) => {
    if (effect.type === 'read') return `read ${effect.from}`;
    if (effect.type === 'caughtUp') return `caught up ${effect.index}`;
    if (effect.type === 'lost') return `lost ${effect.from} to ${effect.entry.index + effect.entry.count - 1}`;
    return effect.skip === undefined
      ? `${effect.entry.index}`
      : `${effect.entry.index} skip ${effect.skip.toString('hex')}`;
  });
}

function newDispatcher(end: number, readBytes = READ_BYTES, start = 0) {
  const state = new AckState(at(start));
  const dispatcher = new Dispatcher<Entry>(state, at(end), readBytes);
  const step = (event: DispatchEvent<Entry>): string[] => shown(dispatcher.step(event));
  return { state, dispatcher, step };
}

describe('Dispatcher', () => {
  test('reads when it may deliver, delivers in order, reads on, and says when it has caught up', () => {
    const { step } = newDispatcher(30);
    expect(step({ type: 'acked' })).toEqual([]);
    expect(step(MANY)).toEqual(['read 0']);
    expect(step(MANY)).toEqual([]);
    expect(step({ type: 'entries', generation: 0, entries: [entry(0), entry(10)] })).toEqual(['0', '10', 'read 20']);
    expect(step({ type: 'entries', generation: 0, entries: [entry(20)] })).toEqual(['20', 'caught up 30']);
    expect(step(MANY)).toEqual([]);
    expect(step({ type: 'appended', end: at(40) })).toEqual(['read 30']);
    expect(step({ type: 'entries', generation: 0, entries: [entry(30)] })).toEqual(['30', 'caught up 40']);
  });

  test('an empty topic is caught up at once', () => {
    const { step } = newDispatcher(0);
    expect(step({ type: 'flow', messages: 0, bytes: 0 })).toEqual(['caught up 0']);
    expect(step(MANY)).toEqual([]);
  });

  test('either permit runs out, and is overdrawn by one entry at most', () => {
    const { step, dispatcher } = newDispatcher(50);
    step({ type: 'flow', messages: 5, bytes: 1_000 });
    const entries = [entry(0), entry(10), entry(20)];
    expect(step({ type: 'entries', generation: 0, entries })).toEqual(['0']);
    expect(dispatcher.permits).toEqual({ messages: -5, bytes: 900 });
    expect(step({ type: 'flow', messages: 5, bytes: 0 })).toEqual([]);
    expect(step({ type: 'flow', messages: 11, bytes: 0 })).toEqual(['10', '20']);
    expect(step({ type: 'flow', messages: 1_000, bytes: -699 })).toEqual(['read 30']);
    expect(step({ type: 'entries', generation: 0, entries: [entry(30), entry(40)] })).toEqual(['30']);
  });

  test('asks for no more than the permits, and for nothing ahead of them', () => {
    const { dispatcher } = newDispatcher(1_000, 5_000);
    expect(dispatcher.step({ type: 'acked' })).toEqual([]);
    expect(dispatcher.step({ type: 'flow', messages: 50, bytes: 3_000 })).toMatchObject([
      { type: 'read', from: 0, maxBytes: 3_000, maxMessages: 50 },
    ]);
    const entries = [0, 10, 20, 30].map((index) => entry(index, 10, 700));
    expect(dispatcher.step({ type: 'entries', generation: 0, entries })).toMatchObject([
      ...entries.map(() => ({ type: 'deliver' })),
      { type: 'read', from: 40, maxBytes: 200, maxMessages: 10 },
    ]);
  });

  test('is idle when it has permits, and everything up to the end', () => {
    const { step, dispatcher } = newDispatcher(10);
    expect(dispatcher.idle).toBe(false);
    step({ type: 'flow', messages: 15, bytes: 1_000 });
    expect(dispatcher.idle).toBe(false); // it reads
    step({ type: 'entries', generation: 0, entries: [entry(0)] });
    expect(dispatcher.idle).toBe(true);
    step({ type: 'appended', end: at(20) });
    expect(dispatcher.end).toBe(20);
    step({ type: 'entries', generation: 0, entries: [] });
    expect(dispatcher.idle).toBe(true); // nothing was there
    step({ type: 'retry' });
    step({ type: 'entries', generation: 0, entries: [entry(10)] });
    expect(dispatcher.idle).toBe(false); // it has no permits left: a flow wakes it
  });

  test('what is acknowledged is skipped and costs no permits; whole entries of it are not read', () => {
    const { state, step, dispatcher } = newDispatcher(1_000);
    state.acknowledge(at(0), [3, 2, 10, 500]);
    step({ type: 'flow', messages: 100, bytes: 1_000_000 });
    expect(step({ type: 'entries', generation: 0, entries: [entry(0)] })).toEqual(['0 skip 1800', 'read 510']);
    expect(dispatcher.permits.messages).toBe(92);
    // Acknowledged while they are read.
    state.acknowledge(at(0), [510, 10]);
    expect(step({ type: 'entries', generation: 0, entries: [entry(510), entry(520)] })).toEqual(['520', 'read 530']);
    state.acknowledge(at(1_000), []);
    expect(step({ type: 'acked' })).toEqual(['caught up 1000']);
  });

  test('a loss is told in its place, for no permits, when there are some; what is acknowledged of it is left out', () => {
    const { state, dispatcher, step } = newDispatcher(60);
    state.acknowledge(at(0), [20, 5, 40, 10]);
    step({ type: 'flow', messages: 10, bytes: 100 });
    const entries = [entry(0), loss(10, 20), entry(30), loss(40, 10), entry(50)];
    expect(step({ type: 'entries', generation: 0, entries })).toEqual(['0']);
    const { permits } = dispatcher;
    expect(permits.messages).toBe(0);
    expect(step({ type: 'flow', messages: 20, bytes: 1_000 })).toEqual(['lost 10 to 29', '30', '50', 'caught up 60']);
    expect(dispatcher.permits).toEqual({ messages: 0, bytes: permits.bytes + 1_000 - 200 });
    // Acknowledged from its beginning, the rest is told; all of it, nothing.
    const { state: later, step: again } = newDispatcher(30);
    later.acknowledge(at(15), []);
    again(MANY);
    expect(again({ type: 'entries', generation: 0, entries: [loss(10, 20)] })).toEqual([
      'lost 15 to 29',
      'caught up 30',
    ]);
  });

  test('begins within an entry', () => {
    const { step } = newDispatcher(20, READ_BYTES, 13);
    expect(step(MANY)).toEqual(['read 13']);
    expect(step({ type: 'entries', generation: 0, entries: [entry(10)] })).toEqual(['10 skip 0700', 'caught up 20']);
  });

  test('a seek voids permits, what is read and what waits; a stale answer is dropped', () => {
    const { state, step, dispatcher } = newDispatcher(100);
    step({ type: 'flow', messages: 1, bytes: 1_000 });
    expect(step({ type: 'entries', generation: 0, entries: [entry(0), entry(10)] })).toEqual(['0']);
    state.reset(at(50));
    expect(step({ type: 'seek', to: at(50) })).toEqual([]);
    expect(dispatcher.permits).toEqual({ messages: 0, bytes: 0 });
    expect(step(MANY)).toEqual(['read 50']);
    state.reset(at(5));
    expect(step({ type: 'seek', to: at(5) })).toEqual([]);
    expect(step(MANY)).toEqual(['read 5']);
    expect(step({ type: 'entries', generation: 1, entries: [entry(50)] })).toEqual([]);
    expect(step({ type: 'readFailed', generation: 1 })).toEqual([]);
    expect(step({ type: 'entries', generation: 2, entries: [entry(0)] })).toEqual(['0 skip 1f00', 'read 10']);
    state.reset(at(100));
    expect(step({ type: 'seek', to: at(100) })).toEqual(['caught up 100']);
  });

  test('a failed read is tried again when it is asked to, not before', () => {
    const { step } = newDispatcher(20);
    step(MANY);
    expect(step({ type: 'readFailed', generation: 0 })).toEqual([]);
    expect(step(MANY)).toEqual([]);
    expect(step({ type: 'appended', end: at(30) })).toEqual([]);
    expect(step({ type: 'retry' })).toEqual(['read 0']);
  });

  test('an answer without entries is not asked for again at once', () => {
    const { step } = newDispatcher(20);
    step(MANY);
    expect(step({ type: 'entries', generation: 0, entries: [] })).toEqual([]);
    expect(step(MANY)).toEqual([]);
    expect(step({ type: 'appended', end: at(30) })).toEqual(['read 0']);
    // The first ones were trimmed.
    expect(step({ type: 'entries', generation: 0, entries: [entry(10), entry(20)] })).toEqual([
      '10',
      '20',
      'caught up 30',
    ]);
  });

  test('after close nothing happens', () => {
    const { step } = newDispatcher(20);
    step(MANY);
    step({ type: 'close' });
    expect(step({ type: 'entries', generation: 0, entries: [entry(0)] })).toEqual([]);
    expect(step(MANY)).toEqual([]);
  });

  const action = fc.oneof(
    fc.record({ type: fc.constant('flow' as const), messages: fc.nat(40), bytes: fc.nat(400) }),
    fc.record({ type: fc.constant('append' as const), count: fc.integer({ min: 1, max: 9 }) }),
    fc.record({ type: fc.constant('ack' as const), first: fc.nat(120), count: fc.integer({ min: 1, max: 12 }) }),
    fc.record({ type: fc.constant('read' as const), entries: fc.integer({ min: 1, max: 4 }), fails: fc.boolean() }),
    fc.record({ type: fc.constant('seek' as const), to: fc.nat(120) }),
  );

  test('whatever happens: what is not acknowledged is delivered once per seek, in order, and at last all of it', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const topic = new Topic();
        for (const each of actions) topic.act(each);
        topic.finish();
        expect(topic.problems).toEqual([]);
        expect(topic.undelivered()).toEqual([]);
      }),
      { numRuns: 400 },
    );
  });
});

type Action =
  | { readonly type: 'flow'; readonly messages: number; readonly bytes: number }
  | { readonly type: 'append'; readonly count: number }
  | { readonly type: 'ack'; readonly first: number; readonly count: number }
  | { readonly type: 'read'; readonly entries: number; readonly fails: boolean }
  | { readonly type: 'seek'; readonly to: number };

/** A topic with one consumer, and what must hold of it. */
class Topic {
  readonly problems: string[] = [];
  readonly #entries: Entry[] = [];
  readonly #state = new AckState(at(0));
  readonly #dispatcher: Dispatcher<Entry> = new Dispatcher(this.#state, at(0), 200);
  #end = at(0);
  #reads: (Effect & { type: 'read' })[] = [];
  /** Delivered since the last seek. */
  readonly #delivered = new Set<number>();
  #lastDelivered = -1;
  #start = 0;
  #announced = false;

  act(action: Action): void {
    switch (action.type) {
      case 'flow':
        this.#step(action);
        break;
      case 'append':
        this.#entries.push(entry(this.#end, action.count, 10 * action.count));
        this.#end = at(this.#end + action.count);
        this.#announced = false;
        this.#step({ type: 'appended', end: this.#end });
        break;
      case 'ack': {
        const count = Math.min(action.count, this.#end - action.first);
        if (count > 0) this.#state.acknowledge(at(0), [action.first, count]);
        this.#step({ type: 'acked' });
        break;
      }
      case 'read':
        this.#answer(action.entries, action.fails);
        break;
      case 'seek': {
        this.#start = Math.min(action.to, this.#end);
        this.#state.reset(at(this.#start));
        this.#delivered.clear();
        this.#lastDelivered = -1;
        this.#announced = false;
        this.#step({ type: 'seek', to: at(this.#start) });
      }
    }
  }

  #answer(count: number, fails: boolean): void {
    const read = this.#reads.shift();
    if (read === undefined) return;
    const { from, generation } = read;
    if (fails) {
      this.#step({ type: 'readFailed', generation });
      this.#step({ type: 'retry' });
      return;
    }
    const first = this.#entries.findIndex((each) => each.index + each.count > from);
    this.#step({ type: 'entries', generation, entries: this.#entries.slice(first, first + count) });
  }

  #step(event: DispatchEvent<Entry>): void {
    for (const effect of this.#dispatcher.step(event)) {
      if (effect.type === 'read') this.#noteRead(effect);
      else if (effect.type === 'deliver') this.#noteDelivery(effect.entry, effect.skip);
      else if (effect.type === 'caughtUp') this.#noteCaughtUp(effect.index);
    }
  }

  #noteRead(read: Effect & { type: 'read' }): void {
    if (this.#reads.some(({ generation }) => generation === read.generation)) this.problems.push('two reads at once');
    if (read.from >= this.#end) this.problems.push('a read behind the end');
    if (this.#state.isAcked(read.from)) this.problems.push('a read of what is acknowledged');
    this.#reads.push(read);
  }

  #noteDelivery({ index, count }: Entry, skip: Buffer | undefined): void {
    for (let i = 0; i < count; i++) {
      const skipped = (((skip?.[i >> 3] ?? 0) >> (i & 7)) & 1) === 1;
      if (skipped !== this.#state.isAcked(at(index + i)))
        this.problems.push(`message ${index + i} is wrongly skipped or not`);
      if (skipped) continue;
      if (index + i <= this.#lastDelivered) this.problems.push(`message ${index + i} comes again, or too late`);
      this.#lastDelivered = index + i;
      this.#delivered.add(index + i);
    }
  }

  #noteCaughtUp(index: number): void {
    if (this.#announced) this.problems.push('caught up twice');
    this.#announced = true;
    if (index !== this.#end) this.problems.push(`caught up at ${index}, but the end is ${this.#end}`);
    if (this.undelivered().length > 0) this.problems.push('caught up too early');
  }

  finish(): void {
    this.#step({ type: 'flow', messages: 1_000_000, bytes: 1_000_000 });
    while (this.#reads.length > 0) this.#answer(3, false);
    if (!this.#announced) this.problems.push('never caught up');
  }

  undelivered(): number[] {
    const missing: number[] = [];
    for (let n = this.#start; n < this.#end; n++)
      if (!this.#delivered.has(n) && !this.#state.isAcked(at(n))) missing.push(n);
    return missing;
  }
}
