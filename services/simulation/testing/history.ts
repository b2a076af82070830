/** What clients were told, and what has to follow from it. */
import type { PublishResult } from '../../broker/topic/publisher.ts';
import type { LogEntry } from '../../broker/topic/log-entry.ts';
import type { SequenceId } from '../../lib/ids.ts';
import { decodeMessages } from '../../wire/block.ts';
import type { PublishBatch } from '../../wire/frames.ts';

/** A batch of a producer. */
export interface Sent {
  readonly producer: string;
  readonly first: number;
  readonly count: number;
  readonly batch: PublishBatch;
  /** As it was confirmed. */
  place: Pick<PublishResult, 'ledgerId' | 'entryId' | 'index' | 'count'> | undefined;
}

export function lineOf(producer: string, sequence: number): string {
  return `${producer}/${sequence};`;
}

/** The messages of an entry, without their padding. */
export function linesOf(entry: LogEntry): string[] {
  return decodeMessages(entry.block).messages.map(({ payload }) => {
    const text = payload.toString();
    return text.slice(0, text.indexOf(';') + 1);
  });
}

/** A subscription as its clients know it. */
export class SubscriptionModel {
  readonly name: string;
  /** Acknowledged for certain: these must not be delivered. */
  acked: Set<number> = new Set();
  /** Perhaps acknowledged: only these need not be delivered. */
  tried: Set<number> = new Set();

  constructor(name: string) {
    this.name = name;
  }

  /** It may be moved to `index`, now or later. */
  mayMove(index: number): void {
    this.acked = new Set([...this.acked].filter((one) => one < index));
    for (let one = 0; one < index; one++) this.tried.add(one);
  }

  /** It was moved to `index`; acknowledgments of `racing` may have come behind that. */
  moved(index: number, racing: ReadonlySet<number>): void {
    this.acked = new Set(Array.from({ length: index }, (_, one) => one));
    this.tried = new Set([...this.acked, ...racing]);
  }
}

/** How much happened: a run that did little proves little. */
export interface Counts {
  confirmed: number;
  duplicates: number;
  acks: number;
  seeks: number;
  deliveries: number;
}

export class History {
  readonly counts: Counts = { confirmed: 0, duplicates: 0, acks: 0, seeks: 0, deliveries: 0 };
  readonly #violation: (text: string) => void;
  readonly #sent = new Map<string, Sent>();
  /** What some consumer was given under an index. */
  readonly #seen = new Map<number, string>();

  constructor(violation: (text: string) => void) {
    this.#violation = violation;
  }

  violation(text: string): void {
    this.#violation(text);
  }

  sends(sent: Sent): void {
    for (let i = 0; i < sent.count; i++) this.#sent.set(lineOf(sent.producer, sent.first + i), sent);
  }

  /** A producer was told that its batch is stored. */
  confirmed(sent: Sent, result: PublishResult): void {
    const { ledgerId, entryId, index, count, duplicate } = result;
    const name = `${sent.producer}/${sent.first}`;
    if (result.lastSequenceId !== (BigInt(sent.first + sent.count - 1) as SequenceId)) {
      this.#violation(`${name} got the receipt of ${result.lastSequenceId}`);
    }
    if (duplicate) this.counts.duplicates++;
    if (count !== sent.count) this.#violation(`${name} was confirmed with ${count} messages, not ${sent.count}`);
    const before = sent.place;
    const place = { ledgerId, entryId, index, count };
    if (before === undefined) {
      sent.place = place;
      this.counts.confirmed++;
      return;
    }
    const same = before.ledgerId === ledgerId && before.entryId === entryId && before.index === index;
    if (!same || !duplicate) this.#violation(`${name} was confirmed twice: ${show(before)} and ${show(place)}`);
  }

  /** A consumer, or a reader, was given an entry. */
  delivered(entry: LogEntry): void {
    this.counts.deliveries++;
    for (const [i, line] of linesOf(entry).entries()) {
      const index = entry.index + i;
      const before = this.#seen.get(index);
      if (before !== undefined && before !== line) this.#violation(`index ${index} was ${before} and is ${line}`);
      this.#seen.set(index, line);
    }
  }

  /** The whole log, as it is in the end. */
  check(log: readonly LogEntry[]): void {
    let [end, time] = [0, 0];
    const last = new Map<string, number>();
    const places = new Map<string, LogEntry>();
    for (const entry of log) {
      if (entry.index !== end) this.#violation(`behind index ${end} comes an entry with ${entry.index}`);
      if (entry.appendTime < time) this.#violation(`index ${entry.index} is older than the one before`);
      end = entry.index + entry.count;
      time = entry.appendTime;
      this.delivered(entry);
      for (const line of linesOf(entry)) {
        const sent = this.#sent.get(line);
        if (sent === undefined) this.#violation(`${line} was never sent`);
        if (places.has(line)) this.#violation(`${line} is there twice`);
        places.set(line, entry);
        const [producer = '', sequence = ''] = line.split('/');
        if (Number.parseInt(sequence) <= (last.get(producer) ?? -1)) this.#violation(`${line} comes too late`);
        last.set(producer, Number.parseInt(sequence));
      }
    }
    for (const index of this.#seen.keys())
      if (index >= end) this.#violation(`index ${index} was delivered and is gone`);
    for (const [line, sent] of this.#sent) {
      const entry = places.get(line);
      if (sent.place === undefined) continue;
      const found =
        entry !== undefined && entry.ledgerId === sent.place.ledgerId && entry.entryId === sent.place.entryId;
      if (!found || entry.index !== sent.place.index) {
        this.#violation(`${line}, confirmed as ${show(sent.place)}, is ${entry === undefined ? 'lost' : show(entry)}`);
      }
    }
  }
}

function show({ ledgerId, entryId, index }: Pick<PublishResult, 'ledgerId' | 'entryId' | 'index'>): string {
  return `${ledgerId}:${entryId} (index ${index})`;
}
