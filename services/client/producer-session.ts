import { MagnetarError } from '../lib/errors.ts';
import type { Epoch, SequenceId } from '../lib/ids.ts';
import { epoch as toEpoch } from '../lib/ids.ts';
import type { Timer } from '../runtime/clock.ts';
import type { ProducerClosed, ProducerOpened, Receipt, WireError } from '../wire/frames.ts';
import { fromWireError } from '../wire/status.ts';
import type { Deferred } from './abort.ts';
import { deferred } from './abort.ts';
import type { Batch } from './batch.ts';
import { InFlight } from './protocol/in-flight.ts';
import type { PublishChannel, PublishMember } from './publish-channel.ts';
import { reconnectDelay } from './stream-keeper.ts';

const INSTANCE_BYTES = 16;

/**
 * down: there is no stream. waiting: until the next try. opening: asked, not answered. open: batches go out.
 * closing: asked to close, not answered. ended: closed or failed, for good.
 */
type State = 'down' | 'waiting' | 'opening' | 'open' | 'closing' | 'ended';

/** What the broker granted when the producer was opened first. */
export interface Granted {
  readonly name: string;
  readonly epoch: Epoch;
  readonly lastSequenceId: SequenceId | undefined;
}

/** Told of what becomes of batches, in their order. */
export interface ProducerEvents {
  stored(batch: Batch, receipt: Receipt): void;
  /** This batch alone was refused. */
  refused(batch: Batch, error: MagnetarError): void;
  /** Batches go out (again). */
  ready(): void;
  /** The producer is no more; what is in the window is the listener's to settle. */
  failed(error: MagnetarError): void;
}

/**
 * One producer on the publish stream: opens it, sends its window in order, and after a lost stream or a refusal
 * opens it anew, under the same name and instance, and sends again what has no receipt. Deduplication on the broker
 * makes that exactly once, in order.
 */
export class ProducerSession implements PublishMember {
  readonly window: InFlight<Batch> = new InFlight();
  readonly #channel: PublishChannel;
  readonly #topic: string;
  #events: ProducerEvents | undefined;
  readonly #instance: Buffer;
  readonly #granted: Deferred<Granted> = deferred();
  readonly #closed: Deferred<void> = deferred();
  #name: string;
  #grantedOnce = false;
  #state: State = 'down';
  #number = 0;
  #attempt = 0;
  #timer: Timer | undefined;
  #lastError: MagnetarError | undefined;

  constructor(options: { channel: PublishChannel; topic: string; name: string }) {
    this.#channel = options.channel;
    this.#topic = options.topic;
    this.#name = options.name;
    this.#instance = options.channel.environment.random.bytes(INSTANCE_BYTES);
    this.#granted.promise.catch(() => {});
  }

  /** What was granted; rejects when the broker refuses. */
  get granted(): Promise<Granted> {
    return this.#granted.promise;
  }

  /** Why nothing is stored: the last refusal since something was, or why there is no stream. */
  get lastError(): MagnetarError | undefined {
    return this.#lastError ?? this.#channel.lastError;
  }

  /** Why it is over; absent while it is not. */
  get failure(): MagnetarError | undefined {
    return this.#state === 'ended' ? (this.#lastError ?? closedError(this.#topic)) : undefined;
  }

  get open(): boolean {
    return this.#state === 'open';
  }

  get number(): number {
    return this.#number;
  }

  /**
   * No more than a window of the stream waits for receipts: of that many batches the broker remembers where they are
   * stored, so whatever is sent again after a lost stream is answered with its place.
   */
  get nextBatch(): Batch | undefined {
    return this.#state === 'open' && !this.#windowFull ? this.window.next : undefined;
  }

  get #windowFull(): boolean {
    return this.window.underWay >= (this.#channel.limits?.windowItems ?? 0);
  }

  start(): void {
    this.#channel.attach(this);
  }

  /** Says who is told of what becomes of batches. Not once it is over: nothing would be told. */
  tell(events: ProducerEvents): void {
    this.#events = events;
  }

  /** Puts a batch behind all others and sends it as soon as it can. */
  push(batch: Batch): void {
    this.window.push(batch);
    if (this.#state === 'open') this.#channel.offer(this);
  }

  batchSent(): void {
    const batch = this.window.next;
    if (batch !== undefined) batch.attempted = true;
    this.window.sent();
  }

  batchTooLarge(error: MagnetarError): void {
    const batch = this.window.next;
    this.window.dropNext();
    if (batch !== undefined) this.#events?.refused(batch, error);
  }

  turn(): void {
    this.#events?.ready();
  }

  /** Has `ready` called at the end of this turn of the event loop. */
  atTurn(): void {
    this.#channel.atTurn(this);
  }

  streamUp(): void {
    if (this.#state === 'down') this.#open();
  }

  streamDown(error: MagnetarError): void {
    if (this.#state === 'ended') return;
    if (this.#state === 'closing') {
      this.#end();
      return;
    }
    this.#cancelTimer();
    this.#state = 'down';
    this.#number = 0;
    this.#lastError = undefined;
    this.#attempt = 0;
    this.window.restart();
    if (!this.#grantedOnce && !error.retryable) this.fail(error);
  }

  #open(): void {
    const { environment, operationTimeoutMs } = this.#channel;
    this.#state = 'opening';
    this.#number = this.#channel.open(this, { topic: this.#topic, name: this.#name, instance: this.#instance });
    this.#timer = environment.clock.after(operationTimeoutMs, () => {
      const text = `opening a producer on ${this.#topic} was not answered within ${operationTimeoutMs} ms`;
      this.#reopen(new MagnetarError('DEADLINE_EXCEEDED', text));
    });
  }

  opened(answer: ProducerOpened): void {
    if (this.#state !== 'opening') return;
    this.#cancelTimer();
    if (answer.error !== undefined) {
      this.#number = 0;
      const error = fromWireError(answer.error);
      const final = !answer.error.retryable || (!this.#grantedOnce && error.code === 'PRODUCER_BUSY');
      if (final) this.fail(error);
      else this.#reopen(error);
      return;
    }
    if (this.#name !== '' && answer.name !== this.#name) {
      const text = `the broker grants the name ${answer.name} where ${this.#name} was asked for`;
      throw new MagnetarError('PROTOCOL_VIOLATION', text);
    }
    this.#name = answer.name;
    this.#state = 'open';
    if (answer.lastSequenceId !== undefined) this.#cutAt(answer.lastSequenceId);
    if (!this.#grantedOnce) {
      this.#grantedOnce = true;
      const { name, epoch, lastSequenceId } = answer;
      this.#granted.resolve({ name, epoch: toEpoch(epoch), lastSequenceId });
    }
    if (this.window.next !== undefined) this.#channel.offer(this);
    this.#events?.ready();
  }

  #cutAt(watermark: SequenceId): void {
    this.window.cutAt(watermark, (batch) => batch.cutAt(watermark));
  }

  receipt(receipt: Receipt): void {
    const batch = this.window.due(receipt.lastSequenceId);
    const full = this.#windowFull;
    if (receipt.error === undefined) {
      this.#attempt = 0;
      this.#lastError = undefined;
      this.window.settle();
      if (batch !== undefined) this.#events?.stored(batch, receipt);
    } else this.#refused(batch, receipt.error);
    if (full && this.nextBatch !== undefined) this.#channel.offer(this);
  }

  /** A batch was not stored; unless it is the only one, those behind it are refused, too. */
  #refused(batch: Batch | undefined, wire: WireError): void {
    const error = fromWireError(wire);
    if (error.fencing || error.code === 'TOPIC_NOT_FOUND') {
      this.fail(error);
      return;
    }
    const kind = this.#state === 'closing' ? 'alone' : refusal(wire);
    if (kind === 'again' && batch !== undefined) {
      this.#reopen(error);
      if (error.code === 'SEQUENCE_OVERLAP') this.#cutOverlap(batch, error);
      return;
    }
    this.window.settle();
    if (batch !== undefined) this.#events?.refused(batch, error);
    if (kind !== 'alone' && this.#state === 'open') this.#reopen(error);
  }

  /** A part of the batch was stored before, under another cut: cut there, its parts are accepted. */
  #cutOverlap(batch: Batch, error: MagnetarError): void {
    const text = error.details['watermark'];
    const watermark = text !== undefined && /^\d{1,20}$/.test(text) ? (BigInt(text) as SequenceId) : undefined;
    if (watermark === undefined || batch.firstSequenceId > watermark || batch.lastSequenceId <= watermark) {
      throw new MagnetarError('PROTOCOL_VIOLATION', `no watermark within the batch that it refuses: ${error.message}`);
    }
    this.#cutAt(watermark);
  }

  closed(answer: ProducerClosed): void {
    if (this.#state === 'ended') return;
    if (this.#state === 'closing') {
      this.#end();
      return;
    }
    this.#number = 0;
    const text = `the broker closed the producer on ${this.#topic}`;
    const error = answer.error === undefined ? new MagnetarError('UNAVAILABLE', text) : fromWireError(answer.error);
    if (answer.error?.retryable === false) this.fail(error);
    else this.#reopen(error);
  }

  /** Opens the producer anew: what has no receipt is sent again. */
  #reopen(error: MagnetarError): void {
    this.#cancelTimer();
    if (this.#number !== 0) this.#channel.close(this.#number, false);
    this.#number = 0;
    this.#state = 'waiting';
    this.#lastError = error;
    this.window.restart();
    const { environment } = this.#channel;
    environment.logger.warn('producer is opened anew', { topic: this.#topic, producer: this.#name, error });
    this.#timer = environment.clock.after(reconnectDelay(environment, this.#attempt++), () => this.#open());
  }

  #cancelTimer(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Takes back what is not settled, oldest first: none of it is sent (again). */
  abandon(): readonly Batch[] {
    const batches = this.window.abandon();
    if (batches.some((batch) => batch.attempted)) this.#channel.gaveUp();
    return batches;
  }

  /**
   * Closes the producer on the broker; resolves when that has answered, is gone, or took too long. Its answer comes behind the
   * receipts that it owes: where those are for batches that were given up, nobody waits for it.
   */
  close(): Promise<void> {
    const owesGivenUp = this.window.size === 0 && this.window.awaitsReceipts;
    if (this.#state === 'open' && !owesGivenUp) {
      this.#state = 'closing';
      this.#channel.close(this.#number, true);
      const { environment, operationTimeoutMs } = this.#channel;
      this.#timer = environment.clock.after(operationTimeoutMs, () => this.#end());
    } else if (this.#state !== 'closing' && this.#state !== 'ended') {
      if (this.#number !== 0) this.#channel.close(this.#number, false);
      this.#end();
    }
    return this.#closed.promise;
  }

  #end(): void {
    this.#state = 'ended';
    this.#cancelTimer();
    this.#channel.detach(this);
    this.#granted.reject(closedError(this.#topic));
    this.#closed.resolve();
  }

  /** It cannot go on: whoever listens is told. */
  fail(error: MagnetarError): void {
    if (this.#state === 'ended') return;
    if (this.#number !== 0) this.#channel.close(this.#number, false);
    this.#lastError = error;
    this.#granted.reject(error);
    this.#end();
    this.#events?.failed(error);
  }
}

function closedError(topic: string): MagnetarError {
  return new MagnetarError('ALREADY_CLOSED', `the producer on ${topic} is closed`);
}

/**
 * What a refused batch means. alone: it is lost, those behind it are not affected. again: it is to be sent again.
 * lost: it is lost, and the producer has to be opened anew for those behind it.
 */
function refusal(wire: WireError): 'alone' | 'again' | 'lost' {
  switch (wire.code) {
    case 'INVALID_ARGUMENT':
    case 'MESSAGE_TOO_LARGE':
      return 'alone';
    case 'SEQUENCE_OVERLAP':
    case 'CHECKSUM_MISMATCH': // damaged on its way
      return 'again';
    default:
      return wire.retryable ? 'again' : 'lost';
  }
}
