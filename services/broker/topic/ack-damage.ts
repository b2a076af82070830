/** Saying what damage in an ack log has cost. */
import type { Logger } from '../../runtime/logger.ts';
import type { AckLoss, RecoveredAcks } from './ack-replay.ts';

/** A line names so many subscriptions. */
const NAMED = 20;

/** One error line for each run of lost entries, and one for what follows from all of them. */
export function reportLosses(logger: Logger, topic: string, acks: RecoveredAcks): void {
  const { losses, restarted, subscriptionsMissing, nameless } = acks;
  if (losses.length === 0) return;
  const names = acks.subscriptions.map(({ name }) => name);
  const subscriptions = names.slice(0, NAMED);
  for (const loss of losses) {
    logger.error(`the ack log of topic ${topic} has lost ${entriesOf(loss)}: ${loss.reason}`, { topic, ...loss });
  }
  const listed = `${names.length} subscriptions${names.length === 0 ? '' : ` (${shown(subscriptions, names.length)})`}`;
  const what = restarted
    ? `that any of ${listed} was moved may be among it, so all that was acknowledged before counts as not acknowledged`
    : `of ${listed}, messages whose acknowledgment was in it are delivered again`;
  logger.error(`topic ${topic}: ${what}`, { topic, subscriptions });
  if (!subscriptionsMissing) return;
  const unknown = nameless.length === 0 ? '' : ` (numbers ${nameless.slice(0, NAMED).join(', ')})`;
  const text = `topic ${topic}: further subscriptions${unknown} may be lost with their names`;
  logger.error(`${text}; one that is not known when it is asked for begins at the oldest message`, { topic, nameless });
}

function shown(names: readonly string[], all: number): string {
  const list = names.map((name) => `"${name}"`).join(', ');
  return names.length === all ? list : `${list}, …`;
}

function entriesOf({ ledgerId, firstEntryId, lastEntryId }: AckLoss): string {
  if (lastEntryId === undefined) return `what came behind entry ${firstEntryId - 1} of ledger ${ledgerId}`;
  if (lastEntryId === firstEntryId) return `entry ${firstEntryId} of ledger ${ledgerId}`;
  return `entries ${firstEntryId} to ${lastEntryId} of ledger ${ledgerId}`;
}
