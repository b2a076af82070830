import { afterEach, beforeEach, expect, test } from 'vitest';
import { brokerService } from '../wire/services.ts';
import type { FailedStatus } from '../wire/status.ts';
import { Link } from './link.ts';
import { parseServiceUrl } from './service-url.ts';
import { FakeBroker } from './testing/fake-broker.ts';

let broker: FakeBroker;
let link: Link;

beforeEach(async () => {
  broker = await new FakeBroker().listen();
  link = new Link(parseServiceUrl(broker.url));
});

afterEach(() => {
  link.close();
  broker.crash();
});

/** What becomes of a new stream: "hello", or why it failed. */
function attempt(): Promise<string> {
  const stream = link.openStream(brokerService.Publish);
  return new Promise((resolve) => {
    stream.once('data', () => {
      stream.cancel();
      resolve('hello');
    });
    stream.on('error', (error: FailedStatus) => resolve(link.reason(error).message));
    stream.write({ hello: { protocolVersion: 1, features: [], client: 'test' } });
  });
}

test('a broker that is back is reached by the next try, whatever came before', async () => {
  expect(await attempt()).toBe('hello');
  broker.crash();
  for (let i = 0; i < 8; i++) expect(await attempt()).toMatch(/cannot reach the broker at/);
  await broker.listen();
  expect(await attempt()).toBe('hello');
});
