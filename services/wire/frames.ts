/**
 * The messages of the streams as the program sees them: one interface per message of `proto/magnetar/v1`, same names,
 * camel case. What each field means is said there.
 *
 * Absent sub-messages and `optional` fields are absent properties; repeated fields are arrays, present also when empty in
 * what a decoder returns, and may be left out by who encodes. Byte fields of a decoded frame are views of the frame.
 * Ids and counts are checked safe integers; sequence ids are bigints.
 */
import type { EntryId, LedgerId, MessageIndex, SequenceId } from '../lib/ids.ts';

export interface ClientHello {
  readonly protocolVersion: number;
  readonly features: readonly string[];
  readonly client: string;
}

export interface Credit {
  readonly items: number;
  readonly bytes: number;
}

export interface ServerHello {
  readonly protocolVersion: number;
  readonly features: readonly string[];
  readonly server: string;
  readonly maxMessageBytes: number;
  readonly maxFrameBytes: number;
  readonly credit?: Credit;
  /** Of a bookie. Not empty. */
  readonly instance?: Buffer;
}

export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
  readonly details: Readonly<Record<string, string>>;
}

/** A message id as it travels; `index` is absent where only the place is known. */
export interface WireMessageId {
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly batchIndex: number;
  readonly partition?: number;
  readonly index?: MessageIndex;
}

export interface OpenProducer {
  readonly producer: number;
  readonly topic: string;
  readonly name: string;
  readonly instance: Buffer;
}

export interface PublishBatch {
  readonly producer: number;
  readonly crc32c?: number;
  readonly block: Buffer;
}

export interface CloseProducer {
  readonly producer: number;
}

export interface PublishRequest {
  readonly hello?: ClientHello;
  readonly opens?: readonly OpenProducer[];
  readonly batches?: readonly PublishBatch[];
  readonly closes?: readonly CloseProducer[];
}

export interface ProducerOpened {
  readonly producer: number;
  readonly error?: WireError;
  readonly name: string;
  readonly epoch: number;
  readonly lastSequenceId?: SequenceId;
}

export interface Receipt {
  readonly producer: number;
  readonly lastSequenceId: SequenceId;
  readonly error?: WireError;
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly index: MessageIndex;
  readonly count: number;
  readonly duplicate: boolean;
}

export interface ProducerClosed {
  readonly producer: number;
  readonly error?: WireError;
}

export interface PublishResponse {
  readonly hello?: ServerHello;
  readonly opened?: readonly ProducerOpened[];
  readonly receipts?: readonly Receipt[];
  readonly closed?: readonly ProducerClosed[];
  readonly credit?: Credit;
}

/** `exclusive` is the only type so far. A number that is not known decodes to `{ unknown }`, for the broker to refuse. */
export type SubscriptionType = 'exclusive' | { readonly unknown: number };

export type Position =
  | { readonly at: 'earliest' }
  | { readonly at: 'latest' }
  | { readonly at: 'messageId'; readonly id: WireMessageId }
  | { readonly at: 'time'; readonly time: number }
  | { readonly at: 'index'; readonly index: MessageIndex };

export interface Subscribe {
  readonly consumer: number;
  readonly topic: string;
  readonly subscription: string;
  readonly type: SubscriptionType;
  readonly start?: Position;
  readonly name: string;
  readonly instance: Buffer;
  /** '': whichever topic has the name. */
  readonly topicIdentity: string;
}

export interface Flow {
  readonly consumer: number;
  readonly messages: number;
  readonly bytes: number;
}

export interface Ack {
  readonly consumer: number;
  readonly ackId: number;
  readonly below: MessageIndex;
  /** Pairs of (first index, count), flat. */
  readonly ranges: readonly number[];
}

export interface Seek {
  readonly consumer: number;
  readonly seekId: number;
  readonly to: Position;
}

export interface CloseConsumer {
  readonly consumer: number;
  readonly unsubscribe: boolean;
}

export interface ConsumeRequest {
  readonly hello?: ClientHello;
  readonly subscribes?: readonly Subscribe[];
  readonly flows?: readonly Flow[];
  readonly acks?: readonly Ack[];
  readonly seeks?: readonly Seek[];
  readonly closes?: readonly CloseConsumer[];
}

export interface Subscribed {
  readonly consumer: number;
  readonly error?: WireError;
  readonly name: string;
  readonly nextIndex: MessageIndex;
  readonly endIndex: MessageIndex;
  readonly moves: number;
  readonly topicIdentity: string;
  readonly subscriptionIdentity: string;
}

export interface Delivery {
  readonly consumer: number;
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly index: MessageIndex;
  readonly appendTime: number;
  readonly crc32c: number;
  /** Bit i of the little-endian bit string: skip message i. Empty: none. */
  readonly skip: Buffer;
  readonly block: Buffer;
  readonly redeliveries: number;
}

export interface Loss {
  readonly consumer: number;
  readonly firstIndex: MessageIndex;
  readonly lastIndex: MessageIndex;
  readonly ledgerId: LedgerId;
  readonly firstEntryId: EntryId;
  /** Absent: nobody knows how many entries there were. */
  readonly lastEntryId?: EntryId;
  readonly error: WireError;
}

export interface CaughtUp {
  readonly consumer: number;
  readonly index: MessageIndex;
}

export interface AckReceipt {
  readonly consumer: number;
  readonly ackId: number;
  readonly error?: WireError;
}

export interface SeekDone {
  readonly consumer: number;
  readonly seekId: number;
  readonly error?: WireError;
  readonly nextIndex: MessageIndex;
  readonly moves: number;
}

export interface ConsumerClosed {
  readonly consumer: number;
  readonly error?: WireError;
}

export interface ConsumeResponse {
  readonly hello?: ServerHello;
  readonly subscribed?: readonly Subscribed[];
  readonly deliveries?: readonly Delivery[];
  readonly caughtUp?: readonly CaughtUp[];
  readonly ackReceipts?: readonly AckReceipt[];
  readonly seeksDone?: readonly SeekDone[];
  readonly closed?: readonly ConsumerClosed[];
  readonly credit?: Credit;
  readonly losses?: readonly Loss[];
}

export interface WireAppendEntry {
  readonly request: number;
  readonly ledgerId: LedgerId;
  readonly entryId: EntryId;
  readonly lac: EntryId;
  readonly length: number;
  readonly digest: number;
  readonly masterKey: Buffer;
  readonly recovery: boolean;
  /** Pieces when encoding; one piece when decoded. */
  readonly payload: readonly Buffer[];
  readonly payloadBytes: number;
}

export interface AppendRequest {
  readonly hello?: ClientHello;
  readonly entries?: readonly WireAppendEntry[];
}

export interface AppendResult {
  readonly request: number;
  readonly error?: WireError;
}

export interface AppendResponse {
  readonly hello?: ServerHello;
  readonly results?: readonly AppendResult[];
  readonly credit?: Credit;
  /** Why entries are refused from now on; with an empty code: they no longer are. */
  readonly full?: WireError;
}

export interface WireReadEntries {
  readonly request: number;
  readonly ledgerId: LedgerId;
  readonly firstEntryId: EntryId;
  readonly maxEntries: number;
  readonly maxBytes: number;
  readonly fence: boolean;
  readonly masterKey: Buffer;
}

export interface WireReadLac {
  readonly request: number;
  readonly ledgerId: LedgerId;
  readonly fence: boolean;
  readonly masterKey: Buffer;
}

export interface ReadRequest {
  readonly hello?: ClientHello;
  readonly reads?: readonly WireReadEntries[];
  readonly lacs?: readonly WireReadLac[];
}

export interface WireStoredEntry {
  readonly entryId: EntryId;
  readonly lac: EntryId;
  readonly length: number;
  readonly digest: number;
  readonly payload: Buffer;
}

export interface EntriesResult {
  readonly request: number;
  readonly error?: WireError;
  readonly entries?: readonly WireStoredEntry[];
}

export interface WireLacResult {
  readonly request: number;
  readonly error?: WireError;
  readonly lac: EntryId;
  readonly lastEntryId: EntryId;
  readonly unsure?: boolean;
}

export interface ReadResponse {
  readonly hello?: ServerHello;
  readonly entries?: readonly EntriesResult[];
  readonly lacs?: readonly WireLacResult[];
  readonly credit?: Credit;
}

/** The fields of a ProducerBlock; `payload` is a view. */
export interface ProducerBlock {
  readonly producerName: string;
  readonly producerEpoch: number;
  readonly firstSequenceId: SequenceId;
  readonly lastSequenceId: SequenceId;
  readonly count: number;
  readonly publishTime: number;
  /** The enum's number; 0 is none. */
  readonly compression: number;
  readonly uncompressedSize: number;
  readonly clearRows: number;
  /** A row of the clear table has a time before which its message is not to be delivered. */
  readonly delayed: boolean;
  readonly payload: Buffer;
}
