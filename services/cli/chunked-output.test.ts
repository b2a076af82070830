import { Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { ManualClock } from '../runtime/testing/manual-clock.ts';
import { ChunkedOutput, OutputClosed } from './chunked-output.ts';

/** A stream that takes a chunk when the test says so. */
class Gate extends Writable {
  readonly chunks: Buffer[] = [];
  #waiting: (() => void)[] = [];

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.chunks.push(Buffer.from(chunk));
    this.#waiting.push(done);
  }

  /** Lets the chunk that is being written through; the stream then begins the next one. */
  async take(): Promise<void> {
    this.#waiting.shift()?.();
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }
}

function setUp(): { clock: ManualClock; gate: Gate; taken: string[]; output: ChunkedOutput<string> } {
  const [clock, gate, taken] = [new ManualClock(), new Gate(), new Array<string>()];
  return { clock, gate, taken, output: new ChunkedOutput<string>(gate, clock, (tag) => taken.push(tag)) };
}

describe('ChunkedOutput', () => {
  test('writes what one turn says as one chunk, and says what was taken only when it was', async () => {
    const { clock, gate, taken, output } = setUp();
    for (const word of ['one', 'two', 'three']) {
      output.writeText(word);
      output.writeByte(10);
      output.commit(word);
    }
    expect(gate.chunks).toEqual([]);
    clock.turn();
    expect(gate.text).toBe('one\ntwo\nthree\n');
    expect(gate.chunks).toHaveLength(1);
    expect(taken).toEqual([]);
    await gate.take();
    expect(taken).toEqual(['three']);
  });

  test('a record that is not complete is not counted as taken', async () => {
    const { gate, taken, output } = setUp();
    output.writeText('whole');
    output.commit('whole');
    output.writeText('half');
    output.flush();
    await gate.take();
    expect(gate.text).toBe('wholehalf');
    expect(taken).toEqual(['whole']);
  });

  test('a large record is not copied, and order stays', async () => {
    const { gate, taken, output } = setUp();
    const large = Buffer.alloc(600_000, 'L');
    output.writeText('before ');
    output.write(large);
    output.writeText(' after');
    output.commit('all');
    const finished = output.finish();
    for (let i = 0; i < 4; i++) await gate.take();
    await finished;
    expect(gate.text).toBe(`before ${large.toString()} after`);
    expect(taken).toEqual(['all']);
  });

  test('is behind while the stream does not take chunks; drained() waits for it', async () => {
    const { gate, output } = setUp();
    for (let i = 0; i < 40; i++) {
      output.write(Buffer.alloc(100_000));
      output.commit(`${i}`);
    }
    output.flush();
    expect(output.behind).toBe(true);
    let drained = false;
    const wait = output.drained().then(() => {
      drained = true;
    });
    await gate.take();
    expect(drained).toBe(false);
    for (let i = 0; i < 30; i++) await gate.take();
    await wait;
    expect(output.behind).toBe(false);
  });

  test('a reader that has gone away is OutputClosed, and nothing counts as taken any more', async () => {
    const { gate, taken, output } = setUp();
    output.writeText('x');
    output.commit('x');
    output.flush();
    const finished = output.finish();
    gate.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
    await expect(finished).rejects.toBeInstanceOf(OutputClosed);
    await expect(output.drained()).rejects.toBeInstanceOf(OutputClosed);
    expect(output.behind).toBe(true);
    expect(taken).toEqual([]);
  });

  test('text of any characters comes out as UTF-8', async () => {
    const { gate, output } = setUp();
    const texts = ['ä€😀', '\u0000', 'x'.repeat(300_000), '€'.repeat(90_000)];
    for (const text of texts) output.writeText(text);
    output.flush();
    for (let i = 0; i < 8; i++) await gate.take();
    expect(gate.text).toBe(texts.join(''));
  });
});
