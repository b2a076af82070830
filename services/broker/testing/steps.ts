/** What tests of the broker do over its streams. */
import type { Delivery, ProducerOpened, Receipt, Subscribe, Subscribed } from '../../wire/frames.ts';
import { Gate } from '../../ledger/testing/gate.ts';
import type { MemoryCluster } from '../../ledger/testing/memory-cluster.ts';
import {
  batch,
  type ConsumeStream,
  HELLO,
  openProducer,
  type PublishStream,
  type RunningTestBroker,
  subscribe,
  texts,
} from './broker-world.ts';

export const TOPIC = 'orders';
/** Permits that are never used up. */
export const PLENTY: { readonly messages: number; readonly bytes: number } = {
  messages: 100_000,
  bytes: 1_000_000_000,
};

export async function opened(stream: PublishStream, number: number): Promise<ProducerOpened> {
  return stream.until((frames) => frames.flatMap((f) => f.opened ?? []).findLast((o) => o.producer === number));
}

export function receiptsOf(stream: PublishStream): Receipt[] {
  return stream.frames.flatMap((frame) => frame.receipts ?? []);
}

export async function receipts(stream: PublishStream, count: number): Promise<Receipt[]> {
  return stream.until(() => (receiptsOf(stream).length >= count ? receiptsOf(stream) : undefined));
}

export async function producer(broker: RunningTestBroker, name = 'p', instance = ''): Promise<PublishStream> {
  const stream = broker.publish();
  stream.send({ hello: HELLO, opens: [openProducer(1, TOPIC, name, instance)] });
  const { error } = await opened(stream, 1);
  if (error !== undefined) throw new Error(error.message);
  return stream;
}

/** Publishes and waits for the receipt. */
export async function publish(
  stream: PublishStream,
  first: number,
  lines: readonly string[],
  name = 'p',
): Promise<Receipt> {
  const before = receiptsOf(stream).length;
  stream.send({ batches: [batch(1, name, first, lines)] });
  return (await receipts(stream, before + 1))[before] as Receipt;
}

export async function subscribed(stream: ConsumeStream, number: number): Promise<Subscribed> {
  return stream.until((frames) => frames.flatMap((f) => f.subscribed ?? []).findLast((s) => s.consumer === number));
}

export async function consumer(
  broker: RunningTestBroker,
  more: Partial<Subscribe> = {},
): Promise<{ stream: ConsumeStream; subscribed: Subscribed }> {
  const stream = broker.consume();
  stream.send({ hello: HELLO, subscribes: [subscribe(1, TOPIC, more)], flows: [{ consumer: 1, ...PLENTY }] });
  const answer = await subscribed(stream, 1);
  if (answer.error !== undefined) throw new Error(answer.error.message);
  return { stream, subscribed: answer };
}

export function deliveriesOf(stream: ConsumeStream): Delivery[] {
  return stream.frames.flatMap((frame) => frame.deliveries ?? []);
}

export async function received(stream: ConsumeStream, count: number): Promise<string[]> {
  return stream.until(() => {
    const all = texts(deliveriesOf(stream));
    return all.length >= count ? all : undefined;
  });
}

export async function acked(stream: ConsumeStream, ackId: number): Promise<void> {
  await stream.until((frames) =>
    frames.flatMap((f) => f.ackReceipts ?? []).find((r) => r.ackId >= ackId && r.error === undefined),
  );
}

export async function ackError(stream: ConsumeStream, ackId: number): Promise<string> {
  return stream.until(
    (frames) => frames.flatMap((f) => f.ackReceipts ?? []).find((r) => r.ackId === ackId)?.error?.code,
  );
}

/** Holds what is appended to the first bookie: `underWay` opens with the first of it, and it is stored once `stored` opens. */
export function holdAppends(cluster: MemoryCluster): { readonly underWay: Gate; readonly stored: Gate } {
  const [bookie] = cluster.bookies;
  if (bookie === undefined) throw new Error('there is a bookie');
  const [underWay, stored] = [new Gate(), new Gate()];
  bookie.before = async ({ type }) => {
    if (type !== 'append') return;
    underWay.open();
    await stored.passed;
  };
  return { underWay, stored };
}
