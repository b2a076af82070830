/** A data folder with known content, and what a server makes of it after somebody has damaged it. */
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Client, type Consumer, lostMessages, MagnetarError, type Reader } from '../../services/client/index.ts';
import { type ServerProcess, startStandalone, temporaryFolder } from './process.ts';

/** Messages of each topic. */
export const COUNT = 600;
export const TOPICS = ['first', 'second'] as const;
const PER_BATCH = 20;
const OPERATION_MS = 15_000;
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
  await fill(client);
  if (how === 'kill') await untilIdle(data);
  await server[how]();
  return data;
}

/** Publishes and acknowledges what `lookAtAll` expects. */
export async function fill(client: Client): Promise<void> {
  for (const topic of TOPICS) {
    await using producer = await client.createProducer({ topic, batchingMaxMessages: PER_BATCH });
    await using consumer = await client.subscribe({ topic, subscription: 's' });
    for (let from = 0; from < COUNT; from += PER_BATCH) {
      const numbers = Array.from({ length: PER_BATCH }, (_, i) => from + i);
      const ids = await Promise.all(numbers.map((n) => producer.send({ data: textOf(topic, n) })));
      await Promise.all(ids.filter((_, i) => isAcknowledged(from + i)).map((id) => consumer.acknowledge(id)));
    }
  }
}

/**
 * Resolves when the log has marked its last group as committed, and the metadata's witness its last revision: whatever is
 * bad from then on is damage.
 */
export async function untilIdle(
  data: string,
  bookies: readonly string[] = [path.join(data, 'bookie-0')],
): Promise<void> {
  let before = '';
  for (let since = performance.now(); performance.now() - since < WITNESS_MS; ) {
    const parts = [(await readFile(path.join(data, 'metadata', 'witness'))).toString('hex')];
    for (const file of (await Promise.all(bookies.map(segmentsOf))).flat()) {
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

/** What became of one way to look at a topic. Whatever is neither lost nor said to be an error was there, to the last byte. */
type Outcome =
  | { readonly kind: 'right' }
  /** Messages that were said to be lost, as "first-last"; and how many that had been acknowledged came again. */
  | { readonly kind: 'damaged'; readonly lost: readonly string[]; readonly again: number; readonly message: string }
  /** It ended early, with a reason. */
  | { readonly kind: 'error'; readonly code: string; readonly message: string };

interface TopicReport {
  readonly read: Outcome;
  readonly consumed: Outcome;
  /** What became of a message that was published afterwards: "right", or why it failed. */
  readonly written: string;
}

export type Report =
  | { readonly kind: 'refused'; readonly line: string }
  | { readonly kind: 'running'; readonly topics: Readonly<Record<string, TopicReport>>; readonly errors: number };

/** The messages of a topic, of those that there were, that the reader and the consumer were told are lost. */
export function lostOf(report: Report, topic: string): string[] {
  if (report.kind === 'refused') throw new Error(report.line);
  const { read, consumed } = report.topics[topic] ?? {};
  return [read, consumed]
    .flatMap((outcome) => (outcome?.kind === 'damaged' ? outcome.lost : []))
    .filter((range) => Number.parseInt(range, 10) < COUNT);
}

/** What a look at a topic finds. @throws for a wrong, missing, additional or misplaced message that nobody says is lost */
class Look {
  readonly #topic: string;
  readonly #isDue: (number: number) => boolean;
  readonly #lost: string[] = [];
  #message = '';
  #again = 0;
  #next = 0;

  constructor(topic: string, isDue: (number: number) => boolean) {
    this.#topic = topic;
    this.#isDue = isDue;
  }

  /** Everything before was given or is lost. */
  #passTo(index: number): void {
    for (let number = this.#next; number < Math.min(index, COUNT); number++) {
      if (this.#isDue(number)) throw new Error(`${this.#topic}: message ${number} is not there, and nobody says so`);
    }
    this.#next = index;
  }

  message(index: number, text: string): void {
    if (index < this.#next) throw new Error(`${this.#topic}: index ${index} comes behind ${this.#next - 1}`);
    this.#passTo(index);
    this.#next++;
    if (index >= COUNT || text !== textOf(this.#topic, index)) throw new Error(`${this.#topic}: ${index} is "${text}"`);
    if (!this.#isDue(index)) this.#again++;
  }

  lost(first: number, last: number, message: string): void {
    if (first < this.#next || last < first)
      throw new Error(`${this.#topic}: ${first} to ${last} lost, at ${this.#next}`);
    this.#passTo(first);
    this.#next = last + 1;
    this.#lost.push(`${first}-${last}`);
    if (this.#message === '') this.#message = message;
  }

  end(): Outcome {
    this.#passTo(COUNT);
    if (this.#lost.length === 0 && this.#again === 0) return { kind: 'right' };
    return { kind: 'damaged', lost: this.#lost, again: this.#again, message: this.#message };
  }
}

/** Reads until the end, also behind messages that are lost. */
async function check(source: Consumer | Reader, look: Look): Promise<Outcome> {
  for (;;) {
    try {
      for await (const message of source.messages({ untilEnd: true })) {
        look.message(message.index, message.data.toString());
      }
      return look.end();
    } catch (error) {
      const range = lostMessages(error);
      if (range === undefined) throw error;
      look.lost(range.firstIndex, range.lastIndex, oneLine(error));
    }
  }
}

function oneLine(error: unknown): string {
  if (!(error instanceof MagnetarError)) throw error;
  if (/\p{Cc}/u.test(error.message)) throw new Error(`not one line: ${error.message}`, { cause: error });
  return error.message;
}

async function outcomeOf(work: Promise<Outcome>): Promise<Outcome> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof MagnetarError)) throw error;
    return { kind: 'error', code: error.code, message: oneLine(error) };
  }
}

/** Publishes one more message, whose index has to be a new one, and reads it back. */
async function write(client: Client, topic: string): Promise<string> {
  try {
    await using producer = await client.createProducer({ topic, sendTimeoutMs: OPERATION_MS });
    const id = await producer.send({ data: 'after' });
    const index = id.index ?? -1;
    if (index < COUNT) throw new Error(`${topic}: index ${index} was given once more`);
    await using reader = await client.createReader({ topic, startPosition: id });
    const { data } = await reader.readNext({ timeoutMs: OPERATION_MS });
    if (data.toString() !== 'after') throw new Error(`${topic}: ${index} is "${data.toString()}"`);
    return 'right';
  } catch (error) {
    return oneLine(error);
  }
}

async function lookAtTopic(client: Client, topic: string): Promise<TopicReport> {
  const read = async (): Promise<Outcome> => {
    await using reader = await client.createReader({ topic, startPosition: 'earliest' });
    return await check(reader, new Look(topic, () => true));
  };
  const consume = async (): Promise<Outcome> => {
    await using consumer = await client.subscribe({ topic, subscription: 's' });
    return await check(consumer, new Look(topic, (number) => !isAcknowledged(number)));
  };
  const [found, consumed] = await Promise.all([outcomeOf(read()), outcomeOf(consume())]);
  return { read: found, consumed, written: await write(client, topic) };
}

/** Looks at everything that a server serves. `log`: what it has written on stderr so far. */
export async function lookAtAll(client: Client, log: () => string): Promise<Report> {
  const found = await Promise.all(TOPICS.map(async (topic) => [topic, await lookAtTopic(client, topic)] as const));
  const topics = Object.fromEntries(found);
  const text = log();
  if (/\\n\s+at |internal error/.test(text)) throw new Error(`stack on stderr: ${text}`);
  const errors = text.split('\n').filter((line) => line.includes('"level":"error"') || / ERROR /i.test(line)).length;
  const damaged = found.some(([, { read, consumed }]) => [read, consumed].some(({ kind }) => kind === 'damaged'));
  if (damaged && errors === 0) throw new Error(`damage is not said on stderr: ${text}`);
  return { kind: 'running', topics, errors };
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
 * @throws for a wrong byte, a missing message that is not said to be lost, an acknowledgment that was made up, an index that is
 * given twice, a crash
 */
async function lookAt(data: string): Promise<Report> {
  const server = await startOn(data);
  if (typeof server === 'string') return { kind: 'refused', line: server };
  await using running = server;
  await using client = new Client({ serviceUrl: running.serviceUrl, operationTimeoutMs: OPERATION_MS });
  return await lookAtAll(client, () => running.stderr);
}

/** A copy of a data folder, damaged, and what becomes of it. `look`: starts a server on it when not given. @throws as that does */
export async function afterDamage(
  data: string,
  damage: (copy: string) => Promise<void>,
  look: (copy: string) => Promise<Report> = lookAt,
): Promise<Report> {
  const copy = await temporaryFolder();
  try {
    await cp(data, copy, { recursive: true });
    await damage(copy);
    return await look(copy);
  } finally {
    await rm(copy, { recursive: true, force: true, maxRetries: 3 });
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
