/**
 * Rounds of: load, kill at a random moment, restart, check. The oracle is `history.ts`.
 */
import { Client } from '../../services/client/index.ts';
import { toMagnetarError } from '../../services/lib/errors.ts';
import type { LogFields, Logger } from '../../services/runtime/logger.ts';
import { seededRandom } from '../../services/runtime/testing/seeded-random.ts';
import { checkAcks, checkTopic, promised } from './history.ts';
import { LoadConsumer, LoadProducer, readTopic } from './load.ts';

/** Processes that can be hit. */
export interface Victims {
  readonly serviceUrl: string;
  /** Hits one of them at the call and brings it back. `pick` is in [0, 1). Returns what was hit. */
  strike(pick: number): Promise<string>;
  /** The last lines of their logs. */
  lastWords(): string;
}

export interface CrashOptions {
  readonly rounds: number;
  readonly seed: number;
  /** A round counts only with so many since the last strike. */
  readonly leastPublishes: number;
  readonly leastAcks: number;
  /** How long an operation of the SDK, or a round, may make no progress. */
  readonly patienceMs: number;
  readonly log: (line: string) => void;
  /** Told what the servers and the app that lives through all strikes said last, when the run fails or finds a violation. */
  readonly failed: (lastWords: string) => void;
}

/** What was checked. */
export interface CrashReport {
  readonly rounds: number;
  readonly acknowledged: number;
  readonly confirmedAcks: number;
  readonly violations: readonly string[];
}

const TOPIC = 'persistent://public/default/crash';
const SUBSCRIPTIONS = ['s0', 's1'];
const PRODUCERS = 4;
const WINDOW = 400;

const KEPT_LINES = 100;

/** What the SDK says to an app, the last lines of it. */
class Notes {
  readonly lines: string[] = [];

  note(message: string, fields: LogFields = {}): void {
    const facts = JSON.stringify(fields, (_, value: unknown) =>
      value instanceof Error ? toMagnetarError(value).message : value,
    );
    this.lines.push(`${new Date().toISOString()} ${message} ${facts}`);
    if (this.lines.length > KEPT_LINES) this.lines.shift();
  }

  get logger(): Logger {
    const say = (message: string, fields?: LogFields): void => this.note(message, fields);
    const logger: Logger = { debug() {}, info: say, warn: say, error: say, child: () => logger };
    return logger;
  }
}

async function until(enough: () => boolean, producers: readonly LoadProducer[], patienceMs: number): Promise<void> {
  const start = performance.now();
  const failed = Promise.race(producers.map((producer) => producer.failed));
  while (!enough()) {
    if (performance.now() - start > patienceMs) throw new Error(`no progress within ${patienceMs} ms`);
    await Promise.race([failed, new Promise((resolve) => setTimeout(resolve, 10))]);
  }
}

/** One run over `rounds` strikes; violations end it. @throws when an app would have noticed a strike. */
export async function crashRounds(victims: Victims, options: CrashOptions): Promise<CrashReport> {
  const clients: Client[] = [];
  const notes = new Notes();
  const connect = (logger?: Logger): Client => {
    const client = new Client({ serviceUrl: victims.serviceUrl, operationTimeoutMs: options.patienceMs, logger });
    clients.push(client);
    return client;
  };
  const failed = (why: string): void => {
    options.failed(`${why}\nthe app:\n${notes.lines.join('\n')}\n${victims.lastWords()}`);
  };
  try {
    const report = await runRounds(victims, options, { connect, notes });
    if (report.violations.length > 0) failed(report.violations.join('\n'));
    return report;
  } catch (error) {
    failed(String(error));
    throw error;
  } finally {
    await Promise.allSettled(clients.map((client) => client.close()));
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

async function runRounds(
  victims: Victims,
  options: CrashOptions,
  { connect, notes }: { readonly connect: (logger?: Logger) => Client; readonly notes: Notes },
): Promise<CrashReport> {
  const random = seededRandom(options.seed);
  const confirmed = SUBSCRIPTIONS.map(() => new Set<number>());
  const violations: string[] = [];
  const longLived = connect(notes.logger);
  const producers = await Promise.all(
    Array.from({ length: PRODUCERS }, (_, i) => LoadProducer.start(longLived, TOPIC, `p${i}`, WINDOW)),
  );
  // This consumer lives through all strikes: it must see every message once, and never notice.
  const steady = await LoadConsumer.start(longLived, TOPIC, 'steady', new Set());
  const publishes = (): number => sum(producers.map(({ history }) => history.count));
  const acks = (): number => sum(confirmed.map((set) => set.size));
  const check = async (): Promise<number> => {
    const promise = promised(producers.map(({ history }) => history));
    const seen = await readTopic(longLived, TOPIC);
    violations.push(...checkTopic(seen, promise));
    return seen.length;
  };
  let rounds = 0;
  for (; rounds < options.rounds && violations.length === 0; rounds++) {
    const before = confirmed.map((set) => new Set(set));
    const client = connect();
    const consumers = await Promise.all(
      SUBSCRIPTIONS.map((name, i) => LoadConsumer.start(client, TOPIC, name, confirmed[i] ?? new Set())),
    );
    const [publishesBefore, acksBefore] = [publishes(), acks()];
    await until(
      () => publishes() - publishesBefore >= options.leastPublishes && acks() - acksBefore >= options.leastAcks,
      producers,
      options.patienceMs,
    );
    await new Promise((resolve) => setTimeout(resolve, random.next() * 400));
    const counted = `${publishes() - publishesBefore} publishes, ${acks() - acksBefore} acks`;
    notes.note('strike');
    const hit = await victims.strike(random.next());
    notes.note('it is back', { hit });
    await Promise.all(consumers.map((consumer) => consumer.stop()));
    await client.close();
    consumers.forEach((consumer, i) => {
      violations.push(...checkAcks(consumer.delivered, before[i] ?? new Set()));
    });
    options.log(`round ${rounds + 1}: ${counted}, then killed ${hit}; ${await check()} messages checked`);
  }
  await Promise.all(producers.map((producer) => producer.stop()));
  const total = await check();
  const all = (): boolean => violations.length > 0 || steady.delivered.length >= total;
  await until(all, producers, options.patienceMs).catch(() => {
    violations.push(`lost-delivery: the steady consumer got ${steady.delivered.length} of ${total} messages`);
  });
  steady.delivered.forEach((index, position) => {
    if (index !== position) violations.push(`poll-skip: the steady consumer's message ${position} has index ${index}`);
  });
  await steady.stop();
  return { rounds, acknowledged: publishes(), confirmedAcks: acks(), violations: violations.slice(0, 20) };
}
