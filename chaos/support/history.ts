/**
 * What producers and consumers were promised, and the checks that hold a topic against it. Pure: the crash tests, the
 * power-cut tests and the tests of the checks themselves use it.
 *
 * Names of violations follow Jepsen's Kafka workload where it has one: lost-write, duplicate, inconsistent-offsets.
 */

/** A message's place. */
export interface Place {
  readonly id: string;
  readonly index: number;
}

/** A message as a reader saw it. `number` is the producer's own, rising by one from 0. */
export interface Seen extends Place {
  readonly producer: string;
  readonly number: number;
}

/** Which messages a producer sent and which of them were acknowledged, at which place. */
export class ProducerHistory {
  readonly name: string;
  /** Place by number; a hole is a message that was not acknowledged (yet). */
  readonly acknowledged: Place[] = [];
  /** How many were acknowledged. */
  count = 0;

  constructor(name: string) {
    this.name = name;
  }

  acknowledge(number: number, place: Place): void {
    this.acknowledged[number] = place;
    this.count += 1;
  }
}

/** What was acknowledged of each producer at one moment: what a read that begins later has to show. */
export function promised(producers: readonly ProducerHistory[]): ReadonlyMap<string, readonly (Place | undefined)[]> {
  return new Map(producers.map((producer) => [producer.name, producer.acknowledged.slice()]));
}

/**
 * Holds a read of the whole topic, from the earliest message on, against what had been promised when it began.
 * Returns one line per violation; none: all is well.
 */
export function checkTopic(
  seen: readonly Seen[],
  promise: ReadonlyMap<string, readonly (Place | undefined)[]>,
): string[] {
  const violations: string[] = [];
  const places = new Map<string, Map<number, Place>>();
  const last = new Map<string, number>();
  const ids = new Set<string>();
  seen.forEach((message, position) => {
    const what = `${message.producer}/${message.number} at ${message.id}, index ${message.index}`;
    if (message.index !== position) violations.push(`index-not-dense: ${what} is message ${position} of the topic`);
    if (ids.has(message.id)) violations.push(`inconsistent-offsets: ${what}: another message has this id`);
    ids.add(message.id);
    const own = places.get(message.producer) ?? new Map<number, Place>();
    places.set(message.producer, own);
    const before = own.get(message.number);
    if (before !== undefined) violations.push(`duplicate: ${what}; also at ${before.id}, index ${before.index}`);
    own.set(message.number, message);
    const previous = last.get(message.producer) ?? -1;
    if (message.number <= previous) violations.push(`reordered: ${what} comes after ${message.producer}/${previous}`);
    last.set(message.producer, message.number);
  });
  for (const [producer, acknowledged] of promise) {
    acknowledged.forEach((place, number) => {
      if (place === undefined) return;
      const found = places.get(producer)?.get(number);
      const what = `${producer}/${number}, acknowledged as ${place.id}, index ${place.index}`;
      if (found === undefined) violations.push(`lost-write: ${what}`);
      else if (found.id !== place.id || found.index !== place.index) {
        violations.push(`inconsistent-offsets: ${what}, is at ${found.id}, index ${found.index}`);
      }
    });
  }
  return violations;
}

/** What a new consumer's deliveries violate: messages whose acknowledgment had been confirmed before it subscribed. */
export function checkAcks(delivered: readonly number[], confirmedBefore: ReadonlySet<number>): string[] {
  return delivered.filter((index) => confirmedBefore.has(index)).map((index) => `ack-forgotten: index ${index}`);
}
