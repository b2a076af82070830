/** Codecs of the publish stream (`proto/magnetar/v1/broker.proto`). */
import { copiedBytes, ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import type { EntryId, LedgerId, MessageIndex, SequenceId } from '../lib/ids.ts';
import { type Codec, payloadEncoders } from './codec.ts';
import {
  bytesSize,
  frameReader,
  integerSize,
  nextItem,
  putBigint,
  putBool,
  putBytes,
  putInteger,
  putItems,
  putOptional,
  putString,
  readClientHello,
  readCredit,
  readEntryId,
  readError,
  readIndex,
  readLedgerId,
  readSequenceId,
  readServerHello,
  SMALL_FRAME_BYTES,
  uint32,
  withHello,
  writeClientHello,
  writeCredit,
  writeError,
  writeServerHello,
} from './common-codec.ts';
import type {
  ClientHello,
  CloseProducer,
  Credit,
  OpenProducer,
  ProducerClosed,
  ProducerOpened,
  PublishBatch,
  PublishRequest,
  PublishResponse,
  Receipt,
  ServerHello,
  WireError,
} from './frames.ts';

const BATCH_OVERHEAD_BYTES = 32; // more than tags, lengths, number and checksum of a batch take
const RECEIPT_BYTES = 48; // what a receipt mostly stays below

const NOTHING: Buffer = Buffer.alloc(0);

function writePublishRequest(frame: PublishRequest): ProtoWriter {
  let bytes = SMALL_FRAME_BYTES;
  for (const batch of frame.batches ?? []) bytes += copiedBytes(batch.block) + BATCH_OVERHEAD_BYTES;
  const writer = new ProtoWriter(bytes);
  putOptional(writer, 1, frame.hello, writeClientHello);
  putItems(writer, 2, frame.opens, writeOpen);
  for (const batch of frame.batches ?? []) writeBatch(writer, batch);
  putItems(writer, 4, frame.closes, writeClose);
  return writer;
}

/** From client to server. */
export const publishRequest: Codec<PublishRequest> = {
  ...payloadEncoders(writePublishRequest),

  decode(bytes: Buffer): PublishRequest {
    const reader = frameReader(bytes);
    let hello: ClientHello | undefined;
    const opens: OpenProducer[] = [];
    const batches: PublishBatch[] = [];
    const closes: CloseProducer[] = [];
    for (let items = 0; nextItem(reader, items); items++) {
      if (reader.field === 1) hello = readClientHello(reader.message());
      else if (reader.field === 2) opens.push(readOpen(reader.message()));
      else if (reader.field === 3) batches.push(readBatch(reader.message()));
      else if (reader.field === 4) closes.push(readClose(reader.message()));
      else reader.skip();
    }
    return hello === undefined ? { opens, batches, closes } : { hello, opens, batches, closes };
  },
};

/** From server to client. */
export const publishResponse: Codec<PublishResponse> = {
  encode(frame: PublishResponse): Buffer {
    const writer = new ProtoWriter(SMALL_FRAME_BYTES + RECEIPT_BYTES * (frame.receipts?.length ?? 0));
    putOptional(writer, 1, frame.hello, writeServerHello);
    putItems(writer, 2, frame.opened, writeOpened);
    putItems(writer, 3, frame.receipts, writeReceipt);
    putItems(writer, 4, frame.closed, writeClosed);
    putOptional(writer, 5, frame.credit, writeCredit);
    return writer.finish();
  },

  decode(bytes: Buffer): PublishResponse {
    const reader = new ProtoReader(bytes);
    let hello: ServerHello | undefined;
    const opened: ProducerOpened[] = [];
    const receipts: Receipt[] = [];
    const closed: ProducerClosed[] = [];
    let credit: Credit | undefined;
    while (reader.next()) {
      if (reader.field === 1) hello = readServerHello(reader.message());
      else if (reader.field === 2) opened.push(readOpened(reader.message()));
      else if (reader.field === 3) receipts.push(readReceipt(reader.message()));
      else if (reader.field === 4) closed.push(readClosed(reader.message()));
      else if (reader.field === 5) credit = readCredit(reader.message());
      else reader.skip();
    }
    const frame = { opened, receipts, closed };
    return hello === undefined && credit === undefined ? frame : withHello(frame, hello, credit);
  },
};

function writeOpen(writer: ProtoWriter, open: OpenProducer): void {
  putInteger(writer, 1, open.producer);
  putString(writer, 2, open.topic);
  putString(writer, 3, open.name);
  putBytes(writer, 4, open.instance);
}

function readOpen(reader: ProtoReader): OpenProducer {
  let [producer, topic, name, instance] = [0, '', '', NOTHING];
  while (reader.next()) {
    if (reader.field === 1) producer = uint32(reader);
    else if (reader.field === 2) topic = reader.text();
    else if (reader.field === 3) name = reader.text();
    else if (reader.field === 4) instance = reader.bytes();
    else reader.skip();
  }
  return { producer, topic, name, instance };
}

function writeBatch(writer: ProtoWriter, batch: PublishBatch): void {
  const checksum = batch.crc32c === undefined ? 0 : 5;
  writer.messageHeader(3, integerSize(batch.producer) + checksum + bytesSize(batch.block.length));
  putInteger(writer, 1, batch.producer);
  if (batch.crc32c !== undefined) writer.fixed32(2, batch.crc32c);
  putBytes(writer, 3, batch.block);
}

function readBatch(reader: ProtoReader): PublishBatch {
  let producer = 0;
  let crc32c: number | undefined;
  let block = NOTHING;
  while (reader.next()) {
    if (reader.field === 1) producer = uint32(reader);
    else if (reader.field === 2) crc32c = reader.fixed32();
    else if (reader.field === 3) block = reader.bytes();
    else reader.skip();
  }
  return crc32c === undefined ? { producer, block } : { producer, crc32c, block };
}

function writeClose(writer: ProtoWriter, close: CloseProducer): void {
  putInteger(writer, 1, close.producer);
}

function readClose(reader: ProtoReader): CloseProducer {
  let producer = 0;
  while (reader.next()) {
    if (reader.field === 1) producer = uint32(reader);
    else reader.skip();
  }
  return { producer };
}

function writeOpened(writer: ProtoWriter, opened: ProducerOpened): void {
  putInteger(writer, 1, opened.producer);
  putOptional(writer, 2, opened.error, writeError);
  putString(writer, 3, opened.name);
  putInteger(writer, 4, opened.epoch);
  if (opened.lastSequenceId !== undefined) writer.bigint(5, opened.lastSequenceId);
}

function readOpened(reader: ProtoReader): ProducerOpened {
  let [producer, name, epoch] = [0, '', 0];
  let error: WireError | undefined;
  let lastSequenceId: SequenceId | undefined;
  while (reader.next()) {
    if (reader.field === 1) producer = uint32(reader);
    else if (reader.field === 2) error = readError(reader.message());
    else if (reader.field === 3) name = reader.string();
    else if (reader.field === 4) epoch = reader.varint();
    else if (reader.field === 5) lastSequenceId = readSequenceId(reader);
    else reader.skip();
  }
  return {
    producer,
    ...(error === undefined ? {} : { error }),
    name,
    epoch,
    ...(lastSequenceId === undefined ? {} : { lastSequenceId }),
  };
}

function writeReceipt(writer: ProtoWriter, receipt: Receipt): void {
  putInteger(writer, 1, receipt.producer);
  putBigint(writer, 2, receipt.lastSequenceId);
  putOptional(writer, 3, receipt.error, writeError);
  putInteger(writer, 4, receipt.ledgerId);
  putInteger(writer, 5, receipt.entryId);
  putInteger(writer, 6, receipt.index);
  putInteger(writer, 7, receipt.count);
  putBool(writer, 8, receipt.duplicate);
}

function readReceipt(reader: ProtoReader): Receipt {
  let [producer, count, duplicate] = [0, 0, false];
  let lastSequenceId = 0n as SequenceId;
  let error: WireError | undefined;
  let [ledgerId, entryId, index] = [0 as LedgerId, 0 as EntryId, 0 as MessageIndex];
  while (reader.next()) {
    if (reader.field === 1) producer = uint32(reader);
    else if (reader.field === 2) lastSequenceId = readSequenceId(reader);
    else if (reader.field === 3) error = readError(reader.message());
    else if (reader.field === 4) ledgerId = readLedgerId(reader);
    else if (reader.field === 5) entryId = readEntryId(reader);
    else if (reader.field === 6) index = readIndex(reader);
    else if (reader.field === 7) count = uint32(reader);
    else if (reader.field === 8) duplicate = reader.bool();
    else reader.skip();
  }
  const receipt = { producer, lastSequenceId, ledgerId, entryId, index, count, duplicate };
  return error === undefined ? receipt : { ...receipt, error };
}

function writeClosed(writer: ProtoWriter, closed: ProducerClosed): void {
  putInteger(writer, 1, closed.producer);
  putOptional(writer, 2, closed.error, writeError);
}

function readClosed(reader: ProtoReader): ProducerClosed {
  let producer = 0;
  let error: WireError | undefined;
  while (reader.next()) {
    if (reader.field === 1) producer = uint32(reader);
    else if (reader.field === 2) error = readError(reader.message());
    else reader.skip();
  }
  return error === undefined ? { producer } : { producer, error };
}
