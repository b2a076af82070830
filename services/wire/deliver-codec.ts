/** The codec of what a broker sends on the consume stream (`proto/magnetar/v1/broker.proto`). */
import { copiedBytes, ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import type { EntryId, LedgerId, MessageIndex } from '../lib/ids.ts';
import { type PayloadCodec, payloadEncoders } from './codec.ts';
import {
  bytesSize,
  integerSize,
  putBytes,
  putInteger,
  putItems,
  putOptional,
  putString,
  readCredit,
  readEntryId,
  readError,
  readIndex,
  readLedgerId,
  readServerHello,
  SMALL_FRAME_BYTES,
  uint32,
  withHello,
  writeCredit,
  writeError,
  writeServerHello,
} from './common-codec.ts';
import type {
  AckReceipt,
  CaughtUp,
  ConsumerClosed,
  ConsumeResponse,
  Credit,
  Delivery,
  Loss,
  SeekDone,
  ServerHello,
  Subscribed,
  WireError,
} from './frames.ts';

const DELIVERY_OVERHEAD_BYTES = 72; // more than the numbers, tags and lengths of a delivery take
const NOTHING: Buffer = Buffer.alloc(0);

function writeConsumeResponse(frame: ConsumeResponse): ProtoWriter {
  let bytes = SMALL_FRAME_BYTES;
  for (const delivery of frame.deliveries ?? []) {
    bytes += copiedBytes(delivery.block) + copiedBytes(delivery.skip) + DELIVERY_OVERHEAD_BYTES;
  }
  const writer = new ProtoWriter(bytes);
  putOptional(writer, 1, frame.hello, writeServerHello);
  putItems(writer, 2, frame.subscribed, writeSubscribed);
  for (const delivery of frame.deliveries ?? []) writeDelivery(writer, delivery);
  putItems(writer, 4, frame.caughtUp, writeCaughtUp);
  putItems(writer, 5, frame.ackReceipts, writeAckReceipt);
  putItems(writer, 6, frame.seeksDone, writeSeekDone);
  putItems(writer, 7, frame.closed, writeClosed);
  putOptional(writer, 8, frame.credit, writeCredit);
  putItems(writer, 9, frame.losses, writeLoss);
  return writer;
}

/** From server to client. */
export const consumeResponse: PayloadCodec<ConsumeResponse> = {
  ...payloadEncoders(writeConsumeResponse),

  decode(bytes: Buffer): ConsumeResponse {
    const reader = new ProtoReader(bytes);
    let hello: ServerHello | undefined;
    const subscribed: Subscribed[] = [];
    const deliveries: Delivery[] = [];
    const caughtUp: CaughtUp[] = [];
    const ackReceipts: AckReceipt[] = [];
    const seeksDone: SeekDone[] = [];
    const closed: ConsumerClosed[] = [];
    const losses: Loss[] = [];
    let credit: Credit | undefined;
    while (reader.next()) {
      if (reader.field === 1) hello = readServerHello(reader.message());
      else if (reader.field === 2) subscribed.push(readSubscribed(reader.message()));
      else if (reader.field === 3) deliveries.push(readDelivery(reader.message()));
      else if (reader.field === 4) caughtUp.push(readCaughtUp(reader.message()));
      else if (reader.field === 5) ackReceipts.push(readAckReceipt(reader.message()));
      else if (reader.field === 6) seeksDone.push(readSeekDone(reader.message()));
      else if (reader.field === 7) closed.push(readClosed(reader.message()));
      else if (reader.field === 8) credit = readCredit(reader.message());
      else if (reader.field === 9) losses.push(readLoss(reader.message()));
      else reader.skip();
    }
    const frame = { subscribed, deliveries, caughtUp, ackReceipts, seeksDone, closed, losses };
    return hello === undefined && credit === undefined ? frame : withHello(frame, hello, credit);
  },
};

function writeSubscribed(writer: ProtoWriter, subscribed: Subscribed): void {
  putInteger(writer, 1, subscribed.consumer);
  putOptional(writer, 2, subscribed.error, writeError);
  putString(writer, 3, subscribed.name);
  putInteger(writer, 4, subscribed.nextIndex);
  putInteger(writer, 5, subscribed.endIndex);
  putInteger(writer, 6, subscribed.moves);
  putString(writer, 7, subscribed.topicIdentity);
  putString(writer, 8, subscribed.subscriptionIdentity);
}

function readSubscribed(reader: ProtoReader): Subscribed {
  let [consumer, name, nextIndex, endIndex, moves] = [0, '', 0 as MessageIndex, 0 as MessageIndex, 0];
  let [topicIdentity, subscriptionIdentity] = ['', ''];
  let error: WireError | undefined;
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) error = readError(reader.message());
    else if (reader.field === 3) name = reader.string();
    else if (reader.field === 4) nextIndex = readIndex(reader);
    else if (reader.field === 5) endIndex = readIndex(reader);
    else if (reader.field === 6) moves = reader.varint();
    else if (reader.field === 7) topicIdentity = reader.string();
    else if (reader.field === 8) subscriptionIdentity = reader.string();
    else reader.skip();
  }
  const subscribed = { consumer, name, nextIndex, endIndex, moves, topicIdentity, subscriptionIdentity };
  return error === undefined ? subscribed : { ...subscribed, error };
}

function writeDelivery(writer: ProtoWriter, delivery: Delivery): void {
  const size =
    integerSize(delivery.consumer) +
    integerSize(delivery.ledgerId) +
    integerSize(delivery.entryId) +
    integerSize(delivery.index) +
    integerSize(delivery.appendTime) +
    (delivery.crc32c === 0 ? 0 : 5) +
    bytesSize(delivery.skip.length) +
    bytesSize(delivery.block.length) +
    integerSize(delivery.redeliveries);
  writer.messageHeader(3, size);
  putInteger(writer, 1, delivery.consumer);
  putInteger(writer, 2, delivery.ledgerId);
  putInteger(writer, 3, delivery.entryId);
  putInteger(writer, 4, delivery.index);
  putInteger(writer, 5, delivery.appendTime);
  if (delivery.crc32c !== 0) writer.fixed32(6, delivery.crc32c);
  putBytes(writer, 7, delivery.skip);
  putBytes(writer, 8, delivery.block);
  putInteger(writer, 9, delivery.redeliveries);
}

function readDelivery(reader: ProtoReader): Delivery {
  let [consumer, appendTime, crc32c, redeliveries] = [0, 0, 0, 0];
  let [ledgerId, entryId, index] = [0 as LedgerId, 0 as EntryId, 0 as MessageIndex];
  let [skip, block] = [NOTHING, NOTHING];
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) ledgerId = readLedgerId(reader);
    else if (reader.field === 3) entryId = readEntryId(reader);
    else if (reader.field === 4) index = readIndex(reader);
    else if (reader.field === 5) appendTime = reader.varint();
    else if (reader.field === 6) crc32c = reader.fixed32();
    else if (reader.field === 7) skip = reader.bytes();
    else if (reader.field === 8) block = reader.bytes();
    else if (reader.field === 9) redeliveries = uint32(reader);
    else reader.skip();
  }
  return { consumer, ledgerId, entryId, index, appendTime, crc32c, skip, block, redeliveries };
}

function writeLoss(writer: ProtoWriter, loss: Loss): void {
  putInteger(writer, 1, loss.consumer);
  putInteger(writer, 2, loss.firstIndex);
  putInteger(writer, 3, loss.lastIndex);
  putInteger(writer, 4, loss.ledgerId);
  putInteger(writer, 5, loss.firstEntryId);
  if (loss.lastEntryId !== undefined) writer.varint(6, loss.lastEntryId);
  putOptional(writer, 7, loss.error, writeError);
}

function readLoss(reader: ProtoReader): Loss {
  let [consumer, firstIndex, lastIndex] = [0, 0 as MessageIndex, 0 as MessageIndex];
  let [ledgerId, firstEntryId] = [0 as LedgerId, 0 as EntryId];
  let lastEntryId: EntryId | undefined;
  let error: WireError = { code: 'DATA_LOSS', message: 'messages are lost', retryable: false, details: {} };
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) firstIndex = readIndex(reader);
    else if (reader.field === 3) lastIndex = readIndex(reader);
    else if (reader.field === 4) ledgerId = readLedgerId(reader);
    else if (reader.field === 5) firstEntryId = readEntryId(reader);
    else if (reader.field === 6) lastEntryId = readEntryId(reader);
    else if (reader.field === 7) error = readError(reader.message());
    else reader.skip();
  }
  const loss = { consumer, firstIndex, lastIndex, ledgerId, firstEntryId, error };
  return lastEntryId === undefined ? loss : { ...loss, lastEntryId };
}

function writeCaughtUp(writer: ProtoWriter, caughtUp: CaughtUp): void {
  putInteger(writer, 1, caughtUp.consumer);
  putInteger(writer, 2, caughtUp.index);
}

function readCaughtUp(reader: ProtoReader): CaughtUp {
  let [consumer, index] = [0, 0 as MessageIndex];
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) index = readIndex(reader);
    else reader.skip();
  }
  return { consumer, index };
}

function writeAckReceipt(writer: ProtoWriter, receipt: AckReceipt): void {
  putInteger(writer, 1, receipt.consumer);
  putInteger(writer, 2, receipt.ackId);
  putOptional(writer, 3, receipt.error, writeError);
}

function readAckReceipt(reader: ProtoReader): AckReceipt {
  let [consumer, ackId] = [0, 0];
  let error: WireError | undefined;
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) ackId = reader.varint();
    else if (reader.field === 3) error = readError(reader.message());
    else reader.skip();
  }
  return error === undefined ? { consumer, ackId } : { consumer, ackId, error };
}

function writeSeekDone(writer: ProtoWriter, done: SeekDone): void {
  putInteger(writer, 1, done.consumer);
  putInteger(writer, 2, done.seekId);
  putOptional(writer, 3, done.error, writeError);
  putInteger(writer, 4, done.nextIndex);
  putInteger(writer, 5, done.moves);
}

function readSeekDone(reader: ProtoReader): SeekDone {
  let [consumer, seekId, nextIndex, moves] = [0, 0, 0 as MessageIndex, 0];
  let error: WireError | undefined;
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) seekId = reader.varint();
    else if (reader.field === 3) error = readError(reader.message());
    else if (reader.field === 4) nextIndex = readIndex(reader);
    else if (reader.field === 5) moves = reader.varint();
    else reader.skip();
  }
  const done = { consumer, seekId, nextIndex, moves };
  return error === undefined ? done : { ...done, error };
}

function writeClosed(writer: ProtoWriter, closed: ConsumerClosed): void {
  putInteger(writer, 1, closed.consumer);
  putOptional(writer, 2, closed.error, writeError);
}

function readClosed(reader: ProtoReader): ConsumerClosed {
  let consumer = 0;
  let error: WireError | undefined;
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) error = readError(reader.message());
    else reader.skip();
  }
  return error === undefined ? { consumer } : { consumer, error };
}
