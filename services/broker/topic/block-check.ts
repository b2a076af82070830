/** What a broker checks of a batch before it stores it. It never looks into a message. */
import { ProtoReader } from '../../lib/bytes.ts';
import { crc32c } from '../../lib/crc32c.ts';
import { MagnetarError } from '../../lib/errors.ts';
import type { SequenceId } from '../../lib/ids.ts';
import { countMessages, decodeBlock, LEAST_MESSAGE_BYTES } from '../../wire/block.ts';
import { compressionFlaw } from '../../wire/compression.ts';
import type { ProducerBlock, PublishBatch } from '../../wire/frames.ts';
import { MAX_FRAME_BYTES } from '../../wire/server.ts';

/** A block travels further in frames that carry more beside it: room for a delivery's bit string, and some. */
const MAX_BLOCK_BYTES: number = MAX_FRAME_BYTES - 1_048_576;

const NO_DELAY = 'batch has a message with deliver_at; this version delivers at once, so it has to be 0';

const NO_SEQUENCE_ID = 0n as SequenceId;

/** A batch that may be stored, or why not. */
export interface CheckedBlock {
  readonly firstSequenceId: SequenceId;
  /** 0 when the block is too damaged to say. */
  readonly lastSequenceId: SequenceId;
  readonly count: number;
  readonly crc32c: number;
  readonly error: MagnetarError | undefined;
}

/** Whose batch it has to be, and how large a message may be. */
export interface BlockRules {
  readonly producerName: string;
  readonly producerEpoch: number;
  readonly maxMessageBytes: number;
  /** How many messages a batch may have. */
  readonly maxMessages: number;
}

/**
 * Checks checksum, producer, sequence ids, count and sizes.
 *
 * @throws PROTOCOL_VIOLATION for a block that arrived as it was sent and cannot be read: no receipt could name it.
 */
export function checkBlock(batch: PublishBatch, rules: BlockRules): CheckedBlock {
  const { block } = batch;
  const found = crc32c(block);
  const damaged = batch.crc32c !== undefined && batch.crc32c !== found;
  let fields: ProducerBlock | undefined;
  try {
    fields = decodeBlock(block);
  } catch (error) {
    if (!damaged) throw error;
  }
  const error = damaged ? mismatch(batch, found, rules) : flaw(fields, block, rules);
  return {
    firstSequenceId: fields?.firstSequenceId ?? NO_SEQUENCE_ID,
    lastSequenceId: fields?.lastSequenceId ?? NO_SEQUENCE_ID,
    count: fields?.count ?? 0,
    crc32c: found,
    error,
  };
}

function mismatch(batch: PublishBatch, found: number, rules: BlockRules): MagnetarError {
  const text = `batch of producer "${rules.producerName}" was damaged on its way: CRC32C ${found} instead of ${batch.crc32c}`;
  return new MagnetarError('CHECKSUM_MISMATCH', text);
}

function flaw(fields: ProducerBlock | undefined, block: Buffer, rules: BlockRules): MagnetarError | undefined {
  if (fields === undefined) return undefined;
  const { producerName, producerEpoch, count } = fields;
  if (producerName !== rules.producerName || producerEpoch !== rules.producerEpoch) {
    const granted = `"${rules.producerName}" and epoch ${rules.producerEpoch}`;
    return invalid(`batch names producer "${producerName}" and epoch ${producerEpoch}; granted were ${granted}`);
  }
  if (block.length > MAX_BLOCK_BYTES) return tooLarge('batch', block.length, MAX_BLOCK_BYTES);
  if (count > rules.maxMessages) return tooMany(count, rules.maxMessages);
  if (fields.delayed) return new MagnetarError('UNSUPPORTED', NO_DELAY);
  const miscounted = fields.compression === 0 ? countFlaw(fields) : compressedFlaw(fields);
  if (miscounted !== undefined) return miscounted;
  const span = fields.lastSequenceId - fields.firstSequenceId;
  if (span < BigInt(count - 1)) {
    const ids = `from ${fields.firstSequenceId} to ${fields.lastSequenceId}`;
    return invalid(`batch of ${count} messages has sequence ids ${ids}; they have to rise from message to message`);
  }
  if (fields.compression !== 0 || fields.payload.length <= rules.maxMessageBytes) return undefined;
  const largest = largestPayload(fields.payload);
  return largest > rules.maxMessageBytes ? tooLarge('message', largest, rules.maxMessageBytes) : undefined;
}

function countFlaw({ count, payload }: ProducerBlock): MagnetarError | undefined {
  const found = countMessages(payload);
  if (count >= 1 && found === count) return undefined;
  return invalid(`batch has ${found} messages and says ${count}; it has to be one or more`);
}

/** A compressed payload area is opened by consumers alone. */
function compressedFlaw(fields: ProducerBlock): MagnetarError | undefined {
  const found = compressionFlaw(fields);
  if (found !== undefined) return found;
  const { count, uncompressedSize } = fields;
  const most = Math.floor(uncompressedSize / LEAST_MESSAGE_BYTES);
  if (count >= 1 && count <= most) return undefined;
  return invalid(
    `batch says ${count} messages; it has to be one or more, and at most ${most} in ${uncompressedSize} bytes`,
  );
}

function invalid(text: string): MagnetarError {
  return new MagnetarError('INVALID_ARGUMENT', text);
}

function tooMany(count: number, limit: number): MagnetarError {
  const text = `batch has ${count} messages; at most ${limit} are allowed`;
  return new MagnetarError('INVALID_ARGUMENT', text, { details: { count: String(count), limit: String(limit) } });
}

function tooLarge(what: string, bytes: number, limit: number): MagnetarError {
  const text = `${what} of ${bytes} bytes is too large; at most ${limit} are allowed`;
  return new MagnetarError('MESSAGE_TOO_LARGE', text, { details: { size: String(bytes), limit: String(limit) } });
}

/** The size of the largest payload of a payload area. */
function largestPayload(area: Buffer): number {
  let largest = 0;
  const messages = new ProtoReader(area);
  while (messages.next()) {
    if (messages.field !== 1) {
      messages.skip();
      continue;
    }
    const message = messages.message();
    while (message.next()) {
      if (message.field === 1) largest = Math.max(largest, message.bytes().length);
      else message.skip();
    }
  }
  return largest;
}
