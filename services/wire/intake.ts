/** What comes in over HTTP/2, before anybody of ours has seen it: frames that are not complete, and opened windows. */
import {
  constants,
  type Http2Server,
  type Http2Session,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import type { MagnetarError } from '../lib/errors.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Holder, StallGuard } from '../runtime/stall-guard.ts';

/** A window of HTTP/2 as every connection has it: what a client may send that is not read. */
export const NARROW_WINDOW_BYTES = 65_535;
/**
 * One that is opened for a client that sends much: payloads of 64 KB then travel four times as fast. The more there are, the
 * narrower the next one.
 */
const WIDEST_BYTES = 2_097_152;
const LEAST_WIDE_BYTES = 262_144;
const PART_FOR_ONE: number = 1 / 8;
/** Opened windows may have this part of the memory. */
const PART_FOR_WINDOWS: number = 1 / 2;
/** A window that is not used is closed when another one is wanted, after so long. */
const WINDOW_IDLE_MS = 5_000;
/** After so many bytes a client sends much. */
const MUCH_BYTES = 262_144;
/** Frames up to this size are not counted: they come with others in one piece. */
const SMALL_FRAME_BYTES = 8_192;
/** Whoever sends as many bytes gets on. */
const PROGRESS_BYTES = 65_536;
const PREFIX_BYTES = 5;
/** Streams whose frames wait for memory. What comes on others is small, and makes room for more: acknowledgments, permits. */
const WRITES = /\/(Publish|Append)$/;
/** On the other streams a frame waits only if it is larger than this. */
const LARGE_FRAME_BYTES = 1_048_576;

/** Who has sent so much in whole frames is a client that ends what it begins. */
const PROVEN_BYTES = 262_144;

/** Memory for what comes in. */
export interface IntakeMemory {
  readonly intake: StallGuard;
  /** For frames of clients that have not yet sent much: no number of clients that begin frames comes in the way of the others. */
  readonly firstIntake: StallGuard;
}

/** One connection: its window. */
class Sender {
  activeAt: number;
  /** The bytes of its window that were taken; 0: it is narrow. */
  wideBytes = 0;
  #received = 0;
  #completeBytes = 0;
  readonly #session: Http2Session;
  readonly #intake: Intake;

  constructor(session: Http2Session, intake: Intake) {
    this.#session = session;
    this.#intake = intake;
    this.activeAt = intake.clock.monotonic();
    session.on('close', () => this.narrow());
  }

  /** Bytes have come. */
  received(bytes: number): void {
    this.activeAt = this.#intake.clock.monotonic();
    if (this.wideBytes > 0) return;
    this.#received += bytes;
    if (this.#received < MUCH_BYTES) return;
    this.#received = 0; // refused, it asks again later
    if (this.#session.closed) return;
    this.#intake.widen(this);
    if (this.wideBytes > 0) this.#session.settings({ initialWindowSize: this.wideBytes });
  }

  /** A whole frame has come. */
  completed(bytes: number): void {
    if (this.#completeBytes < PROVEN_BYTES) this.#completeBytes += bytes;
  }

  /** Of the memory for its frames. */
  get guard(): StallGuard {
    const { intake, firstIntake } = this.#intake.memory;
    return this.#completeBytes < PROVEN_BYTES ? firstIntake : intake;
  }

  /** Gives the wide window back. Idempotent. */
  narrow(): void {
    if (this.wideBytes === 0) return;
    this.#intake.narrowed(this);
    this.wideBytes = 0;
    if (!this.#session.closed && !this.#session.destroyed) {
      this.#session.settings({ initialWindowSize: NARROW_WINDOW_BYTES });
    }
  }
}

/**
 * One stream: each of its frames takes memory before it comes in, and gives it back when the next bytes are read, which is
 * after the frame was handled (`readOneByOne`).
 */
class FrameMeter implements Holder {
  progressAt = 0;
  readonly #stream: ServerHttp2Stream;
  readonly #sender: Sender;
  /** Of the memory of the frame that is coming, and of those that are complete. */
  #guard: StallGuard;
  /** Frames above this size wait for memory. */
  readonly #patientAbove: number;
  readonly #maxFrameBytes: number;
  /** While the frame waits. */
  #waiting: AbortController | undefined;
  #prefix = 0;
  #size = 0;
  #frames = 0;
  /** What is to come of the frame. */
  #remaining = 0;
  /** Taken for the frame that is coming, and for those that are complete and not handled. */
  #coming = 0;
  #complete = 0;
  #progress = 0;
  #paused = false;

  constructor(stream: ServerHttp2Stream, sender: Sender, intake: Intake, writes: boolean) {
    this.#patientAbove = writes ? 0 : LARGE_FRAME_BYTES;
    this.#maxFrameBytes = intake.maxFrameBytes;
    this.#stream = stream;
    this.#sender = sender;
    this.#guard = sender.guard;
  }

  start(): void {
    this.#stream.on('data', (chunk: Buffer) => this.#onData(chunk));
    this.#stream.on('resume', () => this.#onResume());
    this.#stream.on('close', () => this.#close());
  }

  /** What its client alone can free: a frame that is handled by us is none of his. */
  get heldBytes(): number {
    return this.#remaining > 0 ? this.#coming : 0;
  }

  /** A client that neither sends the rest nor goes away. */
  end(_error: MagnetarError): void {
    this.#refuse();
  }

  /** Ends the stream with what gRPC knows as RESOURCE_EXHAUSTED. */
  #refuse(): void {
    this.#stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }

  #onData(chunk: Buffer): void {
    this.#sender.received(chunk.length);
    for (let at = 0; at < chunk.length; ) {
      if (this.#remaining === 0) {
        at = this.#readPrefix(chunk, at);
        continue;
      }
      const bytes = Math.min(this.#remaining, chunk.length - at);
      at += bytes;
      this.#remaining -= bytes;
      this.#progress += bytes;
      if (this.#remaining === 0) this.#completed();
      else if (this.#progress >= PROGRESS_BYTES) this.#moved();
    }
  }

  #moved(): void {
    this.#progress = 0;
    this.progressAt = this.#guard.clock.monotonic();
  }

  /** The prefix of a frame: a flag, and four bytes of length. Returns where it ends. */
  #readPrefix(chunk: Buffer, from: number): number {
    let at = from;
    for (; at < chunk.length && this.#prefix < PREFIX_BYTES; at++) {
      if (this.#prefix > 0) this.#size = this.#size * 256 + (chunk[at] as number);
      this.#prefix++;
    }
    if (this.#prefix < PREFIX_BYTES) return at;
    this.#remaining = this.#size;
    this.#prefix = 0;
    this.#size = 0;
    if (this.#remaining > SMALL_FRAME_BYTES) this.#begin(this.#remaining);
    return at;
  }

  #begin(size: number): void {
    if (size > this.#maxFrameBytes) return; // the stream will end with it
    if (this.#complete === 0 && this.#waiting === undefined) this.#guard = this.#sender.guard;
    const { share } = this.#guard;
    const bytes = Math.min(size, share.mostBytes);
    this.#frames++;
    this.#moved();
    if (!share.tryTake(bytes)) {
      if (this.#waiting === undefined && size > this.#patientAbove) {
        void this.#wait(bytes, this.#frames);
        return;
      }
      share.charge(bytes);
    }
    this.#take(bytes);
  }

  #take(bytes: number): void {
    this.#coming = bytes;
    this.#guard.add(this);
  }

  /** Nothing more is read until there is memory for the frame. */
  async #wait(bytes: number, frame: number): Promise<void> {
    const waiting = new AbortController();
    this.#waiting = waiting;
    if (!this.#stream.isPaused()) this.#pause();
    try {
      await this.#guard.take(bytes, waiting.signal);
    } catch {
      if (!waiting.signal.aborted) this.#refuse();
      return;
    }
    if (waiting.signal.aborted) {
      this.#guard.share.give(bytes);
      return;
    }
    this.#waiting = undefined;
    this.#moved();
    if (this.#remaining > 0 && frame === this.#frames) this.#take(bytes);
    else this.#complete += bytes; // it had come in one piece
    if (!this.#paused) return;
    this.#paused = false;
    this.#stream.resume();
  }

  #pause(): void {
    this.#paused = true;
    this.#stream.pause();
  }

  #completed(): void {
    this.#guard.remove(this);
    this.#sender.completed(this.#coming);
    this.#complete += this.#coming;
    this.#coming = 0;
  }

  /** Somebody wants to read on: what was complete is handled. */
  #onResume(): void {
    this.#giveComplete();
    if (this.#waiting !== undefined) this.#pause();
  }

  #giveComplete(): void {
    if (this.#complete === 0) return;
    const bytes = this.#complete;
    this.#complete = 0;
    this.#guard.share.give(bytes);
  }

  #close(): void {
    this.#waiting?.abort();
    this.#guard.remove(this);
    this.#complete += this.#coming;
    this.#coming = 0;
    this.#giveComplete();
  }
}

/** All of a server's. */
export class Intake {
  readonly memory: IntakeMemory;
  readonly clock: Clock;
  readonly #senders: WeakMap<Http2Session, Sender> = new WeakMap();
  /** With wide windows. */
  readonly #wide: Set<Sender> = new Set();
  #wideBytes = 0;

  /** Frames above this size end their stream. */
  readonly maxFrameBytes: number;

  constructor(memory: IntakeMemory, maxFrameBytes: number) {
    this.memory = memory;
    this.clock = memory.intake.clock;
    this.maxFrameBytes = maxFrameBytes;
  }

  /** Counts what comes in on a server, which grpc-js has bound. */
  watch(server: Http2Server): void {
    server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      const { session } = stream;
      if (session === undefined || stream.destroyed) return;
      let sender = this.#senders.get(session);
      if (sender === undefined) {
        sender = new Sender(session, this);
        this.#senders.set(session, sender);
      }
      new FrameMeter(stream, sender, this, WRITES.test(headers[':path'] ?? '')).start();
    });
  }

  /** Takes memory for a wide window; that of others who send nothing any more, if need be. */
  widen(sender: Sender): void {
    const bytes = this.#windowBytes() || this.#narrowIdle();
    if (bytes === 0 || !this.memory.intake.share.tryTake(bytes)) return;
    sender.wideBytes = bytes;
    this.#wideBytes += bytes;
    this.#wide.add(sender);
  }

  narrowed(sender: Sender): void {
    this.#wide.delete(sender);
    this.#wideBytes -= sender.wideBytes;
    this.memory.intake.share.give(sender.wideBytes);
  }

  /** How wide the next window may be; 0: there is no memory for another one. */
  #windowBytes(): number {
    const free = this.memory.intake.share.mostBytes * PART_FOR_WINDOWS - this.#wideBytes;
    let bytes = WIDEST_BYTES;
    while (bytes > LEAST_WIDE_BYTES && bytes > free * PART_FOR_ONE) bytes /= 2;
    return bytes <= free ? bytes : 0;
  }

  #narrowIdle(): number {
    const before = this.clock.monotonic() - WINDOW_IDLE_MS;
    for (const sender of this.#wide) if (sender.activeAt < before) sender.narrow();
    return this.#windowBytes();
  }
}
