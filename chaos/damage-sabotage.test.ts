/** What the damage matrix stands on: a system that does not look at checksums, or keeps losses to itself, is found out. */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import type { toConsumeResponse as toResponse } from '../services/broker/server/consume-frame.ts';
import { temporaryFolder } from './support/process.ts';

type ToResponse = typeof toResponse;

let data: string | undefined;
afterEach(async () => {
  vi.doUnmock('../services/lib/crc32c.ts');
  vi.doUnmock('../services/broker/server/consume-frame.ts');
  vi.resetModules();
  if (data !== undefined) await rm(data, { recursive: true, force: true, maxRetries: 3 });
});

/** The system and the checker, made of the modules as they are replaced now, on a folder with a damaged message. */
async function lookAtFlipped(): Promise<string> {
  vi.resetModules();
  const { startStandalone } = await import('../services/main/embedded.ts');
  const { fill, flipText, textOf } = await import('./support/damage.ts');
  const { lookHere } = await import('./support/damage-matrix.ts');
  data = await temporaryFolder();
  const server = await startStandalone({ data, port: false });
  await fill(server.client());
  await server.close();
  await flipText(path.join(data, 'bookie-0'), textOf('first', 250));
  return await lookHere(data).then(
    (report) => JSON.stringify(report),
    (error: unknown) => String(error),
  );
}

test('as it is: the batch with the message is lost, and that is said', async () => {
  expect(await lookAtFlipped()).toMatch(/"lost":\["240-259"\]/);
});

test('checksums that nobody looks at: a wrong byte is served, and noticed', async () => {
  vi.doMock('../services/lib/crc32c.ts', async (original) => {
    return Object.fromEntries(Object.keys(await original<object>()).map((name) => [name, () => 7]));
  });
  expect(await lookAtFlipped()).toMatch(/Error: first: 250 is "/);
});

test('losses that are kept from consumers: the messages are missed', async () => {
  vi.doMock('../services/broker/server/consume-frame.ts', async (original) => {
    const { toConsumeResponse } = await original<{ toConsumeResponse: ToResponse }>();
    const silent: ToResponse = (items, credit) => ({ ...toConsumeResponse(items, credit), losses: [] });
    return { toConsumeResponse: silent };
  });
  expect(await lookAtFlipped()).toMatch(/message 240 is not there, and nobody says so/);
});
