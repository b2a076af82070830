import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Bookie, StoredEntry } from '../../ledger/bookie.ts';
import { MagnetarError, toMagnetarError } from '../../lib/errors.ts';
import { Deque } from '../../lib/collections/deque.ts';
import { NO_ENTRY } from '../../lib/ids.ts';
import { unpinned } from '../../lib/views.ts';
import { readRequest } from '../../wire/bookie-codec.ts';
import type {
  Credit,
  EntriesResult,
  ReadResponse,
  WireLacResult,
  WireReadEntries,
  WireReadLac,
} from '../../wire/frames.ts';
import { SendWindow } from '../../wire/send-window.ts';
import { toWireError } from '../../wire/status.ts';
import { BookieStream, ITEM_BYTES, type StreamOptions } from './bookie-stream.ts';

/** One read gives so many bytes and entries at most, whatever it asks for. */
const ANSWER_BYTES = 4_194_304;
const ANSWER_ENTRIES = 10_000;
/** Nothing less is read at once: an entry, and what lies beside it. */
const LEAST_BYTES = 131_072;
/** Answers that are being read, or are not taken, may have so many bytes; further reads wait. */
const WINDOW_BYTES = 16_777_216;
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
  readonly #waiting: Deque<WireReadEntries> = new Deque();
  readonly #window: SendWindow;
  #openLacs = 0;

  constructor(call: ServerDuplexStream<Buffer, ReadResponse>, bookie: Bookie, options: StreamOptions) {
    this.#bookie = bookie;
    this.stream = new BookieStream(call, options, {
      hello: (hello) => ({ hello }),
      answers: frameOf,
      frame: (bytes) => this.#frame(bytes),
      drained: () => this.#pump(),
      taken: (taken) => this.#window.taken(taken),
      gone: () => {
        this.#window.close();
        this.#waiting.clear();
      },
    });
    this.#window = new SendWindow({
      guard: options.memory.read,
      mostBytes: WINDOW_BYTES,
      onRoom: () => this.#pump(),
      end: (error) => this.stream.fail(error),
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

  /** Starts reads for which there is room. */
  #pump(): void {
    for (let read = this.#waiting.peek(); read !== undefined; read = this.#waiting.peek()) {
      const wanted = Math.max(answerBytes(read), LEAST_BYTES);
      const room = this.stream.blocked ? 0 : this.#window.reserve(wanted, LEAST_BYTES);
      if (room === 0) return;
      this.#waiting.shift();
      void this.#read(read, room);
    }
  }

  async #read(read: WireReadEntries, room: number): Promise<void> {
    const { request, ledgerId, firstEntryId, fence, masterKey } = read;
    let [result, bytes]: [EntriesResult, number] = [{ request }, ITEM_BYTES];
    try {
      const entries = await this.#bookie.read({
        ledgerId,
        firstEntryId,
        maxEntries: Math.min(read.maxEntries, ANSWER_ENTRIES),
        maxBytes: Math.min(room, answerBytes(read)),
        ...(fence ? { fence: { masterKey } } : {}),
      });
      result = { request, entries: unpinnedEntries(entries) };
      bytes = entries.reduce((sum: number, { payload }: StoredEntry) => sum + payload.length + ITEM_BYTES, ITEM_BYTES);
    } catch (error) {
      result = { request, error: toWireError(toMagnetarError(error)) };
    }
    this.#window.cancel(room);
    this.#window.add(bytes);
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
    this.#window.add(ITEM_BYTES);
    this.stream.answer({ kind: 'lac', result }, FREE, ITEM_BYTES);
  }
}

/** One read of a disk brings more than one client may want of it: what is kept pins no more than twice its bytes. */
function unpinnedEntries(entries: readonly StoredEntry[]): readonly StoredEntry[] {
  const bytes = entries.reduce((sum, { payload }) => sum + payload.length, 0);
  if (bytes * 2 >= (entries[0]?.payload.buffer.byteLength ?? 0)) return entries;
  return entries.map((entry) => ({ ...entry, payload: unpinned(entry.payload, 1) }));
}

function answerBytes(read: WireReadEntries): number {
  return Math.min(read.maxBytes, ANSWER_BYTES);
}
