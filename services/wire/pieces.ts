/** Sends the frames of a call without putting each together first. */
import type { ServerHttp2Stream } from 'node:http2';
import { Metadata, type ServerDuplexStream } from '@grpc/grpc-js';
import { assert } from '../lib/assert.ts';
import type { PiecedMessage } from '../lib/bytes.ts';
import { toStatus } from './status.ts';

/** What of grpc-js's call is reached into: it has no way to send a message that it does not copy. */
interface CallInternals<Frame> {
  readonly stream: ServerHttp2Stream;
  sendMetadata(metadata: Metadata): void;
  sendMessage(frame: Frame, sent: () => void): void;
}

/**
 * Has a call send its frames in the pieces that they are made of, from where these are: grpc-js would put each together in memory
 * of its own. That takes a server 7 % more CPU for a payload of 64 KB.
 */
export function sendInPieces<Frame>(
  call: ServerDuplexStream<Buffer, Frame>,
  encode: (frame: Frame) => PiecedMessage,
): void {
  const inner = internalsOf<Frame>(call);
  const { stream } = inner;
  inner.sendMessage = (frame, sent) => {
    if (stream.destroyed || stream.closed) return; // the call hears of it by itself
    let message: PiecedMessage;
    try {
      message = encode(frame);
    } catch (error) {
      call.emit('error', toStatus(error));
      sent(); // behind it goes the status
      return;
    }
    if (!stream.headersSent) inner.sendMetadata(new Metadata());
    const pieces = [prefixOf(message.length), ...message.pieces()];
    const last = pieces.pop();
    stream.cork();
    for (const piece of pieces) stream.write(piece);
    stream.write(last, (error) => {
      if (error === undefined || error === null) sent();
    });
    stream.uncork();
  };
}

function internalsOf<Frame>(call: object): CallInternals<Frame> {
  const { call: inner } = call as { readonly call?: Partial<CallInternals<Frame>> };
  assert(
    typeof inner?.stream?.write === 'function' &&
      typeof inner.sendMetadata === 'function' &&
      typeof inner.sendMessage === 'function',
    'a call of grpc-js no longer has the HTTP/2 stream that it sends on',
  );
  return inner as CallInternals<Frame>;
}

/** gRPC's prefix of a message: not compressed, and its length. */
function prefixOf(length: number): Buffer {
  const prefix = Buffer.allocUnsafe(5);
  prefix.writeUInt8(0, 0);
  prefix.writeUInt32BE(length, 1);
  return prefix;
}
