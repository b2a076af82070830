import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Bookie } from '../../ledger/bookie.ts';
import type { MagnetarError } from '../../lib/errors.ts';
import { appendRequest } from '../../wire/bookie-codec.ts';
import type { AppendResponse, AppendResult, WireAppendEntry } from '../../wire/frames.ts';
import { toWireError } from '../../wire/status.ts';
import { BookieStream, ITEM_BYTES, type StreamOptions } from './bookie-stream.ts';

/** Serves one append stream. Returns what ends it with an error. */
export function serveAppends(
  call: ServerDuplexStream<Buffer, AppendResponse>,
  bookie: Bookie,
  options: StreamOptions,
): BookieStream<AppendResult, AppendResponse> {
  const stream: BookieStream<AppendResult, AppendResponse> = new BookieStream(call, options, {
    hello: (hello) => ({ hello }),
    answers: (results, credit) => ({ results, credit }),
    frame(bytes) {
      const request = appendRequest.decode(bytes);
      stream.greet(request.hello);
      for (const entry of request.entries ?? []) append(stream, bookie, entry);
    },
  });
  return stream;
}

function append(stream: BookieStream<AppendResult, AppendResponse>, bookie: Bookie, entry: WireAppendEntry): void {
  const { request, payloadBytes } = entry;
  stream.take(1, payloadBytes);
  bookie.append(entry, (error?: MagnetarError) => {
    const result = error === undefined ? { request } : { request, error: toWireError(error) };
    stream.answer(result, { items: 1, bytes: payloadBytes }, ITEM_BYTES);
  });
}
