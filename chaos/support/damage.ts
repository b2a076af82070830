/** A data folder with known content, and what a server makes of it after somebody has damaged it. */
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Client, type Consumer, MagnetarError, type Reader } from '../../services/client/index.ts';
import { type ServerProcess, startStandalone, temporaryFolder } from './process.ts';

/** Messages of each topic. */
const COUNT = 600;
export const TOPICS = ['first', 'second'] as const;
const PER_BATCH = 20;
const OPERATION_MS = 3_000;
/** The witness is at most a second behind. */
const WITNESS_MS = 1_500;

/** The text of a message: long enough that a group of the log has pages. */
export function textOf(topic: string, number: number): string {
  return `${topic}/${number}/${'x'.repeat(number % 300)}`;
}

/** Every third message is acknowledged. */
function isAcknowledged(number: number): boolean {
  return number % 3 === 1;
}

/** Publishes and acknowledges; the server is then stopped in order, or killed when its log has become idle. */
export async function makeData(how: 'stop' | 'kill', args: readonly string[] = []): Promise<string> {
  const data = await temporaryFolder();
  await using server = await startStandalone({ data, args });
  await using client = new Client({ serviceUrl: server.serviceUrl });
  for (const topic of TOPICS) {
    await using producer = await client.createProducer({ topic, batchingMaxMessages: PER_BATCH });
    await using consumer = await client.subscribe({ topic, subscription: 's' });
    for (let from = 0; from < COUNT; from += PER_BATCH) {
      const numbers = Array.from({ length: PER_BATCH }, (_, i) => from + i);
      const ids = await Promise.all(numbers.map((n) => producer.send({ data: textOf(topic, n) })));
      await Promise.all(ids.filter((_, i) => isAcknowledged(from + i)).map((id) => consumer.acknowledge(id)));
    }
  }
  if (how === 'kill') await untilIdle(data);
  await server[how]();
  return data;
}

/**
 * Resolves when the log has marked its last group as committed, and the metadata's witness its last revision: whatever is
 * bad from then on is damage.
 */
export async function untilIdle(data: string): Promise<void> {
  let before = '';
  for (let since = performance.now(); performance.now() - since < WITNESS_MS; ) {
    const parts = [(await readFile(path.join(data, 'metadata', 'witness'))).toString('hex')];
    for (const file of await segmentsOf(path.join(data, 'bookie-0'))) {
      parts.push((await readFile(file)).subarray(4_096, 12_288).toString('hex'));
    }
    if (before !== parts.join()) since = performance.now();
    before = parts.join();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The segments of a bookie's folder, in order. */
export async function segmentsOf(bookie: string): Promise<string[]> {
  const folder = path.join(bookie, 'segments');
  return (await readdir(folder)).toSorted().map((name) => path.join(folder, name));
}

/** What became of one way to look at a topic. */
type Outcome =
  | { readonly kind: 'right' }
  /** It ended early, with a reason. */
  | { readonly kind: 'error'; readonly code: string; readonly message: string };

export type Report =
  | { readonly kind: 'refused'; readonly line: string }
  | { readonly kind: 'running'; readonly topics: Readonly<Record<string, { read: Outcome; consumed: Outcome }>> };

/** Reads until the end; every message has to be the one that is due. @throws for a wrong, missing or additional message */
async function check(topic: string, source: Consumer | Reader, due: readonly number[]): Promise<void> {
  let at = 0;
  for await (const message of source.messages({ untilEnd: true })) {
    const number = due[at++];
    const right = number === message.index && message.data.toString() === textOf(topic, number);
    if (!right)
      throw new Error(`${topic}: message ${number} is due; came ${message.index}, ${message.data.toString()}`);
  }
  if (at < due.length) throw new Error(`${topic} ends before message ${due[at]}, without an error`);
}

async function outcomeOf(work: Promise<void>): Promise<Outcome> {
  try {
    await work;
    return { kind: 'right' };
  } catch (error) {
    if (!(error instanceof MagnetarError)) throw error;
    if (/\p{Cc}/u.test(error.message)) throw new Error(`not one line: ${error.message}`, { cause: error });
    return { kind: 'error', code: error.code, message: error.message };
  }
}

async function look(client: Client, topic: string): Promise<{ read: Outcome; consumed: Outcome }> {
  const all = Array.from({ length: COUNT }, (_, n) => n);
  const read = async (): Promise<void> => {
    await using reader = await client.createReader({ topic, startPosition: 'earliest' });
    await check(topic, reader, all);
  };
  const consume = async (): Promise<void> => {
    await using consumer = await client.subscribe({ topic, subscription: 's' });
    const left = all.filter((n) => !isAcknowledged(n));
    await check(topic, consumer, left);
  };
  const [found, consumed] = await Promise.all([outcomeOf(read()), outcomeOf(consume())]);
  return { read: found, consumed };
}

async function startOn(data: string): Promise<ServerProcess | string> {
  try {
    return await startStandalone({ data });
  } catch (error) {
    const text = String(error instanceof Error ? error.message : error);
    const lines = text.split('\n').filter((line) => line.includes('magnetar: '));
    if (lines.length !== 1 || /^\s+at /m.test(text))
      throw new Error(`not one line that says why: ${text}`, { cause: error });
    return lines[0]?.replace(/^.*magnetar: /, '') ?? '';
  }
}

/**
 * Starts a server on the folder and looks at everything.
 * @throws for a wrong byte, a missing message without an error, an acknowledgment that was forgotten or made up, a crash
 */
async function lookAt(data: string): Promise<Report> {
  const server = await startOn(data);
  if (typeof server === 'string') return { kind: 'refused', line: server };
  await using running = server;
  await using client = new Client({ serviceUrl: running.serviceUrl, operationTimeoutMs: OPERATION_MS });
  const found = await Promise.all(TOPICS.map(async (topic) => [topic, await look(client, topic)] as const));
  if (/\\n\s+at |internal error/.test(running.stderr)) throw new Error(`stack on stderr: ${running.stderr}`);
  return { kind: 'running', topics: Object.fromEntries(found) };
}

/** A copy of a data folder, damaged, and what becomes of it. */
export async function afterDamage(data: string, damage: (copy: string) => Promise<void>): Promise<Report> {
  const copy = await temporaryFolder();
  try {
    await cp(data, copy, { recursive: true });
    await damage(copy);
    return await lookAt(copy);
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

/** Changes bytes of a file in place. */
export async function changeFile(file: string, change: (bytes: Buffer) => Buffer | undefined): Promise<void> {
  const bytes = await readFile(file);
  await writeFile(file, change(bytes) ?? bytes);
}

/** Where the last byte of a file that is not zero ends, in whole pages. */
export function endOf(bytes: Buffer): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === 0) end--;
  return Math.ceil(end / 4_096) * 4_096;
}

/** Flips a bit in the place of a text that stands in a file of the folder. */
export async function flipText(folder: string, text: string): Promise<void> {
  for (const file of await segmentsOf(folder)) {
    const bytes = await readFile(file);
    const at = bytes.indexOf(text);
    if (at < 0) continue;
    bytes[at + 2] = (bytes[at + 2] ?? 0) ^ 4;
    await writeFile(file, bytes);
    return;
  }
  throw new Error(`no segment in ${folder} has ${text}`);
}
