import type { PiecedMessage, ProtoWriter } from '../lib/bytes.ts';

/** Turns frames of one kind into bytes of protobuf's wire format and back. */
export interface Codec<T> {
  readonly encode: (value: T) => Buffer;
  /** The same for frames with payloads, which are borrowed until the result is copied. */
  readonly encodePieced?: (value: T) => PiecedMessage;
  /**
   * Byte fields of the result are views of `bytes`. Unknown fields are passed over; of a field that occurs twice the last
   * one counts. @throws MagnetarError PROTOCOL_VIOLATION, and nothing else, for whatever is malformed.
   */
  readonly decode: (bytes: Buffer) => T;
}

/** A codec of frames with payloads. */
export type PayloadCodec<T> = Codec<T> & Required<Pick<Codec<T>, 'encodePieced'>>;

/** Both ways of encoding frames with payloads, of what writes their fields. */
export function payloadEncoders<T>(
  write: (value: T) => ProtoWriter,
): Required<Pick<Codec<T>, 'encode' | 'encodePieced'>> {
  return { encode: (value) => write(value).finish(), encodePieced: (value) => write(value).finishPieced() };
}
