/**
 * What an administrator does to subscriptions. Whoever is connected to one that is moved or deleted is told, and closed.
 */
import { MagnetarError } from '../../lib/errors.ts';
import type { MessageIndex } from '../../lib/ids.ts';
import type { Position } from '../../wire/frames.ts';
import { checkName } from '../protocol/topic-name.ts';
import type { AckLog, AckSubscription } from './ack-log.ts';
import type { Consumers } from './consumers.ts';
import { endOf, lossError, type LogEntry, type LogItem } from './log-entry.ts';
import { type LogReader, newCursor } from './log-reader.ts';
import { resolvePosition } from './positions.ts';

/** A position, or the one behind a message: behind its whole entry when it names no message of it. */
export type Target = Position | { readonly at: 'behind'; readonly position: Position; readonly wholeEntry: boolean };

interface SubscriptionControlOptions {
  readonly topic: string;
  readonly reader: LogReader;
  readonly ackLog: AckLog;
  readonly consumers: Consumers;
}

export class SubscriptionControl {
  readonly #options: SubscriptionControlOptions;

  constructor(options: SubscriptionControlOptions) {
    this.#options = options;
  }

  get names(): string[] {
    return [...this.#options.ackLog.subscriptions.keys()];
  }

  /** @throws SUBSCRIPTION_NOT_FOUND */
  get(name: string): AckSubscription {
    const subscription = this.#options.ackLog.subscriptions.get(name);
    if (subscription !== undefined) return subscription;
    throw new MagnetarError('SUBSCRIPTION_NOT_FOUND', `${this.#shown(name)} does not exist`, {
      details: { topic: this.#options.topic, subscription: name },
    });
  }

  /** Durable when it resolves. @throws ALREADY_EXISTS, INVALID_ARGUMENT (name), POSITION_NOT_FOUND; what the ack log throws */
  async create(name: string, at: Target): Promise<void> {
    checkName('subscription', name);
    const { ackLog } = this.#options;
    const index = await this.#resolve(at);
    if (ackLog.subscriptions.has(name))
      throw new MagnetarError('ALREADY_EXISTS', `${this.#shown(name)} exists already`);
    await ackLog.create(name, index);
  }

  /** Durable when it resolves. @throws SUBSCRIPTION_NOT_FOUND; CONSUMER_BUSY when one is connected and it is not forced */
  async delete(name: string, force: boolean): Promise<void> {
    const { ackLog, consumers } = this.#options;
    const subscription = this.get(name);
    const consumer = consumers.connectedTo(name);
    if (consumer !== undefined && !force) {
      const text = `${this.#shown(name)} has consumer "${consumer}" connected; close it, or force it`;
      throw new MagnetarError('CONSUMER_BUSY', text);
    }
    consumers.disconnect(name, new MagnetarError('SUBSCRIPTION_NOT_FOUND', `${this.#shown(name)} was deleted`));
    await ackLog.delete(subscription);
  }

  /**
   * Acknowledges the next messages that are not, as many as there are at most. What a consumer was sent already stays with it.
   * @throws SUBSCRIPTION_NOT_FOUND; what the ack log throws
   */
  async skip(name: string, messages: number): Promise<void> {
    const { ackLog, reader, consumers } = this.#options;
    const subscription = this.get(name);
    const below = subscription.state.behindUnacked(messages, reader.endIndex);
    const durable = new Promise<void>((resolve, reject) => {
      ackLog.acknowledge(subscription, below, [], (error) => (error === undefined ? resolve() : reject(error)));
    });
    consumers.acknowledgedElsewhere(name);
    await durable;
  }

  /**
   * Moves a subscription: exactly what lies before `to` counts as acknowledged. Its consumer is closed, connects again, and
   * goes on from there.
   * @throws SUBSCRIPTION_NOT_FOUND, POSITION_NOT_FOUND; what reading and the ack log throw
   */
  async move(name: string, to: Target): Promise<void> {
    const { ackLog, consumers } = this.#options;
    this.get(name);
    const index = await this.#resolve(to);
    const subscription = this.get(name);
    const { moves } = subscription.state;
    const durable = ackLog.reset(subscription, index); // changes the state at once, unless it is refused
    if (subscription.state.moves !== moves) {
      const text = `${this.#shown(name)} was moved to index ${index}; subscribe again`;
      consumers.disconnect(name, new MagnetarError('UNAVAILABLE', text));
    }
    await durable;
  }

  /**
   * The entry with the `nth` message that is not acknowledged, from 1 on, and the place of the message in it.
   * @throws SUBSCRIPTION_NOT_FOUND, POSITION_NOT_FOUND; DATA_LOSS when the message is lost; what reading throws
   */
  async peek(name: string, nth: number): Promise<{ readonly entry: LogEntry; readonly at: number }> {
    const { reader } = this.#options;
    const { state } = this.get(name);
    const end = reader.endIndex;
    const index = (state.behindUnacked(nth, end) - 1) as MessageIndex;
    const unacked = end - state.markDelete - state.ackedAbove;
    if (nth > unacked) {
      const text = `${this.#shown(name)} has ${unacked} messages that are not acknowledged; there is no number ${nth}`;
      throw new MagnetarError('POSITION_NOT_FOUND', text);
    }
    const entry = await this.#entry(index);
    return { entry, at: index - entry.index };
  }

  /** The last entry that ends at or before a message. Entry -1: before the first one; ledger -1: there is none. */
  async placeBefore(index: MessageIndex): Promise<{ readonly ledgerId: number; readonly entryId: number }> {
    const { reader } = this.#options;
    const last = reader.spans.at(-1);
    if (last === undefined) return { ledgerId: -1, entryId: -1 };
    if (index >= reader.endIndex) return { ledgerId: last.ledgerId, entryId: last.lastEntryId };
    const { ledgerId, entryId } = await this.#item(Math.max(index, reader.oldestIndex) as MessageIndex);
    return { ledgerId, entryId: entryId - 1 };
  }

  async #resolve(to: Target): Promise<MessageIndex> {
    const { reader } = this.#options;
    if (to.at !== 'behind') return resolvePosition(reader, to);
    const index = await resolvePosition(reader, to.position);
    return to.wholeEntry ? endOf(await this.#item(index)) : ((index + 1) as MessageIndex);
  }

  /** @throws DATA_LOSS */
  async #entry(index: MessageIndex): Promise<LogEntry> {
    const item = await this.#item(index);
    if (item.lost === true) throw lossError(this.#options.topic, item);
    return item;
  }

  async #item(index: MessageIndex): Promise<LogItem> {
    const { reader } = this.#options;
    const [item] = await reader.read(index, { maxEntries: 1, maxBytes: 1 }, newCursor());
    if (item === undefined || item.index > index) throw await reader.notFound(`message with index ${index}`);
    return item;
  }

  #shown(name: string): string {
    return `subscription "${name}" of topic ${this.#options.topic}`;
  }
}
