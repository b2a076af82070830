import { PassThrough, Readable, Writable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeBroker } from '../client/testing/fake-broker.ts';
import { OutputClosed } from './chunked-output.ts';
import { produce, type ProduceOptions } from './produce.ts';
import { shellWith } from './testing/shell.ts';

let broker: FakeBroker;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
});

afterEach(() => {
  broker.crash();
  broker.checkClean();
});

function options(more: Partial<ProduceOptions> = {}): ProduceOptions {
  const none = { file: undefined, texts: undefined, key: undefined, properties: undefined, rate: undefined };
  return { serviceUrl: broker.url, topic: 't', ids: false, compression: 'none', ...none, ...more };
}

test('prints ids as JSON, also where a place is not known', async () => {
  const stdout = new PassThrough();
  let batches = 0;
  broker.hooks.batch = (_, topic) => {
    if (batches++ === 1) topic.watermarks.set('made-1', 1n as never); // somebody else has stored it meanwhile
    return 'store';
  };
  const shell = shellWith(Readable.from([]), stdout);
  expect(await produce(shell, options({ texts: ['a', 'b'], rate: 20, ids: true }))).toBe(0);
  const lines = String(stdout.read()).trimEnd().split('\n');
  expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
    { line: 0, id: '7:0:0', index: 0 },
    { line: 1, id: null, index: null },
  ]);
});

test('ends when messages are refused, although the input says nothing any more', async () => {
  broker.hooks.batch = () => ({ refuse: 'PRODUCER_FENCED', retryable: false });
  const stdin = new PassThrough();
  stdin.write('a\n');
  const run = produce(shellWith(stdin, new PassThrough()), options());
  await expect(run).rejects.toMatchObject({ code: 'PRODUCER_FENCED', message: /^line 0: / });
});

test('ends when a message is refused, although the pace leaves long until the next one', async () => {
  broker.hooks.batch = () => ({ refuse: 'TOPIC_NOT_FOUND', retryable: false });
  const run = produce(shellWith(Readable.from([]), new PassThrough()), options({ texts: ['a', 'b'], rate: 0.001 }));
  await expect(run).rejects.toMatchObject({ code: 'TOPIC_NOT_FOUND', message: /^line 0: / });
});

/** Nobody reads it. */
function closedOutput(): Writable {
  const gone = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
  return new Writable({ write: (_chunk, _encoding, done) => done(gone) });
}

test('says where it stopped when nobody reads the ids any more', async () => {
  const stdin = new PassThrough();
  const endless = setInterval(() => stdin.write('a\n'), 1);
  const run = produce(shellWith(stdin, closedOutput()), options({ ids: true }));
  await expect(run).rejects.toMatchObject({
    code: 'CANCELLED',
    message: expect.stringMatching(/^stopped at line \d+ of stdin: standard output was closed$/) as string,
  });
  clearInterval(endless);
  expect((await run.catch((error: Error) => error)).toString()).toContain(`line ${broker.topic('t').texts.length} of`);
});

test('ends quietly when nobody reads the ids of what is all published', async () => {
  const run = produce(shellWith(Readable.from([]), closedOutput()), options({ ids: true, texts: ['a', 'b'] }));
  await expect(run).rejects.toBeInstanceOf(OutputClosed);
  expect(broker.topic('t').texts).toEqual(['a', 'b']);
});

test('says where it was interrupted', async () => {
  const interrupt = new AbortController();
  const stdin = new PassThrough();
  const stderr = new PassThrough();
  const shell = { ...shellWith(stdin, new PassThrough()), stderr, interrupted: interrupt.signal };
  stdin.write('a\nb\n');
  const run = produce(shell, options());
  await expect.poll(() => broker.topic('t').texts).toEqual(['a', 'b']);
  interrupt.abort();
  expect(await run).toBe(1);
  expect(String(stderr.read())).toMatch(/\nmagnetar: interrupted at line 2 of stdin\n$/);
});
