import type { OutgoingMessage } from '../wire/block.ts';
import { invalid } from './check.ts';
import type { ProducerMessage } from './message.ts';

/** The message as it is encoded. @throws MagnetarError INVALID_ARGUMENT */
export function toOutgoing(message: ProducerMessage): OutgoingMessage {
  if (typeof message !== 'object' || message === null) throw invalid('message', message, 'an object with data');
  const { data } = message;
  let payload: Uint8Array;
  if (data instanceof Uint8Array) payload = data;
  else if (typeof data === 'string') payload = Buffer.from(data);
  else throw invalid('data', data, 'a Buffer, a Uint8Array or a string');
  return isPlain(message) ? { payload } : withRest(payload, message);
}

function isPlain(message: ProducerMessage): boolean {
  return (
    message.key === undefined &&
    message.partitionKey === undefined &&
    message.properties === undefined &&
    message.orderingKey === undefined &&
    message.eventTimestamp === undefined
  );
}

function withRest(payload: Uint8Array, message: ProducerMessage): OutgoingMessage {
  const key = checkKey(message);
  const orderingKey = checkOrderingKey(message.orderingKey);
  const properties = checkProperties(message.properties);
  const eventTime = message.eventTimestamp;
  if (eventTime !== undefined && (!Number.isSafeInteger(eventTime) || eventTime < 0)) {
    throw invalid('eventTimestamp', eventTime, 'milliseconds since 1970, an integer from 0 to 2^53-1');
  }
  return {
    payload,
    ...(key === undefined ? {} : { key }),
    ...(orderingKey === undefined ? {} : { orderingKey }),
    ...(properties === undefined ? {} : { properties }),
    ...(eventTime === undefined ? {} : { eventTime }),
  };
}

function checkKey({ key, partitionKey }: ProducerMessage): string | undefined {
  if (key !== undefined && typeof key !== 'string') throw invalid('key', key, 'a string');
  if (partitionKey !== undefined && typeof partitionKey !== 'string') {
    throw invalid('partitionKey', partitionKey, 'a string');
  }
  if (key !== undefined && partitionKey !== undefined && key !== partitionKey) {
    throw invalid('partitionKey', partitionKey, `the same as key (${JSON.stringify(key)}), or absent`);
  }
  return key ?? partitionKey;
}

function checkOrderingKey(value: Uint8Array | string | undefined): Uint8Array | undefined {
  if (value === undefined || value instanceof Uint8Array) return value;
  if (typeof value === 'string') return Buffer.from(value);
  throw invalid('orderingKey', value, 'a Buffer, a Uint8Array or a string');
}

function checkProperties(value: ProducerMessage['properties']): readonly (readonly [string, string])[] | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'object' || value === null) throw invalid('properties', value, 'an object, or pairs of strings');
  const pairs: readonly (readonly [string, string])[] = isPairs(value) ? value : Object.entries(value);
  for (const pair of pairs) {
    const [name, text] = Array.isArray(pair) ? pair : [];
    if (typeof name !== 'string') throw invalid('the name of a property', name, 'a string');
    if (typeof text !== 'string') throw invalid(`property ${JSON.stringify(name)}`, text, 'a string');
  }
  return pairs.length === 0 ? undefined : pairs;
}

function isPairs(value: NonNullable<ProducerMessage['properties']>): value is readonly (readonly [string, string])[] {
  return Array.isArray(value);
}

/** No less than the bytes that the message takes, encoded, without its payload. */
export function overheadBytes(message: OutgoingMessage): number {
  let characters = message.key?.length ?? 0;
  for (const [name, value] of message.properties ?? []) characters += name.length + value.length + 8;
  return characters * 3 + (message.orderingKey?.length ?? 0) + 64;
}
