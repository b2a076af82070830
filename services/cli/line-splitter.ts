import { MagnetarError } from '../lib/errors.ts';

const LF = 10;

/**
 * Cuts a stream of bytes into lines at LF and nowhere else: CR, NUL and whatever is not UTF-8 stay as they are. A last
 * line without LF counts; an empty line is a line.
 */
export class LineSplitter {
  readonly #longestBytes: number;
  /** The beginning of a line whose LF has not come yet. */
  #pieces: Buffer[] = [];
  #piecesBytes = 0;
  #lines = 0;

  /** `longestBytes` bounds what is held for one line, without its LF. */
  constructor(longestBytes: number) {
    this.#longestBytes = longestBytes;
  }

  /**
   * The lines that end in the next bytes, as views where they do not reach back into earlier ones. Nobody may change the
   * bytes any more. To be iterated to the end before the next call. @throws MESSAGE_TOO_LARGE
   */
  *split(chunk: Buffer): Generator<Buffer> {
    let at = 0;
    for (let lf = chunk.indexOf(LF); lf !== -1; lf = chunk.indexOf(LF, at)) {
      const tail = chunk.subarray(at, lf);
      at = lf + 1;
      yield this.#line(tail);
    }
    if (at < chunk.length) this.#keep(chunk.subarray(at));
  }

  /** The last line, when it has no LF. */
  end(): Buffer | undefined {
    return this.#piecesBytes === 0 ? undefined : this.#line(Buffer.alloc(0));
  }

  #keep(piece: Buffer): void {
    this.#check(piece.length);
    this.#pieces.push(piece);
    this.#piecesBytes += piece.length;
  }

  #line(tail: Buffer): Buffer {
    this.#check(tail.length);
    this.#lines += 1;
    if (this.#piecesBytes === 0) return tail;
    const line = Buffer.concat([...this.#pieces, tail]);
    this.#pieces = [];
    this.#piecesBytes = 0;
    return line;
  }

  #check(bytes: number): void {
    if (this.#piecesBytes + bytes <= this.#longestBytes) return;
    throw new MagnetarError(
      'MESSAGE_TOO_LARGE',
      `line ${this.#lines} of the input (counted from 0) is longer than ${this.#longestBytes} bytes, the most that a message can have`,
      { details: { limit: String(this.#longestBytes) } },
    );
  }
}
