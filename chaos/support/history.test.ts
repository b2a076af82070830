import { describe, expect, test } from 'vitest';
import { checkAcks, checkTopic, ProducerHistory, promised, type Seen } from './history.ts';

function topic(): { seen: Seen[]; producers: ProducerHistory[] } {
  const seen: Seen[] = [];
  const producers = [new ProducerHistory('a'), new ProducerHistory('b')];
  for (let index = 0; index < 20; index++) {
    const producer = producers[index % 2] as ProducerHistory;
    const message = { producer: producer.name, number: index >> 1, id: `1:${index}:0`, index };
    seen.push(message);
    producer.acknowledge(message.number, message);
  }
  return { seen, producers };
}

describe('the checks can fail', () => {
  test('a topic that keeps its promises passes, also with messages that nobody was promised', () => {
    const { seen, producers } = topic();
    seen.push({ producer: 'b', number: 10, id: '1:20:0', index: 20 });
    expect(checkTopic(seen, promised(producers))).toEqual([]);
  });

  test('a lost message is found, at the tail too', () => {
    const { seen, producers } = topic();
    expect(checkTopic(seen.slice(0, -1), promised(producers))).toEqual([expect.stringMatching(/^lost-write: b\/9/)]);
  });

  test('a doubled message is found', () => {
    const { seen, producers } = topic();
    seen.push({ ...(seen[3] as Seen), id: '1:20:0', index: 20 });
    expect(checkTopic(seen, promised(producers)).join()).toMatch(/duplicate: b\/1 .*reordered/);
  });

  test('a reordering is found', () => {
    const { seen, producers } = topic();
    const [first, second] = [seen[0] as Seen, seen[2] as Seen];
    seen[0] = { ...second, id: first.id, index: first.index };
    seen[2] = { ...first, id: second.id, index: second.index };
    expect(checkTopic(seen, promised(producers)).join()).toMatch(/reordered/);
  });

  test('an index that jumps and a place that changed are found', () => {
    const { seen, producers } = topic();
    seen[19] = { ...(seen[19] as Seen), index: 25 };
    const violations = checkTopic(seen, promised(producers)).join();
    expect(violations).toMatch(/index-not-dense: b\/9/);
    expect(violations).toMatch(/inconsistent-offsets: b\/9/);
  });

  test('a confirmed acknowledgment that was forgotten is found', () => {
    expect(checkAcks([4, 5, 6], new Set([1, 2]))).toEqual([]);
    expect(checkAcks([4, 5, 6], new Set([5]))).toEqual(['ack-forgotten: index 5']);
  });
});
