import { PassThrough, Readable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeBroker } from '../client/testing/fake-broker.ts';
import { perfProduce } from './perf-produce.ts';
import { shellWith } from './testing/shell.ts';

let broker: FakeBroker;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
});

afterEach(() => {
  broker.crash();
  broker.checkClean();
});

test('large messages that are stored a few at a time do not fill the queue', async () => {
  const stdout = new PassThrough();
  const options = {
    serviceUrl: broker.url,
    topic: 't',
    rate: 0,
    producers: 1,
    compression: 'none',
    csv: undefined,
  } as const;
  const shell = shellWith(Readable.from([]), stdout);
  expect(await perfProduce(shell, { ...options, size: 65_536, duration: 0.5, output: 'json' })).toBe(0);
  expect(JSON.parse(String(stdout.read()))).toMatchObject({ errors: 0 });
});
