import type { PeekedMessage } from '../wire/administration.ts';

/** What a header may be long, so that every client takes it. */
const HEADER_CHARACTERS = 8_192;

/** A text as a header can carry it: what is not printable ASCII, and %, is percent-encoded. */
function headerText(text: string): string {
  const wellFormed = Buffer.from(text).toString();
  return wellFormed.replaceAll(/[^\u0020-\u007e]|%/gu, (character) => encodeURIComponent(character));
}

/** A JSON text as a header can carry it. */
function headerJson(value: unknown): string {
  return JSON.stringify(value).replaceAll(
    /[^\u0020-\u007e]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** The headers of a message that is looked at. A key or properties that are too long for one are left out. */
export function peekHeaders(message: PeekedMessage): Record<string, string> {
  const { ledgerId, entryId, batchIndex, index, publishTime, producerName, key, properties } = message;
  const all: Record<string, string> = {
    'x-pulsar-message-id': `${ledgerId}:${entryId}:${batchIndex}`,
    'x-pulsar-message-index': String(index),
    'x-pulsar-publish-time': String(publishTime),
    'x-pulsar-producer-name': headerText(producerName),
  };
  if (key !== undefined) all['x-pulsar-partition-key'] = headerText(key);
  if (properties.length > 0) all['x-pulsar-property'] = headerJson(Object.fromEntries(properties));
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value.length <= HEADER_CHARACTERS));
}
