/** Compression over the built program and real servers: what goes in comes out, over kill -9, partial acks and lies. */
import { once } from 'node:events';
import { createDeflate, inflateSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Client, type CompressionType, type Consumer, type MagnetarError } from '../services/client/index.ts';
import { ProtoWriter } from '../services/lib/bytes.ts';
import { runCommand, type ServerProcess, startStandalone } from './support/process.ts';
import { HELLO, publishStream, storedBlocks } from './support/raw-stream.ts';
import { refusalOf } from './support/refusal.ts';
import { memoryOf } from './support/well-behaved.ts';

const TYPES = ['lz4', 'zstd', 'snappy', 'zlib'] as const satisfies readonly CompressionType[];
const MUCH_MB = 150;
/** Lines as an app would log them. */
const LINES = Array.from({ length: 3_000 }, (_, i) => {
  return JSON.stringify({ order: i, customer: `c-${(i * 7_919) % 10_007}`, amount: (i * 31) % 997, status: 'paid' });
});

let server: ServerProcess;
let client: Client;
beforeAll(async () => {
  server = await startStandalone();
  client = new Client({ serviceUrl: server.serviceUrl });
});
afterAll(async () => {
  await client?.close();
  await server?.[Symbol.asyncDispose]();
});

async function run(...args: readonly string[]): Promise<string> {
  const command = [...args, '--service-url', server.serviceUrl];
  const { code, stdout, stderr } = await runCommand(command, { input: `${LINES.join('\n')}\n` });
  expect(`${code} ${code === 0 ? '' : stderr}`).toBe('0 ');
  return stdout.toString();
}

async function restart(): Promise<void> {
  await server.kill();
  await server.start();
}

test('what was produced in each way is consumed after kill -9, and took less room', async () => {
  for (const type of ['none', ...TYPES]) await run('produce', `lines-${type}`, '--compression', type);
  await restart();
  const sizes: Record<string, number> = {};
  for (const [number, type] of ['none', ...TYPES].entries()) {
    const consumed = await run('consume', `lines-${type}`, '-s', 's', '--exit-at-end');
    expect(consumed).toBe(`${LINES.join('\n')}\n`);
    const blocks = await storedBlocks(server.port, `lines-${type}`);
    expect(new Set(blocks.map(({ compression }) => compression))).toEqual(new Set([number]));
    sizes[type] = blocks.reduce((sum, { payload }) => sum + payload.length, 0);
  }
  const ratios = TYPES.map((type) => [type, (sizes['none'] ?? 0) / (sizes[type] ?? 1)] as const);
  console.log(
    `stored, against uncompressed: ${ratios.map(([type, ratio]) => `${type} 1/${ratio.toFixed(1)}`).join(', ')}`,
  );
  for (const [, ratio] of ratios) expect(ratio).toBeGreaterThan(2);
});

async function take(
  consumer: Consumer,
  count: number,
): Promise<{ text: string; entry: number; ack: () => Promise<void> }[]> {
  const taken = [];
  while (taken.length < count) {
    const message = await consumer.receive({ timeoutMs: 10_000 });
    const ack = async (): Promise<void> => await consumer.acknowledge(message);
    taken.push({ text: message.data.toString(), entry: message.messageId.entryId, ack });
  }
  return taken;
}

test.each(TYPES)('%s: of a batch that is acknowledged in part the rest comes again', async (compression) => {
  const topic = `partial-${compression}`;
  const texts = LINES.slice(0, 100);
  const producer = await client.createProducer({ topic, compression });
  await Promise.all(texts.map((data) => producer.send({ data })));
  const first = await client.subscribe({ topic, subscription: 's', startPosition: 'earliest' });
  const all = await take(first, 100);
  expect(all.map(({ text }) => text)).toEqual(texts);
  expect(new Set(all.map(({ entry }) => entry)).size).toBe(1);
  await Promise.all(all.filter((_, i) => i % 3 !== 0).map(async ({ ack }) => await ack()));
  await first.close();
  if (compression === 'lz4') await restart();
  const second = await client.subscribe({ topic, subscription: 's' });
  const rest = await take(second, 34);
  expect(rest.map(({ text }) => text)).toEqual(texts.filter((_, i) => i % 3 === 0));
  await second.close();
});

/** Has a client of another make publish these payload areas to a topic, each said to be one message of `size` bytes. */
async function publishRaw(
  topic: string,
  compression: number,
  size: number,
  payloads: readonly Buffer[],
): Promise<unknown[]> {
  await using stream = publishStream(server.port);
  stream.send({ hello: HELLO, opens: [{ producer: 1, topic, name: 'p', instance: Buffer.from('i') }] });
  const batches = payloads.map((payload, i) => {
    const block = new ProtoWriter();
    block.string(1, 'p');
    block.varint(3, i);
    block.varint(4, i);
    block.varint(5, 1);
    block.varint(7, compression);
    block.varint(8, size);
    block.bytes(15, payload);
    return { producer: 1, block: block.finish() };
  });
  stream.send({ batches });
  return await stream.until((frames) => {
    const receipts = frames.flatMap((frame) => frame.receipts ?? []);
    return receipts.length === payloads.length ? receipts.map(({ error }) => error?.code) : undefined;
  });
}

/** 400 MB of zeros in zlib: some 400 KB. */
async function bomb(): Promise<Buffer> {
  const deflate = createDeflate();
  const chunks: Buffer[] = [];
  deflate.on('data', (chunk: Buffer) => chunks.push(chunk));
  const zeros = Buffer.alloc(4_000_000);
  for (let i = 0; i < 100; i++) await new Promise((resolve) => deflate.write(zeros, resolve));
  deflate.end();
  await once(deflate, 'end');
  return Buffer.concat(chunks);
}

/** Megabytes that this process has held at most. */
function mostMegabytes(): number {
  return process.resourceUsage().maxRSS / 1_024;
}

describe('a block that lies', () => {
  test('is refused by the broker where it can be seen; it opens nothing', async () => {
    const zlib = await bomb();
    const before = await memoryOf(server);
    expect(await publishRaw('lies', 4, 0, [zlib])).toEqual(['INVALID_ARGUMENT']);
    expect(await publishRaw('lies', 4, 400_000_000, [zlib])).toEqual(['MESSAGE_TOO_LARGE']);
    expect(await publishRaw('lies', 3, 1_000, [zlib])).toEqual(['INVALID_ARGUMENT']);
    expect(await publishRaw('bombs', 4, 1_000, [zlib, zlib, zlib])).toEqual([undefined, undefined, undefined]);
    expect((await memoryOf(server)).most - before.most).toBeLessThan(MUCH_MB);
  });

  test('costs a consumer an error that names it, and no memory; what follows is consumed', async () => {
    const producer = await client.createProducer({ topic: 'bombs' });
    await producer.send({ data: 'behind' });
    const consumer = await client.subscribe({ topic: 'bombs', subscription: 's', startPosition: 'earliest' });
    await client.createReader({ topic: 'bombs' }); // and everything is warm
    const before = mostMegabytes();
    const errors: MagnetarError[] = [];
    for (let i = 0; i < 3; i++) errors.push(await refusalOf(consumer.receive({ timeoutMs: 10_000 })));
    expect(mostMegabytes() - before).toBeLessThan(MUCH_MB);
    for (const [i, { code, message }] of errors.entries()) {
      expect(code).toBe('DATA_LOSS');
      expect(message).toMatch(
        new RegExp(`^entry \\d+:${i} of bombs, with the messages ${i} to ${i}, cannot be read: .*zlib`),
      );
    }
    expect((await take(consumer, 1))[0]?.text).toBe('behind');
    // That the measure shows a decompression without a limit.
    expect(inflateSync(await bomb()).length).toBe(400_000_000);
    expect(mostMegabytes() - before).toBeGreaterThan(MUCH_MB);
  });
});
