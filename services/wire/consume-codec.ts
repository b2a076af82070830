/** Codecs of the consume stream (`proto/magnetar/v1/broker.proto`). */
import { type ProtoReader, ProtoWriter } from '../lib/bytes.ts';
import type { MessageIndex } from '../lib/ids.ts';
import type { Codec } from './codec.ts';
import {
  frameReader,
  nextItem,
  putBool,
  putBytes,
  putInteger,
  putItems,
  putOptional,
  putString,
  readClientHello,
  readIndex,
  readMessageId,
  SMALL_FRAME_BYTES,
  uint32,
  violation,
  writeClientHello,
  writeMessageId,
} from './common-codec.ts';
import type {
  Ack,
  ClientHello,
  CloseConsumer,
  ConsumeRequest,
  Flow,
  Position,
  Seek,
  Subscribe,
  SubscriptionType,
} from './frames.ts';

export { consumeResponse } from './deliver-codec.ts';

const NOTHING: Buffer = Buffer.alloc(0);
const EXCLUSIVE = 0;

/** From client to server. */
export const consumeRequest: Codec<ConsumeRequest> = {
  encode(frame: ConsumeRequest): Buffer {
    const writer = new ProtoWriter(SMALL_FRAME_BYTES);
    putOptional(writer, 1, frame.hello, writeClientHello);
    putItems(writer, 2, frame.subscribes, writeSubscribe);
    putItems(writer, 3, frame.flows, writeFlow);
    putItems(writer, 4, frame.acks, writeAck);
    putItems(writer, 5, frame.seeks, writeSeek);
    putItems(writer, 6, frame.closes, writeClose);
    return writer.finish();
  },

  decode(bytes: Buffer): ConsumeRequest {
    const reader = frameReader(bytes);
    let hello: ClientHello | undefined;
    const subscribes: Subscribe[] = [];
    const flows: Flow[] = [];
    const acks: Ack[] = [];
    const seeks: Seek[] = [];
    const closes: CloseConsumer[] = [];
    for (let items = 0; nextItem(reader, items); items++) {
      if (reader.field === 1) hello = readClientHello(reader.message());
      else if (reader.field === 2) subscribes.push(readSubscribe(reader.message()));
      else if (reader.field === 3) flows.push(readFlow(reader.message()));
      else if (reader.field === 4) acks.push(readAck(reader.message()));
      else if (reader.field === 5) seeks.push(readSeek(reader.message()));
      else if (reader.field === 6) closes.push(readClose(reader.message()));
      else reader.skip();
    }
    const frame = { subscribes, flows, acks, seeks, closes };
    return hello === undefined ? frame : { hello, ...frame };
  },
};

function writeSubscribe(writer: ProtoWriter, subscribe: Subscribe): void {
  putInteger(writer, 1, subscribe.consumer);
  putString(writer, 2, subscribe.topic);
  putString(writer, 3, subscribe.subscription);
  putInteger(writer, 4, subscribe.type === 'exclusive' ? EXCLUSIVE : subscribe.type.unknown);
  putOptional(writer, 5, subscribe.start, writePosition);
  putString(writer, 6, subscribe.name);
  putBytes(writer, 7, subscribe.instance);
  putString(writer, 8, subscribe.topicIdentity);
}

function readSubscribe(reader: ProtoReader): Subscribe {
  let [consumer, topic, subscription, name, instance, topicIdentity] = [0, '', '', '', NOTHING, ''];
  let type: SubscriptionType = 'exclusive';
  let start: Position | undefined;
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) topic = reader.text();
    else if (reader.field === 3) subscription = reader.text();
    else if (reader.field === 4) type = subscriptionType(uint32(reader));
    else if (reader.field === 5) start = readPosition(reader.message());
    else if (reader.field === 6) name = reader.text();
    else if (reader.field === 7) instance = reader.bytes();
    else if (reader.field === 8) topicIdentity = reader.text();
    else reader.skip();
  }
  const subscribe = { consumer, topic, subscription, type, name, instance, topicIdentity };
  return start === undefined ? subscribe : { ...subscribe, start };
}

function subscriptionType(value: number): SubscriptionType {
  return value === EXCLUSIVE ? 'exclusive' : { unknown: value };
}

function writePosition(writer: ProtoWriter, position: Position): void {
  switch (position.at) {
    case 'earliest':
      return writer.varint(1, 1);
    case 'latest':
      return writer.varint(2, 1);
    case 'messageId':
      return writer.item(3, position.id, writeMessageId);
    case 'time':
      return writer.varint(4, position.time);
    case 'index':
      return writer.varint(5, position.index);
  }
}

/** Undefined when none of its fields is set. */
function readPosition(reader: ProtoReader): Position | undefined {
  let position: Position | undefined;
  while (reader.next()) {
    if (reader.field === 1) {
      reader.bool();
      position = { at: 'earliest' };
    } else if (reader.field === 2) {
      reader.bool();
      position = { at: 'latest' };
    } else if (reader.field === 3) position = { at: 'messageId', id: readMessageId(reader.message()) };
    else if (reader.field === 4) position = { at: 'time', time: reader.varint() };
    else if (reader.field === 5) position = { at: 'index', index: readIndex(reader) };
    else reader.skip();
  }
  return position;
}

function writeFlow(writer: ProtoWriter, flow: Flow): void {
  putInteger(writer, 1, flow.consumer);
  putInteger(writer, 2, flow.messages);
  putInteger(writer, 3, flow.bytes);
}

function readFlow(reader: ProtoReader): Flow {
  let [consumer, messages, bytes] = [0, 0, 0];
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) messages = uint32(reader);
    else if (reader.field === 3) bytes = reader.varint();
    else reader.skip();
  }
  return { consumer, messages, bytes };
}

function writeAck(writer: ProtoWriter, ack: Ack): void {
  putInteger(writer, 1, ack.consumer);
  putInteger(writer, 2, ack.ackId);
  putInteger(writer, 3, ack.below);
  if (ack.ranges.length > 0) writer.packed(4, ack.ranges);
}

function readAck(reader: ProtoReader): Ack {
  let [consumer, ackId, below] = [0, 0, 0 as MessageIndex];
  const ranges: number[] = [];
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) ackId = reader.varint();
    else if (reader.field === 3) below = readIndex(reader);
    else if (reader.field === 4) reader.packed(ranges);
    else reader.skip();
  }
  if (ranges.length % 2 !== 0) {
    throw violation(`ack ${ackId} has ${ranges.length} numbers in its ranges; they are pairs of first index and count`);
  }
  return { consumer, ackId, below, ranges };
}

function writeSeek(writer: ProtoWriter, seek: Seek): void {
  putInteger(writer, 1, seek.consumer);
  putInteger(writer, 2, seek.seekId);
  writer.item(3, seek.to, writePosition);
}

function readSeek(reader: ProtoReader): Seek {
  let [consumer, seekId] = [0, 0];
  let to: Position | undefined;
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) seekId = reader.varint();
    else if (reader.field === 3) to = readPosition(reader.message());
    else reader.skip();
  }
  if (to === undefined) throw violation(`seek ${seekId} has no position; it needs one of those that Position lists`);
  return { consumer, seekId, to };
}

function writeClose(writer: ProtoWriter, close: CloseConsumer): void {
  putInteger(writer, 1, close.consumer);
  putBool(writer, 2, close.unsubscribe);
}

function readClose(reader: ProtoReader): CloseConsumer {
  let [consumer, unsubscribe] = [0, false];
  while (reader.next()) {
    if (reader.field === 1) consumer = uint32(reader);
    else if (reader.field === 2) unsubscribe = reader.bool();
    else reader.skip();
  }
  return { consumer, unsubscribe };
}
