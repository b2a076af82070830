/** Clients of a broker's process: a producer that sends again what was not confirmed, and a consumer that acknowledges at random. */
import { ConsumerSession } from '../../broker/server/consumer-session.ts';
import { ProducerSession } from '../../broker/server/producer-session.ts';
import { batch } from '../../broker/testing/broker-world.ts';
import type { PendingRead } from '../../broker/topic/consumer.ts';
import type { LogEntry } from '../../broker/topic/log-entry.ts';
import { isOfBatchAlone, type PublishResult } from '../../broker/topic/publisher.ts';
import type { MagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { BrokerProcess } from './broker-process.ts';
import { type History, lineOf, linesOf, type Sent, type SubscriptionModel } from './history.ts';
import type { World } from './world.ts';

const PADDING = 3_000;
/** Batches that wait for their receipts, at most. */
const WINDOW = 8;
const PLENTY = 1_000_000_000;

interface Line {
  readonly broker: BrokerProcess;
  readonly session: ProducerSession;
  /** What was sent on it and is not answered. */
  readonly waiting: Sent[];
  open: boolean;
}

export class ProducerClient {
  readonly #world: World;
  readonly #history: History;
  readonly #name: string;
  readonly #instance: string;
  #next = 0;
  /** Not confirmed, in order. */
  readonly #unconfirmed: Sent[] = [];
  #newest: Sent | undefined;
  #line: Line | undefined;

  constructor(world: World, history: History, name: string) {
    this.#world = world;
    this.#history = history;
    this.#name = name;
    this.#instance = `instance of ${name}`;
  }

  get idle(): boolean {
    return this.#unconfirmed.length === 0;
  }

  get state(): string {
    return `producer ${this.#name}: ${this.#unconfirmed.length} batches, ${this.#line?.open === true ? 'open' : 'not open'}`;
  }

  /** Connects, where it is not connected. */
  connect(broker: BrokerProcess): void {
    if (this.#line?.broker.alive === false) this.cut();
    if (this.#line !== undefined) return;
    const waiting: Sent[] = [];
    const session = new ProducerSession({
      receipt: (result) => this.#onReceipt(line, result),
      released: () => undefined,
      closed: () => this.#onEnd(line),
      violation: (error) => this.#history.violation(error.message),
    });
    const line: Line = { broker, session, waiting, open: false };
    this.#line = line;
    void this.#open(line);
  }

  async #open(line: Line): Promise<void> {
    const { broker, session } = line;
    try {
      const topic = await broker.topic();
      if (session.gone) return;
      const onClosed = (error: MagnetarError): void => session.end(error);
      const producer = topic.publisher.attach({ name: this.#name, instance: this.#instance, onClosed });
      session.granted(producer);
      await producer.settled();
      if (session.gone) return;
      const newest = this.#newest;
      if (newest !== undefined && (producer.lastSequenceId ?? -1n) < BigInt(newest.first + newest.count - 1)) {
        this.#history.violation(`${this.#name}: the broker knows of ${producer.lastSequenceId} alone`);
      }
      session.opened();
      line.open = true;
      const again = this.#unconfirmed.slice(); // a receipt may come at once
      for (const sent of again) this.#submit(line, sent);
    } catch {
      if (!session.gone) session.drop();
      this.#onEnd(line);
    }
  }

  /** Sends a new batch; sometimes the newest one that was confirmed comes again before. */
  send(): void {
    if (this.#unconfirmed.length >= WINDOW) return;
    const world = this.#world;
    if (this.#newest !== undefined && this.idle && world.chance(0.2)) this.#submit(this.#line, this.#newest);
    const [first, count] = [this.#next, 1 + world.below(4)];
    const lines = Array.from({ length: count }, (_, i) =>
      lineOf(this.#name, first + i).padEnd(world.below(PADDING), '.'),
    );
    const sent: Sent = {
      producer: this.#name,
      first,
      count,
      batch: batch(1, this.#name, first, lines),
      place: undefined,
    };
    this.#next += count;
    this.#history.sends(sent);
    this.#unconfirmed.push(sent);
    this.#submit(this.#line, sent);
  }

  #submit(line: Line | undefined, sent: Sent): void {
    if (line?.open !== true || !line.broker.alive || line.session.gone) return;
    line.waiting.push(sent);
    line.session.publish(sent.batch, 0);
  }

  #onReceipt(line: Line, result: PublishResult): void {
    const sent = line.waiting.shift();
    if (sent === undefined) {
      this.#history.violation(`${this.#name} got a receipt for nothing`);
    } else if (result.error !== undefined) {
      if (isOfBatchAlone(result.error)) this.#history.violation(`${this.#name}: ${result.error.message}`);
      if (this.#line === line) this.cut();
    } else {
      this.#history.confirmed(sent, result);
      if (sent === this.#unconfirmed[0]) this.#newest = this.#unconfirmed.shift();
      else if (sent !== this.#newest) this.#history.violation(`${this.#name} got its receipts out of order`);
    }
  }

  #onEnd(line: Line): void {
    if (this.#line === line) this.#line = undefined;
  }

  /** The connection is lost. */
  cut(): void {
    const line = this.#line;
    this.#line = undefined;
    line?.session.drop();
  }
}

interface Ear {
  readonly broker: BrokerProcess;
  readonly session: ConsumerSession;
  /** Acks that are not confirmed: their ids and what they acknowledge; undefined: a seek has made that void. */
  readonly acks: Map<number, readonly number[] | undefined>;
  /** Indexes that were delivered. */
  readonly got: number[];
  last: number;
  nextAck: number;
  /** What was acknowledged since the seek that is under way; undefined: there is none. */
  racing: Set<number> | undefined;
  /** It deletes the subscription. */
  leaving: boolean;
}

export class ConsumerClient {
  readonly #world: World;
  readonly #history: History;
  readonly #model: SubscriptionModel;
  #ear: Ear | undefined;
  #instances = 0;

  constructor(world: World, history: History, model: SubscriptionModel) {
    this.#world = world;
    this.#history = history;
    this.#model = model;
  }

  /** What the present connection was given. */
  get got(): readonly number[] {
    return this.#ear?.got ?? [];
  }

  /** What the present connection has asked for and was not answered. */
  get underWay(): number {
    return this.#ear?.session.underWay ?? 0;
  }

  connect(broker: BrokerProcess): void {
    if (this.#ear?.broker.alive === false) this.cut();
    if (this.#ear !== undefined) return;
    const session = new ConsumerSession(broker.clock, {
      ackReceipt: (ackId, error) => this.#onAckReceipt(ear, ackId, error),
      ackDone: () => undefined,
      seekDone: (index, result) => this.#onSeekDone(ear, index, result),
      closed: (error) => {
        // Everything was forgotten; it begins anew at the oldest message.
        if (ear.leaving && error === undefined) this.#model.moved(0, new Set());
        this.#onEnd(ear);
      },
    });
    const racing = undefined;
    const ear: Ear = { broker, session, acks: new Map(), got: [], last: -1, nextAck: 1, racing, leaving: false };
    this.#ear = ear;
    void this.#attach(ear);
  }

  async #attach(ear: Ear): Promise<void> {
    const { broker, session } = ear;
    const name = this.#model.name;
    const sink = {
      whenRoom: ({ run, wantedBytes }: PendingRead) =>
        broker.clock.after(this.#world.latency(), () => void run(wantedBytes)),
      deliver: (entry: LogEntry, skip: Buffer | undefined) => this.#onDelivery(ear, entry, skip),
      lost: (_: unknown, from: number) => this.#history.violation(`index ${from} is said to be lost`),
      caughtUp: () => undefined,
      closed: (error: MagnetarError) => session.end(error),
    };
    const instance = `${name} ${this.#instances++}`;
    const start = { at: 'earliest' } as const;
    try {
      const topic = await broker.topic();
      if (session.gone) return;
      const request = { subscription: name, type: 'exclusive', start, name: '', instance, sink } as const;
      const consumer = await topic.consumers.attach(request);
      if (session.gone) {
        consumer.detach();
        return;
      }
      session.opened(consumer);
      session.flow(PLENTY, PLENTY);
    } catch {
      session.drop();
      this.#onEnd(ear);
    }
  }

  #onDelivery(ear: Ear, entry: LogEntry, skip: Buffer | undefined): void {
    this.#history.delivered(entry);
    for (const [i, line] of linesOf(entry).entries()) {
      const index = entry.index + i;
      const skipped = (((skip?.[i >>> 3] ?? 0) >>> (i & 7)) & 1) === 1;
      const where = `subscription ${this.#model.name}: index ${index} (${line})`;
      if (skipped) {
        if (!this.#model.tried.has(index)) this.#history.violation(`${where} is skipped, but nobody acknowledged it`);
        continue;
      }
      if (this.#model.acked.has(index)) this.#history.violation(`${where} was acknowledged and comes again`);
      if (ear.racing === undefined && index <= ear.last) this.#history.violation(`${where} comes behind ${ear.last}`);
      ear.last = index;
      ear.got.push(index);
    }
  }

  /** Acknowledges some of what was delivered: single messages, or everything up to one. */
  ack(): void {
    const ear = this.#ear;
    const world = this.#world;
    const some = ear?.got[world.below(ear.got.length)];
    if (ear === undefined || some === undefined || ear.leaving || !ear.broker.alive) return;
    const cumulative = world.below(4) === 0;
    const count = 1 + world.below(Math.min(3, ear.last + 1 - some));
    const of = cumulative ? { from: 0, to: some + 1 } : { from: some, to: Math.max(some + 1, some + count) };
    const indexes = Array.from({ length: of.to - of.from }, (_, i) => of.from + i);
    for (const index of indexes) {
      this.#model.tried.add(index);
      ear.racing?.add(index);
    }
    const ackId = ear.nextAck++;
    ear.acks.set(ackId, ear.racing === undefined ? indexes : undefined);
    const below = (cumulative ? some + 1 : 0) as MessageIndex;
    ear.session.ack({ consumer: 1, ackId, below, ranges: cumulative ? [] : [of.from, indexes.length] });
  }

  #onAckReceipt(ear: Ear, upTo: number, error: MagnetarError | undefined): void {
    if (error !== undefined) {
      ear.acks.delete(upTo);
      return;
    }
    for (const [ackId, indexes] of ear.acks) {
      if (ackId > upTo) break;
      ear.acks.delete(ackId);
      if (indexes !== undefined) this.#history.counts.acks++;
      for (const index of indexes ?? []) this.#model.acked.add(index);
    }
  }

  /** Moves the subscription to somewhere within what was delivered. */
  seek(): void {
    const ear = this.#ear;
    if (ear === undefined || ear.racing !== undefined || ear.last < 0 || ear.leaving || !ear.broker.alive) return;
    const index = this.#world.below(ear.last + 2);
    for (const ackId of ear.acks.keys()) ear.acks.set(ackId, undefined);
    this.#model.mayMove(index);
    ear.racing = new Set();
    ear.session.seek(index, { at: 'index', index: index as MessageIndex });
  }

  /** Deletes the subscription. */
  unsubscribe(): void {
    const ear = this.#ear;
    if (ear === undefined || ear.racing !== undefined || ear.last < 0 || ear.leaving || !ear.broker.alive) return;
    for (const ackId of ear.acks.keys()) ear.acks.set(ackId, undefined);
    this.#model.mayMove(0);
    ear.leaving = true;
    ear.session.close(true);
  }

  #onSeekDone(ear: Ear, index: number, result: MessageIndex | MagnetarError): void {
    if (typeof result === 'number') {
      this.#model.moved(index, ear.racing ?? new Set());
      this.#history.counts.seeks++;
    }
    ear.racing = undefined;
    ear.last = -1;
    ear.got.length = 0;
    ear.session.flow(PLENTY, PLENTY);
  }

  #onEnd(ear: Ear): void {
    if (this.#ear === ear) this.#ear = undefined;
  }

  cut(): void {
    const ear = this.#ear;
    this.#ear = undefined;
    ear?.session.drop();
  }
}
