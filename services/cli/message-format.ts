import type { ChunkedOutput } from './chunked-output.ts';

const LF = 10;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** What is printed of a message. */
export interface PrintedMessage {
  readonly data: Buffer;
  readonly messageId: { toString(): string };
  readonly index: number;
  readonly key: string | undefined;
  readonly properties: Readonly<Record<string, string>>;
  /** Milliseconds since 1970-01-01 UTC. */
  readonly publishTime: number;
}

/** The payload as text; undefined: it is not UTF-8. */
function textOf(payload: Buffer): string | undefined {
  try {
    return utf8.decode(payload);
  } catch {
    return undefined;
  }
}

/** A message as one JSON object. */
function jsonOf(message: PrintedMessage): string {
  const payload = textOf(message.data);
  return JSON.stringify({
    id: message.messageId.toString(),
    index: message.index,
    key: message.key ?? null,
    properties: message.properties,
    publishTime: message.publishTime,
    ...(payload === undefined ? { payloadBase64: message.data.toString('base64') } : { payload }),
  });
}

/** Writes a message and a line feed; commits it with itself as the tag. */
export function printMessage<M extends PrintedMessage>(
  output: ChunkedOutput<M>,
  message: M,
  format: 'text' | 'json',
): void {
  if (format === 'text') output.write(message.data);
  else output.writeText(jsonOf(message));
  output.writeByte(LF);
  output.commit(message);
}
