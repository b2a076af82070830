import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Bookie } from '../../ledger/bookie.ts';
import { type MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import { appendRequest } from '../../wire/bookie-codec.ts';
import { FrameGate } from '../../wire/frame-gate.ts';
import type { AppendRequest, AppendResponse, AppendResult, WireAppendEntry, WireError } from '../../wire/frames.ts';
import { toWireError } from '../../wire/status.ts';
import { BookieStream, ITEM_BYTES, type StreamOptions } from './bookie-stream.ts';

const NOT_FULL: WireError = { code: '', message: '', retryable: false, details: {} };

/** Serves one append stream. Returns what ends it with an error. */
export function serveAppends(
  call: ServerDuplexStream<Buffer, AppendResponse>,
  bookie: Bookie,
  options: StreamOptions,
): BookieStream<AppendResult, AppendResponse> {
  const { write } = options.memory;
  const append = (entry: WireAppendEntry): void => {
    const { request, payloadBytes } = entry;
    bookie.append(entry, (error?: MagnetarError) => {
      write.give(payloadBytes);
      const result = error === undefined ? { request } : { request, error: toWireError(error) };
      stream.answer(result, { items: 1, bytes: payloadBytes }, ITEM_BYTES);
    });
  };
  const gate: FrameGate<AppendRequest> = new FrameGate({
    share: write,
    decode: appendRequest.decode,
    cost(request) {
      stream.greet(request.hello);
      let bytes = 0;
      for (const entry of request.entries ?? []) {
        stream.take(1, entry.payloadBytes);
        bytes += entry.payloadBytes;
      }
      return bytes;
    },
    run(request) {
      const entries = request.entries ?? [];
      let handedOn = 0;
      try {
        for (const entry of entries) {
          append(entry);
          handedOn++;
        }
      } catch (error) {
        // The entry at fault, and those behind it, are answered by nobody.
        for (const entry of entries.slice(handedOn)) write.give(entry.payloadBytes);
        throw error;
      }
    },
    attempt: (work) => stream.attempt(work),
    fail: (error) => stream.fail(toMagnetarError(error)),
    read: (on) => stream.read(on),
  });
  const stream: BookieStream<AppendResult, AppendResponse> = new BookieStream(call, options, {
    hello: (hello) => (bookie.full === undefined ? { hello } : { hello, full: toWireError(bookie.full) }),
    answers: (results, credit) => ({ results, credit }),
    frame: (bytes) => gate.enter(bytes),
    waiting: () => gate.waiting > 0,
    gone: () => {
      gate.close();
      ignore?.();
    },
  });
  const ignore = bookie.onFull?.(() => {
    stream.tell({ full: bookie.full === undefined ? NOT_FULL : toWireError(bookie.full) });
  });
  return stream;
}
