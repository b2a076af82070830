import { addAbortSignal, type Readable } from 'node:stream';
import { MagnetarError, toMagnetarError } from '../lib/errors.ts';
import type { CompressionType, Producer } from '../client/index.ts';
import { ChunkedOutput, OutputClosed } from './chunked-output.ts';
import { newClient, whenOpen } from './connect.ts';
import { LineSplitter } from './line-splitter.ts';
import { Progress } from './progress.ts';
import { RateLimit } from './rate-limit.ts';
import { EXIT_DONE, EXIT_FAILED, type Shell } from './shell.ts';
import { platformReason } from './text.ts';

/** What one publication holds that is not acknowledged. */
const WINDOW_BYTES = 16_777_216;
const WINDOW_MESSAGES = 8_192;
/** A line that is longer cannot be sent, whatever the server allows: it would not fit into a frame. */
const LONGEST_LINE_BYTES = 16_777_216;

export interface ProduceOptions {
  readonly serviceUrl: string;
  readonly topic: string;
  readonly file: string | undefined;
  readonly texts: readonly string[] | undefined;
  readonly key: string | undefined;
  readonly properties: Readonly<Record<string, string>> | undefined;
  /** Messages a second. */
  readonly rate: number | undefined;
  readonly compression: CompressionType;
  readonly ids: boolean;
}

/** Sends messages one after another with a bounded window of unacknowledged ones. */
class Publication {
  readonly #producer: Producer;
  readonly #options: ProduceOptions;
  readonly #output: ChunkedOutput;
  readonly #progress: Progress;
  readonly #rate: RateLimit | undefined;
  #line = 0;
  #pendingMessages = 0;
  #pendingBytes = 0;
  #failure: MagnetarError | undefined;
  readonly #failed = new AbortController();
  /** Aborts when nothing more is to be sent, also while the input has nothing to say, or the pace is slow. */
  readonly ends: AbortSignal;
  #waiter: { readonly done: () => boolean; readonly resolve: () => void } | undefined;

  constructor(shell: Shell, options: ProduceOptions, producer: Producer, output: ChunkedOutput, progress: Progress) {
    this.#producer = producer;
    this.#options = options;
    this.#output = output;
    this.#progress = progress;
    this.ends = AbortSignal.any([shell.interrupted, this.#failed.signal]);
    this.#rate = options.rate === undefined ? undefined : new RateLimit(shell.clock, options.rate);
  }

  /** The number of lines that were sent, which is the number of the first one that was not: they count from 0. */
  get line(): number {
    return this.#line;
  }

  /** The first message that could not be published, or the input that could not be read. */
  get failure(): MagnetarError | undefined {
    return this.#failure;
  }

  fail(error: unknown): void {
    this.#failure ??= toMagnetarError(error);
    this.#failed.abort(this.#failure);
    this.#wake();
  }

  /** True when nothing more is to be sent. */
  get over(): boolean {
    return this.ends.aborted;
  }

  /** Sends one message; what it returns is to be awaited before the next one. */
  send(data: Buffer): Promise<void> | undefined {
    const line = this.#line;
    this.#line += 1;
    this.#pendingMessages += 1;
    this.#pendingBytes += data.length;
    const { key, properties } = this.#options;
    this.#producer
      .send({ data, ...(key === undefined ? {} : { key }), ...(properties === undefined ? {} : { properties }) })
      .then(
        (id) => {
          this.#settle(data.length);
          this.#progress.count(data.length);
          if (this.#options.ids) {
            const place = { id: id.known ? id.toString() : null, index: id.index ?? null };
            this.#output.writeText(`${JSON.stringify({ line, ...place })}\n`);
            this.#output.commit(undefined);
          }
        },
        (error: unknown) => {
          this.#settle(data.length);
          const { code, message, details } = toMagnetarError(error);
          this.fail(new MagnetarError(code, `line ${line}: ${message}`, { details, cause: error }));
        },
      );
    return this.#full || this.#output.behind ? this.#room() : undefined;
  }

  /** Waits until every message has been acknowledged, or has failed. */
  async finish(): Promise<void> {
    await this.#until(() => this.#pendingMessages === 0);
  }

  /** Waits for the pace, if there is one. */
  pace(): Promise<void> | undefined {
    return this.#rate?.turn(this.ends);
  }

  get #full(): boolean {
    return this.#pendingMessages >= WINDOW_MESSAGES || this.#pendingBytes >= WINDOW_BYTES;
  }

  async #room(): Promise<void> {
    await this.#until(() => !this.#full || this.#failure !== undefined);
    if (this.#output.behind) await this.#output.drained();
  }

  async #until(done: () => boolean): Promise<void> {
    if (done()) return;
    await new Promise<void>((resolve) => {
      this.#waiter = { done, resolve };
    });
  }

  #settle(bytes: number): void {
    this.#pendingMessages -= 1;
    this.#pendingBytes -= bytes;
    this.#wake();
  }

  #wake(): void {
    if (this.#waiter === undefined || !this.#waiter.done()) return;
    this.#waiter.resolve();
    this.#waiter = undefined;
  }
}

/** Sends one message after another; stops when nothing more is to be sent. */
async function sendAll(publication: Publication, messages: Iterable<Buffer>): Promise<void> {
  for (const message of messages) {
    const pace = publication.pace();
    if (pace !== undefined) await pace;
    if (publication.over) return;
    const wait = publication.send(message);
    if (wait !== undefined) await wait;
  }
}

async function sendLines(publication: Publication, source: Readable): Promise<void> {
  const splitter = new LineSplitter(LONGEST_LINE_BYTES);
  for await (const chunk of source as AsyncIterable<Buffer>) {
    await sendAll(publication, splitter.split(chunk));
    if (publication.over) return;
  }
  const last = splitter.end();
  if (last !== undefined) await sendAll(publication, [last]);
}

/** What is to be published. */
type Input =
  | { readonly type: 'texts'; readonly texts: readonly string[] }
  | { readonly type: 'stream'; readonly stream: Readable; readonly name: string };

async function openInput(shell: Shell, { file, texts }: ProduceOptions): Promise<Input> {
  if (texts !== undefined) return { type: 'texts', texts };
  if (file === undefined || file === '-') {
    if (shell.stdinIsTerminal) shell.stderr.write('Each line that you type is a message; Ctrl-D ends.\n');
    return { type: 'stream', stream: shell.stdin, name: 'stdin' };
  }
  try {
    return { type: 'stream', stream: await shell.openFile(file), name: file };
  } catch (error) {
    throw inputError(file, error);
  }
}

function inputError(name: string, error: unknown): MagnetarError {
  if (error instanceof MagnetarError) return error;
  return new MagnetarError('INVALID_ARGUMENT', `cannot read ${name} (${platformReason(error)})`, { cause: error });
}

/** Where a publication ended before its input did. */
function placeOf(publication: Publication, input: Input): string {
  return `line ${publication.line}${input.type === 'stream' ? ` of ${input.name}` : ''}`;
}

/**
 * Reads the input and sends it; the first thing that goes wrong is kept in the publication. Resolves with whether all of it was
 * sent.
 */
async function sendInput(publication: Publication, input: Input, interrupted: AbortSignal): Promise<boolean> {
  try {
    if (input.type === 'stream') await sendLines(publication, addAbortSignal(publication.ends, input.stream));
    else
      await sendAll(
        publication,
        input.texts.map((text) => Buffer.from(text)),
      );
    return !publication.over;
  } catch (error) {
    const isInput = input.type === 'stream' && !(error instanceof OutputClosed);
    if (!interrupted.aborted) publication.fail(isInput ? inputError(input.name, error) : error);
    return false;
  }
}

/** Resolves when stdout has taken the ids. @throws CANCELLED when it was closed before all of the input was sent, else OutputClosed */
async function finishOutput(output: ChunkedOutput, stoppedAt: string | undefined): Promise<void> {
  try {
    await output.finish();
  } catch (error) {
    if (!(error instanceof OutputClosed) || stoppedAt === undefined) throw error;
    throw new MagnetarError('CANCELLED', `stopped at ${stoppedAt}: standard output was closed`, { cause: error });
  }
}

/** `magnetar produce`. Resolves with the exit code. @throws MagnetarError the first thing that failed */
export async function produce(shell: Shell, options: ProduceOptions): Promise<number> {
  const input = await openInput(shell, options);
  const { topic, serviceUrl } = options;
  const client = newClient(shell, serviceUrl);
  try {
    const limits = { maxPendingBytes: 2 * WINDOW_BYTES, maxPendingMessages: 2 * WINDOW_MESSAGES };
    const { compression } = options;
    const opening = client.createProducer({ topic, compression, ...limits }, { signal: shell.interrupted });
    const producer = await whenOpen(shell, serviceUrl, opening);
    const output = new ChunkedOutput<undefined>(shell.stdout, shell.clock);
    const progress = new Progress(shell);
    const publication = new Publication(shell, options, producer, output, progress);
    const whole = await sendInput(publication, input, shell.interrupted);
    await publication.finish();
    progress.finish(topic);
    await finishOutput(output, whole ? undefined : placeOf(publication, input));
    if (publication.failure !== undefined) throw publication.failure;
    await producer.close();
    // A person who types lines ends with Ctrl-C as well as with Ctrl-D; any other input was cut short.
    const typed = input.type === 'stream' && input.stream === shell.stdin && shell.stdinIsTerminal;
    if (!shell.interrupted.aborted || typed) return EXIT_DONE;
    if (!whole) shell.stderr.write(`magnetar: interrupted at ${placeOf(publication, input)}\n`);
    return EXIT_FAILED;
  } finally {
    await client.close();
  }
}
