import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { EntryId, LedgerId, MessageIndex } from '../../lib/ids.ts';
import { crc32c } from '../../lib/crc32c.ts';
import { decodeBlock } from '../../wire/block.ts';
import type { OpenProducer, PublishBatch, PublishRequest, PublishResponse, Receipt } from '../../wire/frames.ts';
import { publishRequest } from '../../wire/publish-codec.ts';
import type { FakeBroker, FakeTopic } from './fake-broker.ts';

interface Open {
  readonly topic: FakeTopic;
  readonly name: string;
  aborted: boolean;
  /** Batches that are neither stored nor refused. */
  owed: number;
}

/** A publish stream of the fake broker. */
export class FakePublishStream {
  readonly #broker: FakeBroker;
  readonly #call: ServerDuplexStream<Buffer, PublishResponse>;
  readonly #producers = new Map<number, Open>();
  /** Batches that are neither stored nor refused: as with the real broker, the stream does not end before they are. */
  #owed = 0;
  #items: number;
  #bytes: number;

  constructor(broker: FakeBroker, call: ServerDuplexStream<Buffer, PublishResponse>) {
    this.#broker = broker;
    this.#call = call;
    this.#items = broker.limits.publishItems;
    this.#bytes = broker.limits.publishBytes;
    call.on('data', (bytes: Buffer) => {
      if (bytes.length > broker.limits.maxFrameBytes) broker.violated(`a frame of ${bytes.length} bytes`);
      this.#frame(publishRequest.decode(bytes));
    });
    call.on('end', () => {
      if (this.#owed === 0) call.end();
    });
    call.on('error', () => {});
  }

  /** Sends a frame of the test's making. */
  send(frame: PublishResponse): void {
    this.#call.write(frame);
  }

  /** Gives credit out of turn. */
  grant(items: number, bytes: number): void {
    this.#items += items;
    this.#bytes += bytes;
    this.send({ credit: { items, bytes } });
  }

  /** Closes every producer of the stream. */
  closeProducers(code: string, retryable: boolean): void {
    const error = { code, message: 'closed by the test', retryable, details: {} };
    const closed = [...this.#producers.keys()].map((producer) => ({ producer, error }));
    for (const { name, topic } of this.#producers.values()) topic.producers.delete(name);
    this.#producers.clear();
    this.send({ closed });
  }

  #frame(frame: PublishRequest): void {
    if (frame.hello !== undefined) {
      this.send({ hello: this.#broker.hello(this.#items, this.#bytes) });
    }
    for (const open of frame.opens ?? []) this.#open(open);
    for (const batch of frame.batches ?? []) this.#batch(batch);
    for (const { producer } of frame.closes ?? []) {
      const open = this.#producers.get(producer);
      this.#producers.delete(producer);
      if (open === undefined) continue;
      open.topic.producers.delete(open.name);
      if (open.owed === 0) this.send({ closed: [{ producer }] });
    }
  }

  #open(open: OpenProducer): void {
    const { producer, instance } = open;
    const topic = this.#broker.topic(open.topic);
    const refusal = this.#broker.hooks.open(open);
    const name = open.name === '' ? this.#broker.makeName() : open.name;
    const holder = topic.producers.get(name);
    const busy = holder !== undefined && holder !== instance.toString('hex');
    if (refusal !== undefined || busy) {
      const error = { message: 'refused', details: {}, ...(refusal ?? { code: 'PRODUCER_BUSY', retryable: true }) };
      this.send({ opened: [{ producer, error, name: '', epoch: 0 }] });
      return;
    }
    topic.producers.set(name, instance.toString('hex'));
    this.#producers.set(producer, { topic, name, aborted: false, owed: 0 });
    const lastSequenceId = topic.watermarks.get(name);
    this.send({ opened: [{ producer, name, epoch: 0, ...(lastSequenceId === undefined ? {} : { lastSequenceId }) }] });
  }

  #batch(batch: PublishBatch): void {
    const bytes = batch.block.length;
    this.#items--;
    this.#bytes -= bytes;
    if (this.#items < 0 || this.#bytes < 0) this.#broker.violated('credit for batches overdrawn');
    if (crc32c(batch.block) !== batch.crc32c) this.#broker.violated('a block does not match its checksum');
    const open = this.#producers.get(batch.producer);
    const receipt = open === undefined ? undefined : this.#receipt(open, batch);
    if (receipt === 'ignored') return;
    this.#items++;
    this.#bytes += bytes;
    this.send({ receipts: receipt === undefined ? [] : [receipt], credit: { items: 1, bytes } });
  }

  #receipt(open: Open, batch: PublishBatch): Receipt | 'ignored' {
    if (open.aborted) return refusedReceipt(batch, 'BATCH_ABORTED', true);
    const fate = this.#broker.hooks.batch(batch, open.topic);
    if (fate === 'ignore') {
      open.owed++;
      this.#owed++;
      return 'ignored';
    }
    if (fate === 'storeSilently') {
      open.topic.store(batch);
      return 'ignored';
    }
    if (fate === 'store') {
      const receipt = open.topic.store(batch);
      if (receipt.error !== undefined) open.aborted = true;
      return receipt;
    }
    const alone = ['INVALID_ARGUMENT', 'MESSAGE_TOO_LARGE'].includes(fate.refuse);
    if (!alone) open.aborted = true;
    return refusedReceipt(batch, fate.refuse, fate.retryable);
  }
}

function refusedReceipt(batch: PublishBatch, code: string, retryable: boolean): Receipt {
  const { lastSequenceId } = decodeBlock(batch.block);
  const nowhere = { ledgerId: 0 as LedgerId, entryId: 0 as EntryId, index: 0 as MessageIndex, count: 0 };
  const error = { code, message: `refused by the test: ${code}`, retryable, details: {} };
  return { producer: batch.producer, lastSequenceId, error, ...nowhere, duplicate: false };
}
