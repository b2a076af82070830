import type { OutgoingRest } from '../wire/block.ts';
import { invalid } from './check.ts';
import type { ProducerMessage } from './message.ts';
import { checkSequenceId } from './options.ts';

/** The payload as it is encoded. @throws MagnetarError INVALID_ARGUMENT */
export function payloadOf(message: ProducerMessage): Uint8Array {
  if (typeof message !== 'object' || message === null) throw invalid('message', message, 'an object with data');
  const { data } = message;
  if (data instanceof Uint8Array) return data;
  if (typeof data === 'string') return Buffer.from(data);
  throw invalid('data', data, 'a Buffer, a Uint8Array or a string');
}

/** The sequence id that the app has chosen. @throws MagnetarError INVALID_ARGUMENT */
export function sequenceIdOf({ sequenceId }: ProducerMessage): bigint | undefined {
  return sequenceId === undefined ? undefined : checkSequenceId('sequenceId', sequenceId);
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

/** What else it has, as it is encoded; undefined: nothing. @throws MagnetarError INVALID_ARGUMENT */
export function restOf(message: ProducerMessage): OutgoingRest | undefined {
  if (isPlain(message)) return undefined;
  const key = checkKey(message);
  const orderingKey = checkOrderingKey(message.orderingKey);
  const properties = checkProperties(message.properties);
  const eventTime = message.eventTimestamp;
  if (eventTime !== undefined && (!Number.isSafeInteger(eventTime) || eventTime < 0)) {
    throw invalid('eventTimestamp', eventTime, 'milliseconds since 1970, an integer from 0 to 2^53-1');
  }
  return {
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

/** What a message takes in a block besides its contents, at most, with its row in the clear table. */
export const MESSAGE_BYTES = 64;
/** What a property takes besides name and value. */
const PROPERTY_BYTES = 16;
const LONG_TEXT = 1_000;

/** No less than the bytes of the text in UTF-8. */
function mostUtf8(text: string): number {
  return text.length > LONG_TEXT ? Buffer.byteLength(text) : 3 * text.length;
}

/** No less than the bytes of keys and properties in a block. */
export function restBytes({ key, orderingKey, properties }: OutgoingRest): number {
  let bytes = 0;
  if (key !== undefined) bytes += 2 * mostUtf8(key); // here, and in the clear table
  if (orderingKey !== undefined) bytes += 2 * orderingKey.length;
  if (properties === undefined) return bytes;
  for (const [name, value] of properties) bytes += mostUtf8(name) + mostUtf8(value) + PROPERTY_BYTES;
  return bytes;
}
