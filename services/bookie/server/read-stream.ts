import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Bookie, StoredEntry } from '../../ledger/bookie.ts';
import { MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import { NO_ENTRY } from '../../lib/ids.ts';
import { readRequest } from '../../wire/bookie-codec.ts';
import type {
  Credit,
  EntriesResult,
  ReadResponse,
  WireLacResult,
  WireReadEntries,
  WireReadLac,
} from '../../wire/frames.ts';
import { toWireError } from '../../wire/status.ts';
import { BookieStream, ITEM_BYTES, type StreamOptions } from './bookie-stream.ts';

/** One read gives so many bytes and entries at most, whatever it asks for. */
const ANSWER_BYTES = 4_194_304;
const ANSWER_ENTRIES = 10_000;
/** Answers that are being read, or wait to be sent, take so many bytes; further reads wait. */
const UNSENT_BYTES = 16_777_216;
/** Questions for the last-add-confirmed cost no credit; so many may be open. */
const OPEN_LACS = 65_536;

type Answer =
  | { readonly kind: 'entries'; readonly result: EntriesResult }
  | { readonly kind: 'lac'; readonly result: WireLacResult };

const ONE_READ: Credit = { items: 1, bytes: 0 };
const FREE: Credit = { items: 0, bytes: 0 };

/** Serves one read stream. */
export function serveReads(
  call: ServerDuplexStream<Buffer, ReadResponse>,
  bookie: Bookie,
  options: StreamOptions,
): BookieStream<Answer, ReadResponse> {
  return new ReadStream(call, bookie, options).stream;
}

function frameOf(answers: readonly Answer[], credit: Credit): ReadResponse {
  const entries: EntriesResult[] = [];
  const lacs: WireLacResult[] = [];
  for (const answer of answers) {
    if (answer.kind === 'entries') entries.push(answer.result);
    else lacs.push(answer.result);
  }
  return { entries, lacs, credit };
}

class ReadStream {
  readonly stream: BookieStream<Answer, ReadResponse>;
  readonly #bookie: Bookie;
  /** Reads that wait for room; bounded by the credit. */
  #waiting: WireReadEntries[] = [];
  /** Bytes set aside for reads that are under way. */
  #reserved = 0;
  #openLacs = 0;

  constructor(call: ServerDuplexStream<Buffer, ReadResponse>, bookie: Bookie, options: StreamOptions) {
    this.#bookie = bookie;
    this.stream = new BookieStream(call, options, {
      hello: (hello) => ({ hello }),
      answers: frameOf,
      frame: (bytes) => this.#frame(bytes),
      drained: () => this.#pump(),
    });
  }

  #frame(bytes: Buffer): void {
    const request = readRequest.decode(bytes);
    this.stream.greet(request.hello);
    for (const read of request.reads ?? []) {
      this.stream.take(1, 0);
      this.#waiting.push(read);
    }
    for (const lac of request.lacs ?? []) {
      if (this.#openLacs >= OPEN_LACS) {
        throw new MagnetarError(
          'CREDIT_EXCEEDED',
          `more than ${OPEN_LACS} questions for the last-add-confirmed are open`,
        );
      }
      this.stream.take(0, 0);
      this.#openLacs++;
      void this.#readLac(lac);
    }
    this.#pump();
  }

  /** Starts reads for which there is room; one always has. */
  #pump(): void {
    let started = 0;
    for (const read of this.#waiting) {
      const size = answerBytes(read);
      const taken = this.#reserved + this.stream.queuedBytes;
      if (!this.stream.live || (taken > 0 && taken + size > UNSENT_BYTES)) break;
      started++;
      this.#reserved += size;
      void this.#read(read, size);
    }
    if (started > 0) this.#waiting = this.#waiting.slice(started);
    if (!this.stream.live) this.#waiting = [];
  }

  async #read(read: WireReadEntries, size: number): Promise<void> {
    const { request, ledgerId, firstEntryId, fence, masterKey } = read;
    let [result, bytes]: [EntriesResult, number] = [{ request }, ITEM_BYTES];
    try {
      const entries = await this.#bookie.read({
        ledgerId,
        firstEntryId,
        maxEntries: Math.min(read.maxEntries, ANSWER_ENTRIES),
        maxBytes: size,
        ...(fence ? { fence: { masterKey } } : {}),
      });
      result = { request, entries };
      bytes = entries.reduce((sum: number, { payload }: StoredEntry) => sum + payload.length + ITEM_BYTES, ITEM_BYTES);
    } catch (error) {
      result = { request, error: toWireError(toMagnetarError(error)) };
    }
    this.#reserved -= size;
    this.stream.answer({ kind: 'entries', result }, ONE_READ, bytes);
    this.#pump();
  }

  async #readLac({ request, ledgerId, fence, masterKey }: WireReadLac): Promise<void> {
    let result: WireLacResult;
    try {
      result = { request, ...(await this.#bookie.readLac({ ledgerId, ...(fence ? { fence: { masterKey } } : {}) })) };
    } catch (error) {
      result = { request, error: toWireError(toMagnetarError(error)), lac: NO_ENTRY, lastEntryId: NO_ENTRY };
    }
    this.#openLacs--;
    this.stream.answer({ kind: 'lac', result }, FREE, ITEM_BYTES);
  }
}

function answerBytes(read: WireReadEntries): number {
  return Math.min(read.maxBytes, ANSWER_BYTES);
}
