/** Bringing the deduplication state of a topic up to the end of its log. */
import type { MessageIndex } from '../../lib/ids.ts';
import type { Logger } from '../../runtime/logger.ts';
import { decodeBlock } from '../../wire/block.ts';
import type { DedupState } from '../protocol/dedup.ts';
import type { AckLog } from './ack-log.ts';
import { endOf, type LogLoss, lossError } from './log-entry.ts';
import { type LogReader, newCursor } from './log-reader.ts';

/** Bytes read at once. */
const REPLAY_BYTES: number = 1_048_576;

/** What a new owner would have to replay. */
export interface DedupWork {
  entries: number;
  bytes: number;
}

interface DedupReplay {
  readonly reader: LogReader;
  readonly dedup: DedupState;
  readonly ackLog: AckLog;
  readonly logger: Logger;
  readonly topic: string;
}

/**
 * The last snapshot, and what was stored after it (ML-10). Lost entries are passed over, which is said in the process's log: the
 * next batch of the same producer raises its watermark again.
 *
 * @throws what reading throws
 */
export async function replayDedup({ reader, dedup, ackLog, logger, topic }: DedupReplay): Promise<DedupWork> {
  const snapshot = ackLog.recovered.dedup;
  if (snapshot !== undefined) dedup.load(snapshot.producers);
  const work: DedupWork = { entries: 0, bytes: 0 };
  const cursor = newCursor();
  let next = Math.max(snapshot?.coveredIndex ?? 0, reader.oldestIndex) as MessageIndex;
  while (next < reader.endIndex) {
    for (const item of await reader.read(next, { maxEntries: 1_000, maxBytes: REPLAY_BYTES }, cursor)) {
      next = endOf(item);
      if (item.lost === true) {
        logLoss(logger, topic, item);
        continue;
      }
      const { producerName, firstSequenceId, lastSequenceId } = decodeBlock(item.block);
      dedup.replay(producerName, firstSequenceId, lastSequenceId, item, item.appendTime);
      work.entries++;
      work.bytes += item.block.length;
    }
  }
  return work;
}

/** Nobody can tell any more which batches the lost entries held. */
function logLoss(logger: Logger, topic: string, loss: LogLoss): void {
  const { code, message, details } = lossError(topic, loss);
  const text = `${message}; a batch that was among them is not known as a duplicate when its producer sends it again`;
  logger.error(text, { topic, code, details });
}
