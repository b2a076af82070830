/**
 * The same load for every system, over one client process and one connection: publish, consume, both at once, or publish
 * at a fixed rate. One JSON line on stdout says what was moved.
 *
 *   node dist/bench/loads/SYSTEM.js --address WHERE --what publish,consume [--size 128] [--seconds 10] [--rate 10000]
 */
import { createHistogram } from 'node:perf_hooks';
import { parseArgs } from 'node:util';

/** Payload bytes, with 16 more a message, that may be unconfirmed. */
const PENDING_BYTES = 8 << 20;
/** So many messages at most: more make no system faster, and remembering them slows clients down. */
const PENDING_MESSAGES = 16_384;
const BURST = 500;
/** How long a consumer that has not got everything is waited for once the publisher has ended. */
const LAG_SECONDS = 10;

/** A system that owes so many confirmations cannot hold the rate, and is spared the rest. */
const MOST_LATE = 20_000;
/** A consumer looks at the clock about every so many messages: a look costs a tenth of what a message does. */
const CLOCK_EVERY = 1024;

/** One system, over one connection of its Node client. */
export interface Subject {
  /** Messages that may be unconfirmed, where the client or the system copes with fewer than the driver would allow. */
  readonly mostPending?: number;
  /** Publishes so many messages; resolves when all are confirmed. */
  publish(count: number): Promise<void>;
  /** What is acknowledged is gone: there is no second pass. */
  readonly consumesOnce?: true;
  /**
   * Consumes from the earliest message on, acknowledging each, under a name of its own for each pass. Tells of every few
   * messages how many; ends when that returns false.
   */
  consume(received: (count: number) => boolean, pass: number): Promise<void>;
  close(): Promise<void>;
}

/** Makes a subject on a topic (stream, queue) of its own that is empty. */
export type Connect = (options: { address: string; payload: Buffer }) => Promise<Subject>;

/** Messages in a time. */
export interface Moved {
  readonly messages: number;
  readonly msgPerSec: number;
  readonly mbPerSec: number;
  /** From send to confirmation, in milliseconds; absent where it was not measured. */
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly p999Ms?: number;
}

/** What a run of a load prints. */
export interface LoadResult {
  readonly publish?: Moved;
  readonly consume?: Moved;
  readonly bothPublish?: Moved;
  readonly bothConsume?: Moved;
  readonly latency?: Moved;
}

type Histogram = ReturnType<typeof createHistogram>;

const turn = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));

function moved(messages: number, size: number, ms: number, latency?: Histogram): Moved {
  const perSec = (messages / ms) * 1000;
  const at = (percentile: number): number => Number(((latency?.percentile(percentile) ?? 0) / 1e6).toFixed(3));
  return {
    messages,
    msgPerSec: Math.round(perSec),
    mbPerSec: Number(((perSec * size) / 1e6).toFixed(1)),
    ...(latency === undefined ? {} : { p50Ms: at(50), p99Ms: at(99), p999Ms: at(99.9) }),
  };
}

function timed(latency: Histogram, since: number, sent: Promise<void>): Promise<void> {
  return sent.then(() => {
    latency.record(Math.max(1, Math.round((performance.now() - since) * 1e6)));
  });
}

/** As fast as the system confirms, with a bounded number of bytes unconfirmed. */
async function publish(subject: Subject, size: number, seconds: number): Promise<Moved> {
  const latency = createHistogram();
  const pending = Math.min(Math.floor(PENDING_BYTES / (size + 16)), subject.mostPending ?? PENDING_MESSAGES);
  const burst = Math.min(BURST, Math.ceil(pending / 4));
  const bursts: Promise<void>[] = [];
  const start = performance.now();
  let sent = 0;
  while (performance.now() - start < seconds * 1000) {
    bursts.push(timed(latency, performance.now(), subject.publish(burst)));
    sent += burst;
    if (bursts.length * burst >= pending) await bursts.shift();
    else if (sent % 5000 === 0) await turn();
  }
  await Promise.all(bursts);
  return moved(sent, size, performance.now() - start, latency);
}

/** Whoever is through before the time is up begins again. */
async function consume(subject: Subject, size: number, seconds: number, total: number): Promise<Moved> {
  const start = performance.now();
  const inTime = (): boolean => performance.now() - start < seconds * 1000;
  let received = 0;
  for (let pass = 1; pass === 1 || (inTime() && subject.consumesOnce !== true); pass++) {
    const end = received + total;
    await subject.consume((count) => {
      received += count;
      return received < end && (received % CLOCK_EVERY >= count || inTime());
    }, pass);
  }
  return moved(received, size, performance.now() - start);
}

async function both(subject: Subject, size: number, seconds: number): Promise<Partial<LoadResult>> {
  const start = performance.now();
  let received = 0;
  let sent = Number.POSITIVE_INFINITY;
  let end = Number.POSITIVE_INFINITY;
  let lastAt = start;
  const consuming = subject.consume((count) => {
    received += count;
    if (received < sent && received % CLOCK_EVERY >= count) return true;
    lastAt = performance.now();
    return received < sent && lastAt < end;
  }, 1);
  const bothPublish = await publish(subject, size, seconds);
  sent = bothPublish.messages;
  end = performance.now() + LAG_SECONDS * 1000;
  // One more, so that a consumer that has all learns that it may end.
  await Promise.all([consuming, subject.publish(1)]);
  return { bothPublish, bothConsume: moved(received, size, lastAt - start) };
}

/** Each millisecond its share of messages, whatever has become of those before; a message counts from when it was due. */
async function latencyAt(subject: Subject, size: number, rate: number, seconds: number): Promise<Moved> {
  const latency = createHistogram();
  const waiting = new Set<Promise<void>>();
  const start = performance.now();
  let sent = 0;
  for (let ms = 0; ms < seconds * 1000 && waiting.size < MOST_LATE; ms++) {
    const due = start + ms;
    while (performance.now() < due) await turn();
    for (const until = Math.floor(((ms + 1) * rate) / 1000); sent < until; sent++) {
      const one = timed(latency, due, subject.publish(1)).finally(() => waiting.delete(one));
      waiting.add(one);
    }
  }
  await Promise.all(waiting);
  return moved(sent, size, performance.now() - start, latency);
}

/** Runs what the command line asks for and prints the result. */
export async function runLoad(connect: Connect): Promise<void> {
  const { values } = parseArgs({
    options: {
      address: { type: 'string', default: '' },
      what: { type: 'string', default: 'publish,consume' },
      size: { type: 'string', default: '128' },
      seconds: { type: 'string', default: '10' },
      rate: { type: 'string', default: '10000' },
    },
  });
  const [size, seconds] = [Number(values.size), Number(values.seconds)];
  const open = async (): Promise<Subject> =>
    await connect({ address: values.address, payload: Buffer.alloc(size, 'A') });
  let result: LoadResult = {};
  const subject = await open();
  for (const what of values.what.split(',')) {
    if (what === 'publish') result = { ...result, publish: await publish(subject, size, seconds) };
    else if (what === 'consume') {
      const total = result.publish?.messages ?? 0;
      result = { ...result, consume: await consume(subject, size, seconds, total) };
    } else {
      const own = await open();
      if (what === 'both') result = { ...result, ...(await both(own, size, seconds)) };
      else if (what === 'latency') {
        result = { ...result, latency: await latencyAt(own, size, Number(values.rate), seconds) };
      } else throw new Error(`--what knows publish, consume, both and latency, not ${what}`);
      await own.close();
    }
  }
  await subject.close();
  console.log(JSON.stringify(result));
}
